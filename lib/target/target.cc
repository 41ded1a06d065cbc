#include "lib/target/target.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "lib/base/directory.h"
#include "lib/base/parse.h"
#include "lib/target/box_file.h"
#include "lib/target/files.h"
#include "lib/target/process.h"

namespace heapflare::target {
namespace {

bool IsDirectory(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

std::string Join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

absl::StatusOr<Target> NewestIn(const std::vector<std::string>& directories) {
  for (const std::string& directory : directories) {
    const auto boxes = ListBoxes(directory);
    if (boxes.ok() && !boxes->empty() && boxes->front().status.ok()) {
      return Target{.kind = Kind::kBox, .path = boxes->front().path, .pid = 0};
    }
  }
  return absl::NotFoundError(
      Join(directories) +
      ": no box there; name a PID, a file or a directory, or start a program with: heapflare run");
}

absl::StatusOr<Target> FromFile(const std::string& path) {
  auto file = OpenRegular(path);
  if (!file.ok()) return file.status();
  unsigned char start[8] = {};
  const ssize_t got = pread(file->fd.get(), start, sizeof(start), 0);
  if (got < 0) return FileError(path, "cannot be read", errno);
  uint64_t magic = 0;
  memcpy(&magic, start, sizeof(magic));
  const bool gzip = got >= 2 && start[0] == 0x1f && start[1] == 0x8b;
  // A profile that is not compressed starts with its first field, the sample types.
  const bool raw_profile = got >= 2 && start[0] == 0x0a && !path.ends_with(".box");
  const bool is_box = magic == box::kMagic || (!gzip && !raw_profile);
  return Target{.kind = is_box ? Kind::kBox : Kind::kProfile, .path = path, .pid = 0};
}

// Boxes by the places that the process itself names, and by what it has mapped.
std::vector<std::string> CandidatesOf(int pid, uint32_t uid) {
  const std::string process = ProcPath(pid, "");
  const std::string root = process + "/root";
  std::vector<std::string> paths;
  // A box is a shared mapping of the whole file, so the memory map names it, wherever it is.
  if (const auto maps = ReadWhole(process + "/maps", 64 << 20); maps.ok()) {
    std::string_view rest = *maps;
    for (std::string_view line; base::TakeUntil('\n', &rest, &line);) {
      const size_t slash = line.find('/');
      if (slash == std::string_view::npos || line.find(" rw-s 00000000 ") == line.npos) continue;
      const std::string_view name = line.substr(slash);
      if (name.ends_with(".box")) paths.push_back(root + std::string(name));
      // No longer in any directory: only the mapping leads there.
      if (name.ends_with(".box (deleted)")) {
        paths.push_back(
            absl::StrFormat("%s/map_files/%s", process, line.substr(0, line.find(' '))));
      }
    }
  }
  base::ForEachEntry((process + "/fd").c_str(), [&](std::string_view fd) {
    const std::string path = absl::StrFormat("%s/fd/%s", process, fd);
    if (ReadLink(path).find("memfd:heapflare-box") != std::string::npos) paths.push_back(path);
    return true;
  });
  std::vector<std::string> directories;
  if (const auto environment = ReadEnvironment(pid); environment.ok()) {
    for (const char* name : {"HEAPFLARE_BOX_DIR", "HEAPFLARE_DIR"}) {
      const std::string directory = Variable(*environment, name);
      if (!directory.empty()) directories.push_back(directory);
    }
  }
  directories.push_back(DefaultBoxDirectory(uid));
  directories.push_back(DefaultDumpDirectory(uid));
  for (const std::string& directory : directories) {
    const auto boxes = ListBoxes(root + directory);
    if (!boxes.ok()) continue;
    for (const ListedBox& box : *boxes) paths.push_back(box.path);
  }
  return paths;
}

absl::StatusOr<Target> BoxOfLiving(const Process& process, uint32_t uid) {
  std::vector<std::string> paths = CandidatesOf(process.pid, uid);
  for (const std::string& directory : DefaultDirectories()) {
    const auto boxes = ListBoxes(directory);
    if (!boxes.ok()) continue;
    for (const ListedBox& box : *boxes) paths.push_back(box.path);
  }
  const std::string root = ProcPath(process.pid, "/root");
  for (const std::string& path : paths) {
    const auto header = ReadBoxHeader(path);
    if (!header.ok() || !Wrote(process, *header)) continue;
    // The plain path, where it is the same file, is what people know.
    const std::string plain = path.starts_with(root) ? path.substr(root.size()) : path;
    struct stat one = {};
    struct stat other = {};
    const bool same = stat(path.c_str(), &one) == 0 && stat(plain.c_str(), &other) == 0 &&
                      one.st_dev == other.st_dev && one.st_ino == other.st_ino;
    return Target{.kind = Kind::kBox, .path = same ? plain : path, .pid = process.pid};
  }
  return absl::NotFoundError(absl::StrFormat(
      "process %1$d: no box of it to be found; try: heapflare doctor %1$d", process.pid));
}

}  // namespace

std::string DefaultBoxDirectory(uint32_t uid) {
  return absl::StrFormat("/dev/shm/heapflare-%d", uid);
}
std::string DefaultDumpDirectory(uint32_t uid) { return absl::StrFormat("/tmp/heapflare-%d", uid); }

std::vector<std::string> DefaultDirectories() {
  std::vector<std::string> directories;
  const auto add = [&directories](const char* value, const std::string& otherwise) {
    std::string directory = value != nullptr && *value != 0 ? value : otherwise;
    if (std::find(directories.begin(), directories.end(), directory) == directories.end()) {
      directories.push_back(std::move(directory));
    }
  };
  add(getenv("HEAPFLARE_BOX_DIR"), DefaultBoxDirectory(geteuid()));
  add(getenv("HEAPFLARE_DIR"), DefaultDumpDirectory(geteuid()));
  return directories;
}

absl::StatusOr<std::vector<ListedBox>> ListBoxes(const std::string& directory) {
  std::vector<ListedBox> boxes;
  const int error = base::ForEachEntry(directory.c_str(), [&](std::string_view name) {
    if (!name.ends_with(".box")) return true;
    ListedBox box = {.path = absl::StrFormat("%s/%s", directory, name), .status = {}, .header = {}};
    auto header = ReadBoxHeader(box.path);
    if (header.ok()) {
      box.header = *header;
    } else {
      box.status = header.status();
    }
    boxes.push_back(std::move(box));
    return true;
  });
  if (error != 0) return FileError(directory, "cannot be listed", -error);
  std::sort(boxes.begin(), boxes.end(), [](const ListedBox& a, const ListedBox& b) {
    if (a.status.ok() != b.status.ok()) return a.status.ok();
    if (a.header.opened_utc != b.header.opened_utc)
      return a.header.opened_utc > b.header.opened_utc;
    return a.path < b.path;
  });
  return boxes;
}

absl::StatusOr<Target> FindBoxOf(int pid) {
  pid = BehindRun(pid);
  struct stat owner = {};
  const bool exists = stat(ProcPath(pid, "").c_str(), &owner) == 0;
  const auto process = LookUp(pid);
  if (exists && process && !process->zombie) return BoxOfLiving(*process, owner.st_uid);
  for (const std::string& directory : DefaultDirectories()) {
    const auto boxes = ListBoxes(directory);
    if (!boxes.ok()) continue;
    for (const ListedBox& box : *boxes) {
      if (box.status.ok() && box.header.pid == static_cast<uint32_t>(pid)) {
        return Target{.kind = Kind::kBox, .path = box.path, .pid = 0};
      }
    }
  }
  return absl::NotFoundError(
      absl::StrFormat("process %d: neither such a process nor a box of it in %s; try: heapflare ls",
                      pid, Join(DefaultDirectories())));
}

absl::StatusOr<Target> Resolve(std::string_view text) {
  if (text.empty()) return NewestIn(DefaultDirectories());
  if (const auto pid = ParsePid(text)) return FindBoxOf(*pid);
  const std::string path(text);
  if (IsDirectory(path)) return NewestIn({path});
  return FromFile(path);
}

}  // namespace heapflare::target
