#include "lib/recorder/walk_memo_pool.h"

#include <sys/mman.h>

#include <atomic>

#include "lib/base/syscall.h"
#include "lib/recorder/thread_state.h"

namespace heapflare::recorder {
namespace {

constexpr uint32_t kMemos = 64;
constexpr size_t kPoolBytes = kMemos * sizeof(WalkMemo);

constinit std::atomic<WalkMemo*> pool = nullptr;

WalkMemo* Pool() {
  WalkMemo* memos = pool.load(std::memory_order_acquire);
  if (memos != nullptr) return memos;
  void* const memory = base::Map(nullptr, kPoolBytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  if (memory == nullptr) return nullptr;
  auto* const mine = static_cast<WalkMemo*>(memory);
  if (pool.compare_exchange_strong(memos, mine, std::memory_order_acq_rel,
                                   std::memory_order_acquire)) {
    return mine;
  }
  base::Unmap(memory, kPoolBytes);
  return memos;
}

// A thread that has ended leaves its memo to the next one at its address, where libc likes to put
// it.
WalkMemo* Claim() {
  WalkMemo* const memos = Pool();
  if (memos == nullptr) return nullptr;
  const auto self = reinterpret_cast<uint64_t>(__builtin_thread_pointer());
  const auto home = static_cast<uint32_t>((self >> 6) * 0x9e3779b97f4a7c15 >> 58);
  static_assert(kMemos == 1 << 6);
  for (uint32_t i = 0; i < kMemos; ++i) {
    WalkMemo& memo = memos[(home + i) % kMemos];
    uint64_t owner = 0;
    if (__atomic_compare_exchange_n(&memo.owner, &owner, self, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED) ||
        owner == self) {
      return &memo;
    }
  }
  return nullptr;
}

}  // namespace

void MemoryOfMemos(uint64_t* start, uint64_t* bytes) {
  const WalkMemo* const memos = pool.load(std::memory_order_acquire);
  *start = reinterpret_cast<uint64_t>(memos);
  *bytes = memos == nullptr ? 0 : kPoolBytes;
}

WalkMemo* MemoOfThisThread() {
  ThreadState& state = thread_state;
  if (!state.memo_asked) {
    state.memo = Claim();
    state.memo_asked = true;
  }
  return state.memo;
}

}  // namespace heapflare::recorder
