// The control file: how another process of the same owner asks a recorder for something.
//
// It lies beside the box (X.ctl for X.box), is made by the recorder with mode 0600 and never mapped
// by it: it reads and writes it by path, and believes nothing in it. To ask, a client
//   1. takes an exclusive flock(2) on the control file, so that requests do not mix,
//   2. writes a ControlRequest at kRequestOffset with a `sequence` higher than the answer's, in one
//      pwrite,
//   3. adds 1 to Header.doorbell in the (mapped) box and wakes the futex there; without that, the
//      recorder looks once a second anyway,
//   4. reads the ControlAnswer at kAnswerOffset until its `sequence` is that of the request.
// A recorder answers every sequence number once.
#pragma once

#include <cstdint>

namespace heapflare::box {

inline constexpr uint64_t kControlMagic = 0x0a314c544352414c;  // "LARCTL1\n" in the file

enum class ControlKind : uint32_t {
  kNone = 0,
  kDump = 1,         // write a profile (reason "request"); the answer's text is its path
  kSetInterval = 2,  // argument: bytes, 0 = off, 1 = every allocation
  // One pass of the search for unreachable blocks. Argument: ReachArgument. Answered when the pass
  // is over, which takes seconds; what it found is in Header.reach and the samples. The answer's
  // error is 0 also for a pass that failed: see Reach.error; its text says why.
  kReach = 3,
};

// How many passes in a row it takes to call a block unreachable (1 to 255; 0: kReachPasses), and
// what is forbidden to the pass, which else takes the best mode that works.
enum ReachFlags : uint32_t {
  kReachWithoutStopping = 1,  // no ptrace: threads are not stopped, registers not seen
  kReachWithoutFork = 2,      // no copy: memory is read as it is
};
inline constexpr uint32_t kReachPasses = 3;
constexpr uint64_t ReachArgument(uint32_t passes, uint32_t flags) {
  return uint64_t{flags} << 32 | passes;
}

struct ControlRequest {
  uint64_t magic;
  uint64_t sequence;
  uint32_t kind;  // ControlKind
  uint32_t unused;
  uint64_t argument;
};

struct ControlAnswer {
  uint64_t sequence;
  int32_t error;  // 0 or an errno value
  uint32_t text_bytes;
  char text[4096];
};

inline constexpr uint64_t kRequestOffset = 0;
inline constexpr uint64_t kAnswerOffset = 4096;

}  // namespace heapflare::box
