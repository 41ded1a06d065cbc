// The recorder's own thread: made and run without libc.
//
// pthread_create would change what the service is: libc would count our thread (a process whose
// main called pthread_exit would outlive its own last thread) and give up its single-threaded
// shortcuts, which make malloc of a single-threaded service about twice as fast. So the thread is a
// raw clone. It pays for that with rules: it has no thread-local storage (its thread pointer leads
// to a page of its own, so that a slip cannot touch another thread's), calls nothing in libc but
// memcpy and its like, and must follow the service's change of user by itself (credentials.h),
// since libc's setuid does not know it. What remains visible: unshare(CLONE_NEWUSER) fails in a
// profiled process, as in every one with threads.
//
// It has a table of file descriptors of its own, empty at the start: what it opens cannot take a
// number that the service expects to get next, the service cannot close it, and it keeps nothing of
// the service's open.
//
// It blocks all signals, has a small stack with a guard page, and the name "heapflare".
#pragma once

#include <cstdint>

namespace heapflare::recorder {

// Starts `run` on the thread. False if the kernel refuses; the service goes on without. To be
// called again in a forked child, which has no such thread. Never in a hook.
bool StartThread(void (*run)());

// The thread's id, 0 while there is none.
int ThreadOfRecorder();

// Its stack and what belongs to it, which is not the service's memory. 0 bytes while there is none.
void MemoryOfThread(uint64_t* start, uint64_t* bytes);

// In a forked child, before it starts one of its own.
void ForgetThread();

}  // namespace heapflare::recorder
