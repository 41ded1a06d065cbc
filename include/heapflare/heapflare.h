/* The C API of heapflare, a heap profiler for C++ services.
 *
 * Needs no library: the functions are weak references, and calls go through the macros below, which
 * do nothing unless heapflare is preloaded or linked. So a program calls them freely and ships
 * without heapflare.
 *
 * All functions may be called from any thread, at any time, from before main until after it; none
 * throws. They are not async-signal-safe, except heapflare_active and heapflare_sample_interval.
 */
#ifndef HEAPFLARE_HEAPFLARE_H_
#define HEAPFLARE_HEAPFLARE_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HEAPFLARE_API __attribute__((weak, visibility("default")))
#else
#error "heapflare needs GCC or Clang"
#endif

/* 1 if allocations are being recorded, else 0. */
HEAPFLARE_API int heapflare_active(void);

/* Writes a profile, gzip-compressed profile.proto, of what is live now. `path` NULL: a file in
 * HEAPFLARE_DIR, named PROGRAM.PID.START.NNNN.api.pb.gz; else `path` itself, which is replaced if
 * it exists. The file appears under its name only when it is complete. Waits for the dump, at most
 * 10 s. Returns 0 or an errno value: ENOSYS without heapflare, EAGAIN when nothing is being
 * recorded, ETIMEDOUT. */
HEAPFLARE_API int heapflare_dump(const char* path);

/* Mean bytes between two samples; 1 = every allocation is recorded, 0 = off. */
HEAPFLARE_API size_t heapflare_sample_interval(void);

/* Changes it, at each thread's next sample. What was sampled before keeps its weight, so estimates
 * stay right. Returns 0 or an errno value: ENOSYS without heapflare, EINVAL above 1 TiB. */
HEAPFLARE_API int heapflare_set_sample_interval(size_t bytes);

/* Leak checks (HEAPFLARE_LEAK_CHECK=1, `heapflare run --leak-check`); otherwise these do nothing. */

/* Looks for leaks now, and tells of them as at exit; the check at exit tells of them again. Stops all
 * threads for as long as it takes. Returns 1 if there are any that no suppression covers, 0 if not, -1
 * if nothing could be looked for. */
HEAPFLARE_API int heapflare_leak_check_now(void);

/* The block that starts at `block` is no leak, nor is what it leads to. Returns 0 or an errno value:
 * ENOENT if there is no such block, EAGAIN without a leak check. */
HEAPFLARE_API int heapflare_ignore(const void* block);

/* The same for all blocks that this thread allocates between the two. They nest. */
HEAPFLARE_API void heapflare_leak_check_disable(void);
HEAPFLARE_API void heapflare_leak_check_enable(void);

#ifndef HEAPFLARE_IMPLEMENTATION
/* ENOSYS has this value on every Linux that heapflare runs on. */
#define HEAPFLARE_ABSENT 38
#define heapflare_active() (heapflare_active ? heapflare_active() : 0)
#define heapflare_dump(path) (heapflare_dump ? heapflare_dump(path) : HEAPFLARE_ABSENT)
#define heapflare_sample_interval() (heapflare_sample_interval ? heapflare_sample_interval() : 0)
#define heapflare_set_sample_interval(bytes) \
  (heapflare_set_sample_interval ? heapflare_set_sample_interval(bytes) : HEAPFLARE_ABSENT)
#define heapflare_leak_check_now() (heapflare_leak_check_now ? heapflare_leak_check_now() : -1)
#define heapflare_ignore(block) (heapflare_ignore ? heapflare_ignore(block) : HEAPFLARE_ABSENT)
#define heapflare_leak_check_disable() \
  (heapflare_leak_check_disable ? heapflare_leak_check_disable() : (void)0)
#define heapflare_leak_check_enable() \
  (heapflare_leak_check_enable ? heapflare_leak_check_enable() : (void)0)
#endif

#ifdef __cplusplus
}

#ifndef HEAPFLARE_IMPLEMENTATION
namespace heapflare {

/* What this thread allocates while one of these lives is no leak. */
class LeakCheckDisabler {
 public:
  LeakCheckDisabler() { heapflare_leak_check_disable(); }
  ~LeakCheckDisabler() { heapflare_leak_check_enable(); }

 private:
  LeakCheckDisabler(const LeakCheckDisabler&);
  LeakCheckDisabler& operator=(const LeakCheckDisabler&);
};

} /* namespace heapflare */
#endif
#endif

#endif /* HEAPFLARE_HEAPFLARE_H_ */
