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

#ifndef HEAPFLARE_IMPLEMENTATION
/* ENOSYS has this value on every Linux that heapflare runs on. */
#define HEAPFLARE_ABSENT 38
#define heapflare_active() (heapflare_active ? heapflare_active() : 0)
#define heapflare_dump(path) (heapflare_dump ? heapflare_dump(path) : HEAPFLARE_ABSENT)
#define heapflare_sample_interval() (heapflare_sample_interval ? heapflare_sample_interval() : 0)
#define heapflare_set_sample_interval(bytes) \
  (heapflare_set_sample_interval ? heapflare_set_sample_interval(bytes) : HEAPFLARE_ABSENT)
#endif

#ifdef __cplusplus
}
#endif

#endif /* HEAPFLARE_HEAPFLARE_H_ */
