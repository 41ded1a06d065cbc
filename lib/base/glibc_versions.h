// Binds functions whose default version is new in the glibc that heapflare is built with to the
// version that they have had since the architecture's first glibc. A library built on Debian 12
// then loads on glibc 2.28 and later.
//
// Include it in each source file that goes into libheapflare.so and calls one of these; a check of
// the finished library (readelf -V) finds what is missing here. It has no effect on a function that
// is not called.
//
// Two kinds: functions that glibc 2.34 took over from libpthread and libdl (and 2.32 from
// libpthread), where old and new version are the same code; and mathematics of 2.29, where the old
// version also sets errno.
//
// Not here, because no old version exists: stat, fstat, lstat, fstatat (2.33), gettid (2.30),
// close_range (2.34). Make these system calls directly.
//
// Define HEAPFLARE_DEFAULT_SYMBOL_VERSIONS to leave everything as it is, for programs that link
// glibc statically.
#ifndef HEAPFLARE_LIB_BASE_GLIBC_VERSIONS_H_
#define HEAPFLARE_LIB_BASE_GLIBC_VERSIONS_H_

#include <features.h>

#if defined(__GLIBC__) && defined(__PIC__) && !defined(HEAPFLARE_DEFAULT_SYMBOL_VERSIONS)

#define HEAPFLARE_BIND(function, version) \
  __asm__(".symver " #function "," #function "@GLIBC_" version)

// Functions younger than the first glibc of x86_64 (2.2.5), but older than that of aarch64 (2.17).
#if defined(__x86_64__)
#define HEAPFLARE_BIND_OLD(function) HEAPFLARE_BIND(function, "2.2.5")
#define HEAPFLARE_BIND_SINCE(function, version) HEAPFLARE_BIND(function, version)
#elif defined(__aarch64__)
#define HEAPFLARE_BIND_OLD(function) HEAPFLARE_BIND(function, "2.17")
#define HEAPFLARE_BIND_SINCE(function, version) HEAPFLARE_BIND(function, "2.17")
#else
#error "lib/base/glibc_versions.h: add the first glibc version of this architecture"
#endif

HEAPFLARE_BIND_OLD(dladdr);
HEAPFLARE_BIND_OLD(dlclose);
HEAPFLARE_BIND_OLD(dlerror);
HEAPFLARE_BIND_OLD(dlopen);
HEAPFLARE_BIND_OLD(dlsym);
HEAPFLARE_BIND_OLD(dlvsym);
HEAPFLARE_BIND_SINCE(dladdr1, "2.3.3");
HEAPFLARE_BIND_SINCE(dlinfo, "2.3.3");

HEAPFLARE_BIND_OLD(pthread_attr_getstack);
HEAPFLARE_BIND_OLD(pthread_attr_setguardsize);
HEAPFLARE_BIND_OLD(pthread_attr_setstack);
HEAPFLARE_BIND_OLD(pthread_attr_setstacksize);
HEAPFLARE_BIND_OLD(pthread_create);
HEAPFLARE_BIND_OLD(pthread_detach);
HEAPFLARE_BIND_OLD(pthread_getattr_np);
HEAPFLARE_BIND_OLD(pthread_getspecific);
HEAPFLARE_BIND_OLD(pthread_join);
HEAPFLARE_BIND_OLD(pthread_key_create);
HEAPFLARE_BIND_OLD(pthread_key_delete);
HEAPFLARE_BIND_OLD(pthread_kill);
HEAPFLARE_BIND_OLD(pthread_mutex_trylock);
HEAPFLARE_BIND_OLD(pthread_once);
HEAPFLARE_BIND_OLD(pthread_setspecific);
HEAPFLARE_BIND_OLD(pthread_sigmask);
HEAPFLARE_BIND_SINCE(pthread_getname_np, "2.12");
HEAPFLARE_BIND_SINCE(pthread_setname_np, "2.12");

HEAPFLARE_BIND_OLD(shm_open);
HEAPFLARE_BIND_OLD(shm_unlink);

HEAPFLARE_BIND_OLD(exp);
HEAPFLARE_BIND_OLD(exp2);
HEAPFLARE_BIND_OLD(log);
HEAPFLARE_BIND_OLD(log2);
HEAPFLARE_BIND_OLD(pow);

#undef HEAPFLARE_BIND_SINCE
#undef HEAPFLARE_BIND_OLD
#undef HEAPFLARE_BIND

#endif

#endif  // HEAPFLARE_LIB_BASE_GLIBC_VERSIONS_H_
