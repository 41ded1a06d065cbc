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

// From one and the same place, whatever the compiler makes of loops.
void WalkTwice(WalkMemo* first, WalkMemo* second, uint32_t capacity, Walked (&both)[2]) {
  WalkMemo* const memos[2] = {first, second};
  for (int i = 0; i < 2; ++i) {
    asm volatile("" : "+r"(i));
    both[i] = WalkFromHere(memos[i], capacity);
  }
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
        WalkTwice(nullptr, memo, capacity, both);
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
    asm volatile("" : "+r"(i));  // one place of the call, as in WalkTwice
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

// A stack of our own making, of frames of four words: the upper two are the saved frame pointer and
// the return address.
class MadeStack {
 public:
  static constexpr uint64_t kFrames = 12;
  static constexpr uint64_t kFrameBytes = 32;

  MadeStack() {
    for (uint64_t i = 0; i <= kFrames; ++i) {
      // By its frame pointer, from where the callee's frame ends, every other one; the last ends it.
      const uint64_t from_sp = i % 2;
      const uint64_t is_last = i == kFrames ? 1 : 0;
      const uint64_t fp_at = static_cast<uint64_t>(-16) & 0x7fff;
      heapflare_row_store(Pc(i) - 1, heapflare_unwind_generation,
                          6 | is_last << 3 | from_sp << 4 | kFrameBytes << 5 | fp_at << 34);
      if (i == 0) continue;
      ReturnAddress(i) = Pc(i);
      SavedFp(i) = Sp(i);
    }
  }
  uint64_t& ReturnAddress(uint64_t frame) { return words_[frame * 4 + 3]; }
  uint64_t& SavedFp(uint64_t frame) { return words_[frame * 4 + 2]; }
  static uint64_t Pc(uint64_t frame) { return 0x10'0000 + frame * 64; }
  uint64_t Sp(uint64_t frame) const { return reinterpret_cast<uint64_t>(words_ + frame * 4 + 4); }

  Walked WalkIt(WalkMemo* memo) const {
    Walked result = {.walk = {}, .frames = std::vector<uint64_t>(64)};
    const FrameRegisters from = {.pc = Pc(0), .sp = Sp(0), .fp = Sp(0), .interrupted = false};
    EXPECT_TRUE(WalkRows(from, Sp(0) - 16, reinterpret_cast<uint64_t>(std::end(words_)),
                         result.frames.data(), 64, &result.walk, memo));
    result.frames.resize(result.walk.depth);
    return result;
  }

 private:
  uint64_t words_[(kFrames + 4) * 4] = {};
};

TEST(WalkMemo, NoticesEachWordThatChanged) {
  MadeStack stack;
  ASSERT_EQ(stack.WalkIt(nullptr).frames.size(), MadeStack::kFrames + 1);
  for (uint64_t frame = 1; frame < MadeStack::kFrames; ++frame) {
    WalkMemo memo = {};
    const Walked before = stack.WalkIt(&memo);
    EXPECT_EQ(stack.WalkIt(&memo), before);
    uint64_t* const words[] = {&stack.ReturnAddress(frame), &stack.SavedFp(frame)};
    for (uint64_t* const word : words) {
      const uint64_t old = *word;
      // Another function; or one frame further out.
      *word = word == words[0] ? MadeStack::Pc(frame + 1) : old + MadeStack::kFrameBytes;
      const Walked after = stack.WalkIt(nullptr);
      EXPECT_EQ(stack.WalkIt(&memo), after) << frame;
      if (word == words[0] || frame % 2 == 0) {
        EXPECT_FALSE(after == before) << frame;
      }
      *word = old;
      EXPECT_EQ(stack.WalkIt(&memo), before) << frame;
    }
  }
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
