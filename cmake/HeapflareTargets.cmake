# How our own code is compiled: two worlds, see lib/README.md.

add_library(heapflare_common INTERFACE)
target_include_directories(heapflare_common INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include)
target_compile_options(heapflare_common INTERFACE -Wall -Wextra -Werror -Wimplicit-fallthrough)

# Outside the profiled process: ordinary C++, with the sanitizers that are asked for.
add_library(heapflare_outside INTERFACE)
target_link_libraries(heapflare_outside INTERFACE heapflare_common)
if(HEAPFLARE_SANITIZE)
  # -O1 even in a debug build, as the sanitizers' authors advise: unoptimised the tests take minutes. What gcc 12 then
  # takes for uninitialised, inside std::function, is not.
  target_compile_options(heapflare_outside INTERFACE
    -fsanitize=${HEAPFLARE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer
    $<$<CONFIG:Debug>:-O1> $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(heapflare_outside INTERFACE -fsanitize=${HEAPFLARE_SANITIZE})
endif()

# Inside: no exceptions, no RTTI, nothing that allocates or needs libstdc++.so, everything hidden. Always optimised,
# since a debug build of the hooks would be a different program. `-fno-builtin`: the compiler must not take our
# malloc for libc's. `-fno-tree-slp-vectorize`: it keeps pairs of registers in one vector, which makes the walk slower.
add_library(heapflare_inside INTERFACE)
target_link_libraries(heapflare_inside INTERFACE heapflare_common)
target_compile_options(heapflare_inside INTERFACE
  -O2 -g -fPIC -fvisibility=hidden -fvisibility-inlines-hidden -fno-exceptions -fno-rtti
  -fasynchronous-unwind-tables -fno-threadsafe-statics -ftls-model=initial-exec -fno-builtin-malloc
  -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free -fno-stack-protector
  -fno-semantic-interposition -fno-tree-slp-vectorize)

# The hooked symbols, from the one list of them.
file(READ ${CMAKE_SOURCE_DIR}/lib/recorder/hook_list.h _hook_list)
string(REGEX MATCHALL "\n  X\\([a-z_]+, [A-Za-z0-9_]+" _hooks "${_hook_list}")
list(TRANSFORM _hooks REPLACE "^.*, " "" OUTPUT_VARIABLE HEAPFLARE_HOOKED_SYMBOLS)
list(APPEND HEAPFLARE_HOOKED_SYMBOLS calloc realloc reallocarray posix_memalign malloc_usable_size)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
             ${CMAKE_SOURCE_DIR}/lib/recorder/hook_list.h)
list(TRANSFORM HEAPFLARE_HOOKED_SYMBOLS PREPEND "LINKER:--wrap="
     OUTPUT_VARIABLE HEAPFLARE_WRAP_OPTIONS)
