// Additions and exchanges of words that threads share, without the processor's lock while there is
// only one thread.
//
// A locked instruction costs 4 to 6 ns, and the recording of one allocation and its free needs
// fourteen. Where libc says that the process has one thread (__libc_single_threaded, glibc 2.32; its
// malloc goes by the same), these are the same instructions without the lock: still one instruction
// each, so a signal handler finds an operation done or not begun. The recorder's own thread, of which
// libc does not know, only reads such words.
//
// Elsewhere, and on processors without such instructions, they are relaxed atomics; a swap that
// succeeds acquires and releases. Async-signal-safe.
#pragma once

#include <cstdint>

namespace heapflare::base {

#pragma GCC visibility push(hidden)

// Libc's variable, once somebody has found it; until then it says no.
extern constinit const char* one_thread;

#pragma GCC visibility pop

inline bool OneThread() { return __atomic_load_n(one_thread, __ATOMIC_RELAXED) != 0; }

template <typename T>
void AddShared(T& word, T by) {
  static_assert(sizeof(T) == sizeof(uint64_t));
#if defined(__x86_64__)
  if (OneThread()) {
    asm volatile("addq %1, %0" : "+m"(word) : "er"(by) : "cc");
    return;
  }
#endif
  __atomic_fetch_add(&word, by, __ATOMIC_RELAXED);
}

// Puts `desired` in the place of *expected. False: it was something else, which is now in *expected.
template <typename T>
bool SwapShared(T& word, T* expected, T desired) {
#if defined(__x86_64__)
  if (OneThread()) {
    bool swapped = false;
    asm volatile("cmpxchg %3, %1"
                 : "=@cce"(swapped), "+m"(word), "+a"(*expected)
                 : "r"(desired)
                 : "memory");
    return swapped;
  }
#endif
  return __atomic_compare_exchange_n(&word, expected, desired, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE);
}

}  // namespace heapflare::base
