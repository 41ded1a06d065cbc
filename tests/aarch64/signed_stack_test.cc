// Return addresses that the processor signed (pointer authentication) are recorded without signatures.
#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <cstdint>

#include "gtest/gtest.h"
#include "tests/unit/row_walk_port.h"

namespace {

constexpr int kDepth = 10;
constexpr uint64_t kAddressBits = (uint64_t{1} << 48) - 1;

struct Stack {
  uint64_t frames[64];
  int depth;
  // As they lie in the frames of Descend.
  uint64_t saved[kDepth];
};

// Its frame record, {fp, lr}, is at the frame pointer.
[[gnu::noinline]] void Descend(int left, Stack* stack) {
  stack->saved[left] = static_cast<const uint64_t*>(__builtin_frame_address(0))[1];
  if (left == 0) {
    stack_low = reinterpret_cast<uint64_t>(__builtin_frame_address(0)) - 4096;
    stack->depth = unw_backtrace(reinterpret_cast<void**>(stack->frames), 64);
  } else {
    Descend(left - 1, stack);
  }
  asm volatile("");
}

TEST(SignedStack, IsWalkedToTheEndAndGivesPlainAddresses) {
  // The first time rows are worked out, then they are used.
  for (int time = 0; time < 3; ++time) {
    Stack stack = {};
    Descend(kDepth - 1, &stack);
    ASSERT_GT(stack.depth, kDepth + 3) << time;
    int is_signed = 0;
    for (int i = 0; i < kDepth; ++i) {
      is_signed += (stack.saved[i] & ~kAddressBits) != 0;
      EXPECT_EQ(stack.frames[i + 1], stack.saved[i] & kAddressBits) << i;
    }
    // Otherwise nothing was tested: this processor does not sign, or one signature in 128 is zero.
    EXPECT_GT(is_signed, kDepth / 2);
    for (int i = 0; i < stack.depth; ++i) EXPECT_EQ(stack.frames[i] & ~kAddressBits, 0) << i;
  }
}

}  // namespace
