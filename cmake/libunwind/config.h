/* What libunwind's configure script would find on Linux, for the part of libunwind that heapflare
   builds.

   Left out on purpose: CONFIG_BLOCK_SIGNALS (two system calls per frame), CONSERVATIVE_CHECKS (a
   pipe, mincore and write per frame; heapflare_unwind_readable replaces them), CONFIG_DEBUG_FRAME
   (opens files, allocates), CONFIG_WEAK_BACKTRACE (would interpose libc's backtrace),
   HAVE___CACHE_PER_THREAD (26 KiB of static TLS in every thread, more than a small stack can hold),
   HAVE_LZMA and HAVE_ZLIB (symbol tables, which are read elsewhere). */
#ifndef HEAPFLARE_CMAKE_LIBUNWIND_CONFIG_H_
#define HEAPFLARE_CMAKE_LIBUNWIND_CONFIG_H_

#define HAVE_ELF_H 1
#define HAVE_ENDIAN_H 1
#define HAVE_LINK_H 1
#define HAVE_SYS_SYSCALL_H 1
#define HAVE_DL_ITERATE_PHDR 1
#define HAVE_STRUCT_DL_PHDR_INFO_DLPI_SUBS 1
#define HAVE__BUILTIN_UNREACHABLE 1
#define HAVE__BUILTIN___CLEAR_CACHE 1
#define PACKAGE_STRING "libunwind 1.6.2"
#define PACKAGE_BUGREPORT ""

/* Force-included, also into assembly: names for the few symbols that libunwind's headers do not
   prefix. With the prefix that HeapflareDependencies.cmake puts into libunwind-common.h, none of
   ours can clash with a libunwind that a statically linked program brings along. */
#define _Ux86_64_getcontext heapflare_Ux86_64_getcontext
#define _Ux86_64_getcontext_trace heapflare_Ux86_64_getcontext_trace
#define _Uaarch64_getcontext_trace heapflare_Uaarch64_getcontext_trace

#endif /* HEAPFLARE_CMAKE_LIBUNWIND_CONFIG_H_ */
