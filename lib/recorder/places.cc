#include "lib/recorder/places.h"

#include <errno.h>

#include "lib/base/syscall.h"

namespace heapflare::recorder {

int UseDirectory(const char* path) {
  base::FileStatus status = {};
  int error = base::Status(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &status);
  if (error == -ENOENT) {
    error = base::MkDir(path, 0700);
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
