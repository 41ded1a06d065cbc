// The memory cgroup of this process: which it is, what limits it, how full it is.
//
// A process is killed when the memory charged to its cgroup *or to any cgroup above it* reaches
// that one's limit. So what there is to watch is a ladder of levels, each with a limit and a usage:
//
//   level 0          the process's own directory; on v2 the nearest one that has the controller:
//                    what lacks it is charged to the one above
//   level 1 ... n-1  the directories above it, up to the mount's root
//   kHiddenLevel     v1: some directory outside the container, known only by its limit
//   kNodeLevel       the machine
//
// The level that kills is the one with the least headroom, which need not be the one with the
// lowest limit: the directories above are shared with siblings. Limit has both.
//
// Which controller: v1 and v2 can both be mounted, and memory then belongs to one of them. That is
// told by mountinfo (a v1 mount with the option "memory"), not by the existence of files. What
// cannot be found or read narrows the view and is noted; nothing here fails a caller.
//
// Threads, signals: Find is for one thread while no other uses the object; all else for any number
// of threads and signal handlers at once. Nothing allocates, locks or waits; at most 9 KiB of stack
// (Find, Moved) or 5 KiB. A forked child calls Forget where it forked, and Find again. Threads with
// a descriptor table of their own need a controller of their own: descriptors are kept for one
// table, and each read in the other would open the file anew. Errors are negative errno.
//
// Swap is left out: with swap a limit of memory is reached long before anything is killed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/text.h"
#include "lib/cgroup/kept_file.h"
#include "lib/cgroup/stat.h"

namespace heapflare::cgroup {

// Where to look; the strings must outlive the controller.
struct Roots {
  // Not /proc/self: once the main thread has ended (pthread_exit in main), that has no mountinfo
  // and says "/" for every v1 cgroup.
  const char* proc_self = "/proc/thread-self";
  const char* meminfo = "/proc/meminfo";
  const char* pressure = "/proc/pressure/memory";
  const char* prefix = "";  // put before each mount point of mountinfo: for fixture trees
};

inline constexpr int kNodeLevel = -1;
inline constexpr int kHiddenLevel = -2;
inline constexpr int kMaxLevels = 32;  // of deeper trees the levels farthest up are left out

enum class LimitSource {
  kNone,  // not even the machine's size is known
  kNode,  // no cgroup limits the process to less than the machine has
  kCgroup,
  kOverride,  // by the user; never returned here
};

struct Bound {
  uint64_t bytes = kUnlimited;
  uint64_t usage = kUnknown;  // of that level, bytes; of level 0 for kHiddenLevel: at least this
  int level = kNodeLevel;
  uint64_t headroom() const {
    return usage == kUnknown ? bytes : bytes > usage ? bytes - usage : 0;
  }
};

struct Limit {
  LimitSource source = LimitSource::kNone;
  Bound lowest;   // the effective limit
  Bound nearest;  // the level with the least headroom: whose usage to watch, by ReadUsage
  Bound high;     // v2: the lowest memory.high, above which the kernel slows the process down
  int error = 0;  // the first level that could not be read, if any: 0 or negative errno
};

class MemoryController {
 public:
  constexpr MemoryController() = default;
  MemoryController(const MemoryController&) = delete;
  MemoryController& operator=(const MemoryController&) = delete;

  // Finds the cgroup of the calling thread and opens its usage file. About 0.1 ms.
  Version Find(const Roots& roots = {});
  // Closes what is open, in the calling thread's descriptor table, and knows nothing any more. For
  // one thread, like Find. There is no destructor to do it: a controller is a static object of a
  // process that may still be using it.
  void Forget();
  // Whether the process has been put into another cgroup since: then Find again (into another
  // object, if threads may be using this one). About 10 µs.
  bool Moved() const;

  Version version() const { return version_; }
  int levels() const { return levels_; }  // 0 for kNone
  // A level's directory, prefix included; empty if there is no such level.
  std::string_view directory(int level = 0) const;
  // What did not go straight, for people: why there is none, or why the view is narrow. "" if
  // nothing. With error(), negative errno, if a system call was the reason.
  const char* reason() const { return reason_; }
  int error() const { return error_; }

  // Reads every level's limit, and the usage of those that have one. About 7 µs a level,
  // twice that on v2 (memory.high), and 15 µs more on v1 (the limits outside the container).
  Limit ReadLimit();
  // What is charged to a level, bytes; at the node what is not available. Under 2 µs for levels
  // >= 0. -ENOENT where there is no such number, as in the root of v2; -ENODEV when the cgroup has
  // been removed.
  int ReadUsage(int level, uint64_t* bytes);
  // 15 to 20 µs. Level 0 for kHiddenLevel.
  int ReadStat(int level, MemoryStat* stat) const;
  int ReadEvents(int level, MemoryEvents* events) const;

  // Opens a file of a level, close-on-exec; the descriptor is the caller's. Negative errno.
  int Open(int level, const char* file, int flags) const;

 private:
  bool Binds(uint64_t limit) const;

  // find.cc
  Version MountedVersion();
  int ReadOwnPath(base::TextWriter* path) const;
  bool ChooseMount(std::string_view own_path);
  bool SettleDirectory();
  bool RootHasMemory();
  void MeasureLevels();
  bool Has(const char* file);

  Roots roots_;
  Version version_ = Version::kNone;
  int levels_ = 0;
  int error_ = 0;
  const char* reason_ = "not looked for yet";
  uint64_t own_path_hash_ = 0;         // 0: unknown
  uint64_t node_total_ = kUnknown;     // MemTotal when found
  size_t mount_length_ = 0;            // of directory_: up to the mount's root
  uint16_t lengths_[kMaxLevels] = {};  // of directory_, by level
  KeptFile usage_[kMaxLevels];
  base::Path directory_;
};

}  // namespace heapflare::cgroup
