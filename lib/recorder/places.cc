#include "lib/recorder/places.h"

#include <errno.h>

#include "lib/base/parse.h"
#include "lib/base/syscall.h"

namespace heapflare::recorder {
namespace {

// Makes the directories that `path` is to lie in, as mkdir -p does. One component at a time: a
// second path would be too much for a small stack.
__attribute__((noinline)) int MakeParents(std::string_view path) {
  constexpr mode_t kMode = 0755;
  int at = base::Open("/", O_PATH | O_DIRECTORY);
  std::string_view component;
  while (at >= 0 && base::TakeUntil('/', &path, &component) && !path.empty()) {
    if (component.empty()) continue;
    const base::Text<256> name(component);
    if (name.truncated()) {
      base::Close(at);
      return -ENAMETOOLONG;
    }
    base::MkDirAt(at, name.c_str(), kMode);  // most are there
    const int next = base::OpenAt(at, name.c_str(), O_PATH | O_DIRECTORY);
    base::Close(at);
    at = next;
  }
  if (at < 0) return at;
  base::Close(at);
  return 0;
}

}  // namespace

int UseDirectory(const char* path) {
  base::FileStatus status = {};
  int error = base::Status(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &status);
  if (error == -ENOENT) {
    error = base::MkDir(path, 0700);
    if (error == -ENOENT && MakeParents(path) == 0) error = base::MkDir(path, 0700);
    if (error != 0 && error != -EEXIST) return error;
    error = base::Status(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &status);
  }
  if (error != 0) return error;
  if (S_ISLNK(status.mode)) return -ELOOP;
  if (!S_ISDIR(status.mode)) return -ENOTDIR;
  // Whoever owns the directory can rename what is in it. Root can anyway, and is who makes a
  // container's volumes.
  if (status.uid != base::EffectiveUserId() && status.uid != 0) return -EPERM;
  return 0;
}

void DumpDirectory(const Settings& settings, base::TextWriter* path) {
  path->Clear();
  if (settings.dump_directory.size() > 0) {
    path->Add(settings.dump_directory.view());
  } else {
    path->Add("/tmp/heapflare-").AddNumber(base::EffectiveUserId());
  }
}

bool BoxDirectory(const Settings& settings, int choice, base::TextWriter* path) {
  path->Clear();
  if (settings.box_directory.size() > 0 && choice-- == 0) {
    path->Add(settings.box_directory.view());
    return true;
  }
  // A directory that was asked for and cannot be used is no reason to use /dev/shm, but for having
  // no box at all.
  if (choice == 0) {
    path->Add("/dev/shm/heapflare-").AddNumber(base::EffectiveUserId());
    return true;
  }
  if (choice == 1) {
    DumpDirectory(settings, path);
    return true;
  }
  return false;
}

void Stem(std::string_view program, int32_t process, uint64_t start_seconds,
          base::TextWriter* name) {
  name->Add(program).Add('.').AddNumber(static_cast<uint64_t>(process));
  name->Add('.').AddNumber(start_seconds);
}

}  // namespace heapflare::recorder
