// References to blocks that only the kernel holds: what a service gave it to get back later.
//
//   epoll      epoll_data.ptr: the usual place of a connection's object, often the only one while
//              nothing happens on it. /proc/PID/fdinfo/FD lists it.
//   timers     sigev_value.sival_ptr of timer_create: /proc/PID/timers
//   calls      the arguments of system calls that threads wait in: a buffer that read() fills.
//              /proc/PID/task/TID/syscall; by ptrace they are seen with the other registers
//   altstack   sigaltstack: of the calling thread only, the kernel tells nobody else's
// What lies in pipes and sockets, io_uring's user_data and asynchronous I/O's are not seen: no
// interface shows them without taking them out, or at all.
//
// Listing an epoll instance holds its lock, so nobody gets events from it meanwhile: 1.1 µs an
// entry. So processes with more than kMostDescriptors are not asked.
//
// Raw system calls, no allocation. Files of /proc, whose text is not trusted.
#pragma once

#include <cstdint>
#include <string_view>

namespace heapflare::reach {

inline constexpr uint32_t kMostDescriptors = 4096;

// Called for each word that may be a reference.
using VisitWord = void (*)(void* context, uint64_t word);

// Of the descriptor table of the process's threads other than `spared_thread`, which has one of its
// own. `process` may be another one than the caller's. False if there was no looking: no /proc,
// not allowed, or too many descriptors.
bool VisitEpollData(int process, int spared_thread, VisitWord visit, void* context);
bool VisitTimers(int process, VisitWord visit, void* context);
// Of all threads of the calling process, which always may.
bool VisitSystemCalls(int process, VisitWord visit, void* context);
// Of the calling thread; 0: none.
uint64_t AlternateStack();

// One line of these files. False: it holds no such word.
bool ParseEpollLine(std::string_view line, uint64_t* data);
bool ParseTimersLine(std::string_view line, uint64_t* value);
// The words of a line of syscall, up to 9; how many.
uint32_t ParseSystemCallLine(std::string_view line, uint64_t* words);
inline constexpr uint32_t kMostSystemCallWords = 9;

}  // namespace heapflare::reach
