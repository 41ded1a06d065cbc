// MemoryController::Find and Moved.
//
// Stack: a line of /proc and the own path, 4 KiB each, are all that may be live at once. Paths to
// open are built in directory_ itself, which nobody else reads meanwhile.
#include <errno.h>

#include <cstring>

#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/cgroup/controller.h"
#include "lib/cgroup/file_names.h"
#include "lib/cgroup/lines.h"
#include "lib/cgroup/mountinfo.h"
#include "lib/cgroup/node.h"

namespace heapflare::cgroup {
namespace {

constexpr std::string_view kMemory = "memory";
// The longest path that the kernel takes; what else the lines that matter have is some tens of
// characters, and longer ones are passed over.
constexpr size_t kLineBuffer = 4096 + 64;
// Directories leave room for the names of their files.
constexpr size_t kLongestDirectory = 4096 - 64;

int OpenIn(const char* directory, const char* file) {
  const int at = base::Open(directory, O_PATH | O_DIRECTORY);
  if (at < 0) return at;
  const int fd = base::OpenAt(at, file, O_RDONLY | O_NOCTTY);
  base::Close(at);
  return fd;
}

Version VersionOf(const MountLine& mount) {
  if (mount.type == "cgroup2") return Version::kV2;
  if (mount.type == "cgroup" && ListHas(mount.super_options, kMemory)) return Version::kV1;
  return Version::kNone;
}

bool IsMembershipFor(Version version, const MembershipLine& line) {
  if (version == Version::kV1) return ListHas(line.controllers, kMemory);
  return line.number == "0" && line.controllers.empty();
}

// FNV-1a, never 0.
uint64_t Hash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash | 1;
}

}  // namespace

void MemoryController::Forget() {
  for (KeptFile& file : usage_) file.Drop();
  version_ = Version::kNone;
  levels_ = 0;
  error_ = 0;
  reason_ = "";
  own_path_hash_ = 0;
  directory_.Clear();
  mount_length_ = 0;
}

// A hierarchy has the memory controller or has it not: if a v1 hierarchy does, v2's does not,
// wherever and in whatever order the two are mounted.
__attribute__((noinline)) Version MemoryController::MountedVersion() {
  char buffer[kLineBuffer];
  Lines lines(OpenIn(roots_.proc_self, "mountinfo"), buffer, sizeof(buffer));
  Version version = Version::kNone;
  MountLine mount;
  for (std::string_view line; lines.Next(&line);) {
    if (!ParseMountLine(line, &mount)) continue;
    const Version one = VersionOf(mount);
    if (one != Version::kNone && version != Version::kV1) version = one;
  }
  error_ = lines.error();
  return version;
}

__attribute__((noinline)) int MemoryController::ReadOwnPath(base::TextWriter* path) const {
  char buffer[kLineBuffer];
  Lines lines(OpenIn(roots_.proc_self, "cgroup"), buffer, sizeof(buffer));
  MembershipLine membership;
  for (std::string_view line; lines.Next(&line);) {
    if (!ParseMembershipLine(line, &membership) || !IsMembershipFor(version_, membership)) continue;
    path->Add(membership.path);
    return path->truncated() ? -ENAMETOOLONG : 0;
  }
  return lines.error() != 0 ? lines.error() : -ENOENT;
}

// Of several mounts of the hierarchy the one that shows the own directory, then one at the usual
// place, then the last: of two at the same place it is the one on top. Sets directory_; false if
// `own_path` is not to be seen in any, so that it is the mount's root.
__attribute__((noinline)) bool MemoryController::ChooseMount(std::string_view own_path) {
  constexpr std::string_view kUsual = "/sys/fs/cgroup";
  char buffer[kLineBuffer];
  Lines lines(OpenIn(roots_.proc_self, "mountinfo"), buffer, sizeof(buffer));
  int best = -1;
  MountLine mount;
  for (std::string_view line; lines.Next(&line);) {
    if (!ParseMountLine(line, &mount) || VersionOf(mount) != version_) continue;
    std::string_view below;
    const std::string_view place = mount.mount_point;
    const size_t mount_length = strlen(roots_.prefix) + place.size();
    if (mount_length > kLongestDirectory) continue;
    const bool shown =
        PathBelow(mount.root, own_path, &below) && mount_length + below.size() <= kLongestDirectory;
    const bool usual =
        place.starts_with(kUsual) && (place.size() == kUsual.size() || place[kUsual.size()] == '/');
    const int rank = (shown ? 2 : 0) + (usual ? 1 : 0);
    if (rank < best) continue;
    best = rank;
    directory_.Clear();
    directory_.Add(roots_.prefix);
    AddDecoded(place, &directory_);
    mount_length_ = directory_.size();
    if (shown) directory_.Add(below);
  }
  return best >= 2;
}

bool MemoryController::Has(const char* file) {
  const size_t length = directory_.size();
  directory_.Add('/').Add(file);
  base::FileStatus status;
  const int error = base::Status(AT_FDCWD, directory_.c_str(), 0, &status);
  directory_.ShortenTo(length);
  // One that must not be looked at is there.
  return error != -ENOENT && error != -ENOTDIR;
}

// Goes up from the own directory to the first that has the memory files: on v2 a directory need not
// have the controller, and its pages are then charged to the one above. False if there is none.
bool MemoryController::SettleDirectory() {
  while (!Has(NamesOf(version_).usage)) {
    if (directory_.size() <= mount_length_) return false;
    const std::string_view path = directory_.view();
    directory_.ShortenTo(path.rfind('/'));
  }
  return true;
}

// Whether the mount of v2 has the controller at all: in a hybrid layout it is v1's.
bool MemoryController::RootHasMemory() {
  const size_t length = directory_.size();
  directory_.Add("/cgroup.controllers");
  char text[512];
  const long got = base::ReadFile(directory_.c_str(), text, sizeof(text));
  directory_.ShortenTo(length);
  std::string_view list(text, got > 0 ? static_cast<size_t>(got) : 0);
  list = base::TrimSpace(list);
  for (std::string_view one; base::TakeUntil(' ', &list, &one);) {
    if (one == kMemory) return true;
  }
  return false;
}

void MemoryController::MeasureLevels() {
  levels_ = 0;
  for (size_t length = directory_.size();; length = directory_.view().rfind('/', length - 1)) {
    lengths_[levels_++] = static_cast<uint16_t>(length);
    if (length <= mount_length_ || levels_ == kMaxLevels) break;
  }
  if (version_ != Version::kV1) return;
  // Before Linux 5.11 a v1 directory could be set to not charge for those below it.
  for (int level = 1; level < levels_; ++level) {
    const int fd = Open(level, "memory.use_hierarchy", O_RDONLY);
    if (fd < 0) continue;
    uint64_t hierarchical = 1;
    const int error = ReadBytes(fd, &hierarchical);
    base::Close(fd);
    if (error == 0 && hierarchical == 0) levels_ = level;
  }
}

Version MemoryController::Find(const Roots& roots) {
  Forget();
  roots_ = roots;
  {
    NodeMemory node;
    node_total_ = ReadNodeMemory(roots.meminfo, &node) == 0 ? node.total : kUnknown;
  }
  version_ = MountedVersion();
  if (version_ == Version::kNone) {
    reason_ = error_ != 0 ? "cannot read mountinfo" : "no memory cgroup is mounted here";
    return version_;
  }
  bool shown = false;
  {
    base::Path own;
    error_ = ReadOwnPath(&own);
    if (error_ == 0) own_path_hash_ = Hash(own.view());
    shown = ChooseMount(error_ == 0 ? own.view() : std::string_view());
  }
  const size_t wanted = directory_.size();
  if (!SettleDirectory()) {
    directory_.ShortenTo(mount_length_);
    // The root of v2 has the controller, but no memory.current.
    if (version_ == Version::kV1 || !RootHasMemory()) {
      reason_ = version_ == Version::kV1 ? "the memory cgroup's mount point does not show it"
                                         : "cgroup2 is mounted without the memory controller";
      version_ = Version::kNone;
      // Where the process stands in it tells nothing, and Moved would ask for another version's.
      own_path_hash_ = 0;
      return version_;
    }
  }
  if (error_ != 0) {
    reason_ = "the own cgroup is not known (/proc/self/cgroup); taking the mount's root";
  } else if (!shown) {
    reason_ = "the own cgroup lies outside what is mounted; taking the mount's root";
  } else if (directory_.size() < wanted) {
    reason_ = "the own cgroup has no memory files; taking the nearest one above";
  }
  MeasureLevels();
  uint64_t unused = 0;
  ReadUsage(0, &unused);  // opens the descriptor now, and not in somebody's malloc
  return version_;
}

bool MemoryController::Moved() const {
  if (own_path_hash_ == 0) return false;
  base::Path own;
  return ReadOwnPath(&own) == 0 && Hash(own.view()) != own_path_hash_;
}

}  // namespace heapflare::cgroup
