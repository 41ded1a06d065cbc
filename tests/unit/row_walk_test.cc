// The walk by rows against libunwind, at every instruction of real code.
//
// The processor's trap flag stops this program after each of its instructions; there both walk, from
// the same registers. libunwind steps from scratch, so it is the oracle. Where the rows say that they
// cannot express a frame, the recorder uses libunwind anyway: that is counted, and must be rare.
#define UNW_LOCAL_ONLY
#include "lib/recorder/row_walk.h"

#include <dlfcn.h>
#include <libunwind.h>
#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "lib/box/format.h"
#include "lib/recorder/walk_memo.h"
#include "tests/unit/row_walk_port.h"

namespace {

constexpr uint32_t kCapacity = 64;

}  // namespace

namespace heapflare::recorder {
namespace {

#if defined(__x86_64__)

struct Difference {
  uint64_t pc;
  uint32_t rows_depth;
  uint32_t steps_depth;
  uint32_t first;  // frame that differs
};

// What the handler found; of fixed size, since it may not allocate.
struct Tally {
  uint64_t compared = 0;
  uint64_t beyond_rows = 0;
  uint64_t different = 0;
  uint64_t misremembered = 0;
  Difference examples[8] = {};
};
Tally tally;

// As the recorder's walks do, each takes over what it can from the one before.
WalkMemo memo;

bool SameFromMemory(const FrameRegisters& from, const uint64_t* frames, const Walk& walk) {
  uint64_t remembered[kCapacity];
  Walk again = {};
  return WalkRows(from, stack_low, StackHigh(), remembered, kCapacity, &again, &memo) &&
         again.depth == walk.depth && again.flags == walk.flags && again.hash == walk.hash &&
         std::equal(frames, frames + walk.depth, remembered);
}

uint32_t WalkBySteps(ucontext_t* context, uint64_t* frames) {
  unw_cursor_t cursor;
  if (unw_init_local2(&cursor, context, UNW_INIT_SIGNAL_FRAME) != 0) return 0;
  uint32_t depth = 0;
  frames[depth++] = static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]);
  while (depth < kCapacity && unw_step(&cursor) > 0) {
    unw_word_t pc = 0;
    unw_get_reg(&cursor, UNW_REG_IP, &pc);
    if (pc < 0x4000) break;
    frames[depth++] = pc;
  }
  return depth;
}

void Compare(ucontext_t* context) {
  const greg_t* const registers = context->uc_mcontext.gregs;
  uint64_t by_rows[kCapacity];
  uint64_t by_steps[kCapacity];
  Walk walk = {};
  const FrameRegisters from = {.pc = static_cast<uint64_t>(registers[REG_RIP]),
                               .sp = static_cast<uint64_t>(registers[REG_RSP]),
                               .fp = static_cast<uint64_t>(registers[REG_RBP]),
                               .interrupted = true};
  ++tally.compared;
  if (!WalkRows(from, stack_low, StackHigh(), by_rows, kCapacity, &walk)) {
    ++tally.beyond_rows;
    return;
  }
  if (!SameFromMemory(from, by_rows, walk)) ++tally.misremembered;
  const uint32_t depth = WalkBySteps(context, by_steps);
  const auto [a, b] = std::mismatch(by_rows, by_rows + walk.depth, by_steps, by_steps + depth);
  if (a == by_rows + walk.depth && b == by_steps + depth) return;
  if (tally.different < std::size(tally.examples)) {
    tally.examples[tally.different] = {from.pc, walk.depth, depth,
                                       static_cast<uint32_t>(a - by_rows)};
  }
  ++tally.different;
}

void OnTrap(int /*signal*/, siginfo_t* /*info*/, void* context) {
  Compare(static_cast<ucontext_t*>(context));
}

[[gnu::noinline]] void SetTrapFlag(bool on) {
  if (on) {
    asm volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
  } else {
    asm volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
  }
}

// Steps through `work`, comparing after each instruction.
Tally StepThrough(const std::function<void()>& work) {
  static const size_t kHandlerStack = 256 << 10;
  void* const memory =
      mmap(nullptr, kHandlerStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const stack_t handler_stack = {.ss_sp = memory, .ss_flags = 0, .ss_size = kHandlerStack};
  sigaltstack(&handler_stack, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = OnTrap;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGTRAP, &action, nullptr);
  // Far below: the work runs deeper than this frame.
  stack_low = reinterpret_cast<uint64_t>(__builtin_frame_address(0)) - (1 << 20);
  tally = {};
  work();
  SetTrapFlag(true);
  work();
  SetTrapFlag(false);
  signal(SIGTRAP, SIG_DFL);
  const stack_t none = {.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
  sigaltstack(&none, nullptr);
  munmap(memory, kHandlerStack);
  return tally;
}

std::string Where(uint64_t pc) {
  Dl_info info = {};
  dladdr(reinterpret_cast<void*>(pc), &info);
  return std::string(info.dli_fname == nullptr ? "?" : info.dli_fname) + " " +
         (info.dli_sname == nullptr ? "?" : info.dli_sname) + " +" +
         std::to_string(pc - reinterpret_cast<uint64_t>(info.dli_saddr));
}

void ExpectAgreement(const std::function<void()>& work, uint64_t at_least,
                     const std::string& except = "") {
  const Tally result = StepThrough(work);
  testing::Test::RecordProperty("instructions", std::to_string(result.compared));
  EXPECT_GE(result.compared, at_least) << "the work was not stepped through";
  EXPECT_EQ(result.misremembered, 0);
  EXPECT_LE(result.different, except.empty() ? 0 : 2) << "of " << result.compared;
  for (uint64_t i = 0; i < std::min<uint64_t>(result.different, std::size(result.examples)); ++i) {
    const Difference& one = result.examples[i];
    if (!except.empty() && Where(one.pc).find(except) != std::string::npos) continue;
    ADD_FAILURE() << Where(one.pc) << ": rows found " << one.rows_depth << " frames, libunwind "
                  << one.steps_depth << ", differing from frame " << one.first;
  }
  // Entries of the PLT, whose CFA is an expression, and which never call malloc.
  EXPECT_LE(result.beyond_rows * 20, result.compared) << "frames that no row expresses";
}

TEST(RowWalk, AgreesWithLibunwindInTheStandardLibrary) {
  ExpectAgreement(
      [] {
        std::vector<std::string> words = {"pear", "fig", "apple", "quince", "date"};
        std::sort(words.begin(), words.end(),
                  [](const std::string& a, const std::string& b) { return a > b; });
        std::map<std::string, int> counts;
        for (const std::string& word : words) ++counts[word + " of a length beyond the short ones"];
        char text[128];
        snprintf(text, sizeof(text), "%s %d %.3f", words[0].c_str(), counts.begin()->second, 1.5);
      },
      5'000);
}

TEST(RowWalk, AgreesWithLibunwindInACallbackFromC) {
  ExpectAgreement(
      [] {
        int numbers[40];
        for (int i = 0; i < 40; ++i) numbers[i] = i * 7919 % 101;
        qsort(numbers, 40, sizeof(int), [](const void* a, const void* b) {
          return *static_cast<const int*>(a) - *static_cast<const int*>(b);
        });
      },
      1'000);
}

TEST(RowWalk, AgreesWithLibunwindWhileAnExceptionIsThrown) {
  ExpectAgreement(
      [] {
        try {
          throw std::runtime_error("stepped through");
        } catch (const std::exception& error) {
          asm volatile("" : : "r"(error.what()));
        }
      },
      5'000,
      // Between the two instructions that leave for the handler it is on the handler's stack already,
      // and its unwind information does not say so.
      "_Unwind_RaiseException");
}

// A frame whose size is only known at run time: its CFA hangs on the frame pointer.
[[gnu::noinline]] size_t UseAlloca(size_t bytes) {
  char* const memory = static_cast<char*>(__builtin_alloca(bytes));
  // By itself: calls would lead through the PLT.
  for (size_t i = 0; i < bytes; ++i) const_cast<volatile char*>(memory)[i] = 'x';
  return bytes;
}

// A frame that realigns its stack: its CFA is found through memory.
[[gnu::noinline]] double UseAlignment(double seed) {
  alignas(64) double values[16];
  for (double& value : values) value = seed *= 1.5;
  asm volatile("" : : "r"(values) : "memory");
  return values[7];
}

TEST(RowWalk, AgreesWithLibunwindInFramesOfUnusualShape) {
  ExpectAgreement(
      [] {
        for (size_t bytes = 100; bytes < 300; bytes += 50) UseAlloca(bytes);
        UseAlignment(1.25);
        sigjmp_buf jump;
        if (sigsetjmp(jump, 1) == 0) siglongjmp(jump, 1);
      },
      250);
}

TEST(RowWalk, AgreesWithLibunwindInTheLoader) {
  ExpectAgreement(
      [] {
        void* const handle = dlopen("libm.so.6", RTLD_LAZY);
        if (handle == nullptr) return;
        dlsym(handle, "cos");
        dlclose(handle);
      },
      1'000);
}

TEST(RowWalk, AgreesWithLibunwindInARegularExpression) {
  ExpectAgreement([] { std::regex_match("aab", std::regex("a+b")); }, 5'000);
}

#else

TEST(RowWalk, IsLeftToLibunwindHere) {
  uint64_t frames[1] = {};
  Walk walk = {};
  EXPECT_FALSE(WalkRows({}, 0, 0, frames, 1, &walk));
}

#endif

}  // namespace
}  // namespace heapflare::recorder
