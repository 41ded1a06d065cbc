// Reading; find.cc finds.
#include "lib/cgroup/controller.h"

#include <errno.h>

#include "lib/base/syscall.h"
#include "lib/cgroup/file_names.h"
#include "lib/cgroup/lines.h"
#include "lib/cgroup/node.h"

namespace heapflare::cgroup {
namespace {

int ReadLimitFile(const MemoryController& controller, int level, const char* file,
                  uint64_t* bytes) {
  const int fd = controller.Open(level, file, O_RDONLY);
  if (fd < 0) return fd;
  const int result = ReadLimit(fd, bytes);
  base::Close(fd);
  return result;
}

// Not inlined, like Open: of a path and a buffer of 4 KiB only one is to lie on the stack.
__attribute__((noinline)) int ReadStatFrom(int fd, Version version, MemoryStat* stat) {
  char buffer[4096];  // memory.stat has 1 to 2 KiB and is read in one piece
  Lines lines(fd, buffer, sizeof(buffer));
  return ParseStat(version, &lines, stat);
}

int ReadEventsFrom(int fd, MemoryEvents* events) {
  char buffer[256];
  Lines lines(fd, buffer, sizeof(buffer));
  return ParseEvents(&lines, events);
}

void TakeLower(Bound* lowest, const Bound& bound) {
  if (bound.bytes < lowest->bytes) *lowest = bound;
}

void TakeIn(Limit* limit, const Bound& bound) {
  // Of equal ones the first stays: the deeper level, which has fewer to share with.
  TakeLower(&limit->lowest, bound);
  if (limit->nearest.bytes == kUnlimited || bound.headroom() < limit->nearest.headroom()) {
    limit->nearest = bound;
  }
}

}  // namespace

std::string_view MemoryController::directory(int level) const {
  if (level < 0 || level >= levels_) return {};
  return {directory_.c_str(), lengths_[level]};
}

__attribute__((noinline)) int MemoryController::Open(int level, const char* file, int flags) const {
  if (level < 0 || level >= levels_) return -ENOENT;
  base::Path path;
  path.Add(directory(level)).Add('/').Add(file);
  if (path.truncated()) return -ENAMETOOLONG;
  return base::Open(path.c_str(), flags | O_NOCTTY);
}

int MemoryController::ReadUsage(int level, uint64_t* bytes) {
  if (level == kNodeLevel) {
    NodeMemory node;
    const int error = ReadNodeMemory(roots_.meminfo, &node);
    if (error != 0) return error;
    *bytes = node.in_use();
    return *bytes == kUnknown ? -EINVAL : 0;
  }
  if (level == kHiddenLevel) level = 0;
  if (level < 0 || level >= levels_) return -ENOENT;
  KeptFile& kept = usage_[level];
  if (kept.Read(bytes) == 0) return 0;
  const int fd = Open(level, NamesOf(version_).usage, O_RDONLY);
  if (fd < 0) return fd;
  const int error = ReadBytes(fd, bytes);
  if (error == 0) kept.Keep(fd);
  base::Close(fd);
  return error;
}

// A limit above what the machine has limits nothing. One that equals it does: lxcfs shows a
// container its own limit as MemTotal.
bool MemoryController::Binds(uint64_t bytes) const {
  if (bytes <= node_total_ || bytes == kUnlimited) return bytes != kUnlimited;
  // Memory may have been plugged in since.
  NodeMemory node;
  return ReadNodeMemory(roots_.meminfo, &node) == 0 && bytes <= node.total;
}

Limit MemoryController::ReadLimit() {
  Limit limit;
  uint64_t own_usage = kUnknown;
  ReadUsage(0, &own_usage);
  for (int level = 0; level < levels_; ++level) {
    Bound bound = {.bytes = kUnlimited, .usage = own_usage, .level = level};
    const int error = ReadLimitFile(*this, level, NamesOf(version_).limit, &bound.bytes);
    // The root of v2 has none.
    if (error != 0 && error != -ENOENT && limit.error == 0) limit.error = error;
    if (error == 0 && Binds(bound.bytes)) {
      if (level > 0) ReadUsage(level, &bound.usage);
      TakeIn(&limit, bound);
    }
    Bound high = {.bytes = kUnlimited, .usage = own_usage, .level = level};
    if (version_ == Version::kV2 && ReadLimitFile(*this, level, "memory.high", &high.bytes) == 0 &&
        Binds(high.bytes)) {
      if (level > 0) ReadUsage(level, &high.usage);
      TakeLower(&limit.high, high);
    }
  }
  MemoryStat stat;
  if (version_ == Version::kV1 &&
      ReadStatFrom(Open(0, "memory.stat", O_RDONLY), version_, &stat) == 0 &&
      stat.hierarchical_limit < limit.lowest.bytes && Binds(stat.hierarchical_limit)) {
    TakeIn(&limit, {.bytes = stat.hierarchical_limit, .usage = own_usage, .level = kHiddenLevel});
  }
  NodeMemory node;
  if (limit.lowest.bytes != kUnlimited) {
    limit.source = LimitSource::kCgroup;
  } else if (ReadNodeMemory(roots_.meminfo, &node) == 0) {
    limit.source = LimitSource::kNode;
    limit.lowest = {.bytes = node.total, .usage = node.in_use(), .level = kNodeLevel};
    limit.nearest = limit.lowest;
  }
  return limit;
}

int MemoryController::ReadStat(int level, MemoryStat* stat) const {
  if (level == kNodeLevel) {
    NodeMemory node;
    const int error = ReadNodeMemory(roots_.meminfo, &node);
    *stat = node.stat;
    return error;
  }
  if (level == kHiddenLevel) level = 0;
  const int error = ReadStatFrom(Open(level, "memory.stat", O_RDONLY), version_, stat);
  if (error == 0 && version_ == Version::kV1) {
    const int fd = Open(level, "memory.kmem.usage_in_bytes", O_RDONLY);
    if (fd >= 0) {
      if (ReadBytes(fd, &stat->kernel) != 0) stat->kernel = kUnknown;
      base::Close(fd);
    }
  }
  return error;
}

int MemoryController::ReadEvents(int level, MemoryEvents* events) const {
  if (level == kHiddenLevel) level = 0;
  const int error = ReadEventsFrom(Open(level, NamesOf(version_).events, O_RDONLY), events);
  if (error == 0 && version_ == Version::kV1) {
    const int fd = Open(level, "memory.failcnt", O_RDONLY);
    if (fd >= 0) {
      if (ReadBytes(fd, &events->max) != 0) events->max = kUnknown;
      base::Close(fd);
    }
  }
  return error;
}

}  // namespace heapflare::cgroup
