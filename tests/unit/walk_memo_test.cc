// A walk with a memo finds what a walk without one finds, and works out less.
#include "lib/recorder/walk_memo.h"

#include <alloca.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "lib/box/format.h"
#include "lib/recorder/row_walk.h"
#include "lib/recorder/unwind_port.h"
#include "lib/recorder/unwind_rows.h"
#include "tests/unit/row_walk_port.h"

namespace heapflare::recorder {
namespace {

#if defined(__x86_64__)

struct Walked {
  Walk walk;
  std::vector<uint64_t> frames;
  friend bool operator==(const Walked& a, const Walked& b) {
    return a.walk.flags == b.walk.flags && a.walk.hash == b.walk.hash && a.frames == b.frames;
  }
};

// From the caller on, as a hook does.
[[gnu::noinline]] Walked WalkFromHere(WalkMemo* memo, uint32_t capacity) {
  const auto* const frame = static_cast<const uint64_t*>(__builtin_frame_address(0));
  stack_low = reinterpret_cast<uint64_t>(frame);
  const FrameRegisters from = {.pc = frame[1],
                               .sp = reinterpret_cast<uint64_t>(frame + 2),
                               .fp = frame[0],
                               .interrupted = false};
  Walked result = {.walk = {}, .frames = std::vector<uint64_t>(capacity)};
  EXPECT_TRUE(
      WalkRows(from, stack_low, StackHigh(), result.frames.data(), capacity, &result.walk, memo));
  result.frames.resize(result.walk.depth);
  return result;
}

// A random walk through calls of different frames, down and up, comparing on the way.
struct Journey {
  std::mt19937 random{20261125};
  WalkMemo shallow = {};
  WalkMemo usual = {};
  WalkMemo deep = {};
  uint64_t compared = 0;
  uint64_t different = 0;
  uint64_t truncated = 0;
  int goal = 0;
  int calls_left = 0;

  void Compare() {
    const std::pair<WalkMemo*, uint32_t> cases[] = {{&shallow, 12}, {&usual, 64}, {&deep, 300}};
    for (const auto& [memo, capacity] : cases) {
      if (random() % 4 == 0) continue;
      const Walked expected = WalkFromHere(nullptr, capacity);
      const Walked found = WalkFromHere(memo, capacity);
      ++compared;
      // The two calls are at two places.
      std::vector<uint64_t> outer(found.frames.begin() + 1, found.frames.end());
      if (!std::equal(outer.begin(), outer.end(), expected.frames.begin() + 1,
                      expected.frames.end()) ||
          found.walk.flags != expected.walk.flags) {
        ++different;
      }
      // The hash is that of a walk from the same place without a memory.
      for (int i = 0; i < 2; ++i) {
        Walked both[2];
        for (Walked& one : both) one = WalkFromHere(&one == both ? nullptr : memo, capacity);
        if (!(both[0] == both[1])) ++different;
      }
      truncated += (found.walk.flags & box::kStackTruncated) != 0;
    }
  }
  void Descend(int depth);
};

[[gnu::noinline]] void Plain(Journey* journey, int depth) {
  journey->Descend(depth);
  asm volatile("");
}
[[gnu::noinline]] void Padded(Journey* journey, int depth) {
  char room[300];
  asm volatile("" : : "r"(room) : "memory");
  journey->Descend(depth);
  asm volatile("");
}
[[gnu::noinline]] void OfRandomSize(Journey* journey, int depth) {
  void* const room = alloca(16 + journey->random() % 500);
  asm volatile("" : : "r"(room) : "memory");
  journey->Descend(depth);
  asm volatile("");
}
// Its caller is found through memory, which a memo does not keep.
[[gnu::noinline]] void Realigned(Journey* journey, int depth) {
  alignas(64) char room[64];
  asm volatile("" : : "r"(room) : "memory");
  journey->Descend(depth);
  asm volatile("");
}
[[gnu::noinline]] void UsesFramePointer(Journey* journey, int depth) {
  asm volatile("" : : : "rbx", "r12", "r13");
  std::vector<int> numbers(8, depth);
  journey->Descend(numbers[3]);
  asm volatile("");
}

void Journey::Descend(int depth) {
  if (depth <= 0) return;
  // At least one call while it is on its way down, at most `calls_left` in all.
  for (uint32_t i = random() % 3 + (depth > goal ? 1 : 0); i-- > 0 && calls_left > 0;) {
    --calls_left;
    Compare();
    switch (random() % 16) {
      case 0:
        Realigned(this, depth - 1);
        break;
      case 1:
      case 2:
      case 3:
        OfRandomSize(this, depth - 1);
        break;
      case 4:
      case 5:
      case 6:
        Padded(this, depth - 1);
        break;
      case 7:
      case 8:
      case 9:
        UsesFramePointer(this, depth - 1);
        break;
      default:
        Plain(this, depth - 1);
    }
    Compare();
  }
}

TEST(WalkMemo, ChangesNothingOfWhatAWalkFinds) {
  Journey journey;
  for (int depth : {5, 20, 40, 61, 70, 90, 150}) {
    for (int i = 0; i < 20; ++i) {
      journey.calls_left = 200;
      journey.goal = 5;
      journey.Descend(depth);
    }
  }
  EXPECT_EQ(journey.different, 0) << "of " << journey.compared;
  EXPECT_GT(journey.compared, 10'000);
  EXPECT_GT(journey.truncated, 1'000);
}

void ForgetRows() { memset(heapflare_rows, 0, sizeof(heapflare_rows)); }
int RowsInUse() {
  int count = 0;
  for (const auto& set : heapflare_rows) {
    for (const heapflare_row& row : set) count += row.step != 0;
  }
  return count;
}

TEST(WalkMemo, NeedsNoRowForAStackThatItKnows) {
  WalkMemo memo = {};
  Walked walked[2];
  int rows[2];
  for (int i = 0; i < 2; ++i) {
    ForgetRows();
    walked[i] = WalkFromHere(&memo, 64);
    rows[i] = RowsInUse();
  }
  EXPECT_EQ(walked[0], walked[1]);
  EXPECT_GT(walked[0].frames.size(), 3);
  EXPECT_GT(rows[0], 3);
  // The innermost frame's: this function may keep something else where the frame pointer was.
  EXPECT_LE(rows[1], 1);
}

TEST(WalkMemo, IsWorthNothingAfterModulesChanged) {
  WalkMemo memo = {};
  int rows[2];
  for (int& row : rows) {
    ForgetRows();
    WalkFromHere(&memo, 64);
    row = RowsInUse();
    ++heapflare_unwind_generation;
  }
  EXPECT_EQ(rows[1], rows[0]);
}

#endif

}  // namespace
}  // namespace heapflare::recorder
