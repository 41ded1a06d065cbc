#include "lib/doctor/allocator.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <vector>

#include "absl/strings/str_format.h"
#include "lib/base/parse.h"

namespace heapflare::doctor {
namespace {

struct Allocator {
  const char* name;
  // File names, the best first.
  std::vector<const char*> files;
};

const Allocator kAllocators[] = {
    {"jemalloc", {"libjemalloc.so.2", "libjemalloc.so"}},
    {"tcmalloc",
     {"libtcmalloc.so.4", "libtcmalloc_minimal.so.4", "libtcmalloc.so", "libtcmalloc_minimal.so"}},
    {"mimalloc", {"libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so.2.0", "libmimalloc.so"}},
};

bool Exists(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

std::vector<std::string> LibraryDirectories() {
  std::vector<std::string> directories;
  if (const char* path = getenv("LD_LIBRARY_PATH")) {
    std::string_view rest = path;
    for (std::string_view directory; base::TakeUntil(':', &rest, &directory);) {
      if (!directory.empty()) directories.emplace_back(directory);
    }
  }
#if defined(__x86_64__)
  directories.insert(directories.end(), {"/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"});
#else
  directories.insert(directories.end(), {"/usr/lib/aarch64-linux-gnu", "/lib/aarch64-linux-gnu"});
#endif
  directories.insert(directories.end(),
                     {"/usr/local/lib", "/usr/lib64", "/usr/local/lib64", "/usr/lib", "/lib64"});
  return directories;
}

}  // namespace

absl::StatusOr<std::string> FindAllocator(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (!Exists(name)) return absl::NotFoundError(absl::StrFormat("'%s': no such file", name));
    char* resolved = realpath(name.c_str(), nullptr);
    const std::string path = resolved == nullptr ? name : resolved;
    free(resolved);
    return path;
  }
  for (const Allocator& allocator : kAllocators) {
    if (name != allocator.name) continue;
    for (const char* file : allocator.files) {
      for (const std::string& directory : LibraryDirectories()) {
        const std::string path = absl::StrFormat("%s/%s", directory, file);
        if (Exists(path)) return path;
      }
    }
    return absl::NotFoundError(
        absl::StrFormat("'%s': %s not found in the usual directories; install it, or give its path",
                        name, allocator.files.front()));
  }
  return absl::NotFoundError(
      absl::StrFormat("'%s': neither jemalloc, tcmalloc, mimalloc nor a path", name));
}

}  // namespace heapflare::doctor
