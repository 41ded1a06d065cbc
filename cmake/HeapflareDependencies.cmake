# The two libraries that are linked into libheapflare.so, built from pinned sources:
#
#   heapflare::unwind   libunwind 1.6.2, local unwinding, patched to run inside malloc. What it
#                       needs from who links it: lib/recorder/unwind_port.h.
#   heapflare::zlib     zlib 1.2.13, deflate and inflate. Built with Z_SOLO, so that it cannot
#                       allocate: set zalloc and zfree.
#
# Both are static, position independent, hidden, without sanitizers and optimised in every build
# type. All their symbols begin with heapflare_; their headers rename what you call, so that code
# reads as usual.
#
# Sources come from the first of
#   1. HEAPFLARE_SOURCE_CACHE, where a tarball can be put by hand,
#   2. the Debian archive that apt uses on this machine (cmake/fetch_debian_source.sh),
#   3. the upstream release.
# Whatever the way, a tarball is used only if its SHA256 is the one below.

include_guard(GLOBAL)
enable_language(C)
enable_language(ASM)

set(HEAPFLARE_SOURCE_CACHE "${CMAKE_SOURCE_DIR}/build/_sources"
    CACHE PATH "Where the source tarballs of dependencies are kept, for all build trees")
mark_as_advanced(HEAPFLARE_SOURCE_CACHE)

set(_heapflare_cmake "${CMAKE_CURRENT_LIST_DIR}")
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH _heapflare_root)

# Sets `result` to a tarball of `name` whose checksum is right, downloading it if need be.
# Error messages begin with a space, because cmake then prints them as one line.
function(_heapflare_tarball result name)
  set(one DEBIAN_SOURCE DEBIAN_FILE DEBIAN_SHA256 UPSTREAM_URL UPSTREAM_SHA256)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "${one}" "")
  cmake_path(GET arg_UPSTREAM_URL FILENAME upstream_file)
  set(cache "${HEAPFLARE_SOURCE_CACHE}")

  # Two build trees may be configured at the same time: the second waits for the first's tarball.
  file(MAKE_DIRECTORY "${cache}")
  file(LOCK "${cache}" DIRECTORY GUARD FUNCTION TIMEOUT 600 RESULT_VARIABLE locked)
  if(NOT locked EQUAL 0)
    message(FATAL_ERROR " heapflare: ${cache}: cannot lock it: ${locked}; "
                        "set HEAPFLARE_SOURCE_CACHE to a directory of yours")
  endif()

  foreach(origin DEBIAN UPSTREAM)
    set(file "${arg_DEBIAN_FILE}")
    if(origin STREQUAL "UPSTREAM")
      set(file "${upstream_file}")
    endif()
    if(EXISTS "${cache}/${file}")
      file(SHA256 "${cache}/${file}" actual)
      if(NOT actual STREQUAL "${arg_${origin}_SHA256}")
        message(FATAL_ERROR " heapflare: ${cache}/${file}: SHA256 is ${actual}, not "
                            "${arg_${origin}_SHA256}; remove the file or put the right one there")
      endif()
      set(${result} "${cache}/${file}" PARENT_SCOPE)
      return()
    endif()
  endforeach()

  message(STATUS "heapflare: fetching ${name}")
  set(temporary "${cache}/.${name}.tmp")
  file(REMOVE_RECURSE "${temporary}")
  execute_process(
    COMMAND "${_heapflare_cmake}/fetch_debian_source.sh" "${arg_DEBIAN_SOURCE}"
            "${arg_DEBIAN_FILE}" "${temporary}"
    RESULT_VARIABLE failed ERROR_VARIABLE why ERROR_STRIP_TRAILING_WHITESPACE)
  set(origin DEBIAN)
  set(file "${arg_DEBIAN_FILE}")
  if(NOT failed EQUAL 0)
    set(origin UPSTREAM)
    set(file "${upstream_file}")
    file(DOWNLOAD "${arg_UPSTREAM_URL}" "${temporary}/${file}" STATUS status TIMEOUT 300
         INACTIVITY_TIMEOUT 30)
    list(POP_FRONT status failed)
    if(NOT failed EQUAL 0)
      file(REMOVE_RECURSE "${temporary}")
      message(FATAL_ERROR " heapflare: cannot get ${name}: apt: ${why}; ${arg_UPSTREAM_URL}: "
                          "${status}; put ${upstream_file} or ${arg_DEBIAN_FILE} into ${cache}")
    endif()
  endif()
  file(SHA256 "${temporary}/${file}" actual)
  if(NOT actual STREQUAL "${arg_${origin}_SHA256}")
    file(REMOVE_RECURSE "${temporary}")
    message(FATAL_ERROR " heapflare: downloaded ${file}: SHA256 is ${actual}, not "
                        "${arg_${origin}_SHA256}; put the right file into ${cache}")
  endif()
  file(RENAME "${temporary}/${file}" "${cache}/${file}")
  file(REMOVE_RECURSE "${temporary}")
  set(${result} "${cache}/${file}" PARENT_SCOPE)
endfunction()

# Sets `result` to a directory with the contents of `tarball`. The first time, or when this file or
# the patch changed, unpacks it, applies `patch` (may be empty) and calls `prepare` with the
# directory.
function(_heapflare_unpack result name tarball patch prepare)
  set(inputs "${tarball}" "${_heapflare_cmake}/HeapflareDependencies.cmake" ${patch})
  set(key "")
  foreach(input IN LISTS inputs)
    file(SHA256 "${input}" hash)
    string(APPEND key "${hash}")
  endforeach()
  string(SHA256 key "${key}")
  string(SUBSTRING "${key}" 0 12 key)
  set(base "${CMAKE_BINARY_DIR}/_deps/${name}")
  set_property(DIRECTORY "${CMAKE_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${inputs})
  set(${result} "${base}-${key}" PARENT_SCOPE)
  if(EXISTS "${base}-${key}")
    return()
  endif()

  file(GLOB old "${base}-*")
  file(REMOVE_RECURSE "${base}-unpacking" ${old})
  file(ARCHIVE_EXTRACT INPUT "${tarball}" DESTINATION "${base}-unpacking")
  file(GLOB directory "${base}-unpacking/*")
  if(patch)
    find_program(HEAPFLARE_PATCH_PROGRAM NAMES patch git)
    mark_as_advanced(HEAPFLARE_PATCH_PROGRAM)
    set(command "${HEAPFLARE_PATCH_PROGRAM}" -p1 --batch --silent --input=${patch})
    if(HEAPFLARE_PATCH_PROGRAM MATCHES "git[^/]*$")
      # Outside of any repository, otherwise git leaves out files that it ignores.
      set(command "${CMAKE_COMMAND}" -E env "GIT_CEILING_DIRECTORIES=${base}-unpacking"
                  "${HEAPFLARE_PATCH_PROGRAM}" apply -p1 ${patch})
    endif()
    execute_process(COMMAND ${command} WORKING_DIRECTORY "${directory}" RESULT_VARIABLE failed
                    OUTPUT_VARIABLE why ERROR_VARIABLE why)
    if(NOT failed EQUAL 0)
      message(FATAL_ERROR " heapflare: ${patch}: does not apply to ${name}: ${why}; "
                          "install patch or git if neither was found")
    endif()
  endif()
  cmake_language(CALL ${prepare} "${directory}")
  file(RENAME "${directory}" "${base}-${key}")
  file(REMOVE_RECURSE "${base}-unpacking")
endfunction()

# Options for code that runs inside malloc, whatever the build type or sanitizer of this project.
function(_heapflare_dependency target)
  set_target_properties(
    ${target} PROPERTIES POSITION_INDEPENDENT_CODE ON C_STANDARD 11 C_EXTENSIONS ON
                         C_VISIBILITY_PRESET hidden INTERPROCEDURAL_OPTIMIZATION OFF
                         EXPORT_COMPILE_COMMANDS OFF)
  target_compile_definitions(${target} PRIVATE NDEBUG _GNU_SOURCE)
  target_compile_options(
    ${target}
    PRIVATE $<$<COMPILE_LANGUAGE:C>:-O2 -U_FORTIFY_SOURCE -ftls-model=initial-exec
            -fno-semantic-interposition -fasynchronous-unwind-tables -fno-sanitize=all
            -fno-profile-arcs -fno-test-coverage -fno-lto -w>)
endfunction()

# --- libunwind

set(_arch "${CMAKE_SYSTEM_PROCESSOR}")
if(_arch MATCHES "^(x86_64|amd64|AMD64)$")
  set(_arch x86_64)
  set(_arch_sources src/x86_64/Los-linux.c)
elseif(_arch MATCHES "^(aarch64|arm64)$")
  set(_arch aarch64)
  set(_arch_sources src/aarch64/Lis_signal_frame.c)
else()
  message(FATAL_ERROR " heapflare: CMAKE_SYSTEM_PROCESSOR: '${_arch}': stacks can be unwound on "
                      "x86_64 and aarch64 only")
endif()

# Generates the one header that configure would, with a prefix of ours, and gives those who link us
# these headers only: libunwind's <unwind.h> would hide the compiler's.
function(_heapflare_prepare_unwind directory)
  set(include "${directory}/include")
  file(READ "${include}/libunwind-common.h.in" text)
  string(REPLACE "@PKG_MAJOR@" 1 text "${text}")
  string(REPLACE "@PKG_MINOR@" 6 text "${text}")
  string(REPLACE "@PKG_EXTRA@" 2 text "${text}")
  string(REPLACE "PASTE(_U" "PASTE(heapflare_U" text "${text}")
  set(declaration "extern int unw_backtrace")
  string(REPLACE "${declaration}" "#define unw_backtrace UNW_OBJ(backtrace)\n${declaration}" text
                 "${text}")
  file(WRITE "${include}/libunwind-common.h" "${text}")
  foreach(header libunwind libunwind-common libunwind-dynamic libunwind-x86_64 libunwind-aarch64)
    file(COPY "${include}/${header}.h" DESTINATION "${directory}/public")
  endforeach()
endfunction()

_heapflare_tarball(
  _tarball libunwind
  DEBIAN_SOURCE libunwind=1.6.2-3
  DEBIAN_FILE libunwind_1.6.2.orig.tar.gz
  DEBIAN_SHA256 4a6aec666991fb45d0889c44aede8ad6eb108071c3554fcdff671f9c94794976
  UPSTREAM_URL
    https://github.com/libunwind/libunwind/releases/download/v1.6.2/libunwind-1.6.2.tar.gz
  UPSTREAM_SHA256 4a6aec666991fb45d0889c44aede8ad6eb108071c3554fcdff671f9c94794976)
_heapflare_unpack(_source libunwind "${_tarball}"
                  "${_heapflare_cmake}/patches/libunwind-1.6.2.patch" _heapflare_prepare_unwind)

# Only what a local unwind reaches. Left out: C++ exceptions (_Unwind_*), remote unwinding, symbol
# names, memory pools, the start-up code that opens a pipe.
set(_sources
    src/mi/backtrace.c
    src/mi/Lget_reg.c
    src/dwarf/Lexpr.c
    src/dwarf/Lfde.c
    src/dwarf/Lfind_proc_info-lsb.c
    src/dwarf/Lparser.c
    src/dwarf/Lpe.c
    src/${_arch}/Linit_local.c
    src/${_arch}/Lregs.c
    src/${_arch}/Lstash_frame.c
    src/${_arch}/Lstep.c
    src/${_arch}/Ltrace.c
    src/${_arch}/getcontext.S
    ${_arch_sources})
list(TRANSFORM _sources PREPEND "${_source}/")
add_library(heapflare_unwind STATIC ${_sources} "${_heapflare_cmake}/libunwind/port.c")
add_library(heapflare::unwind ALIAS heapflare_unwind)
_heapflare_dependency(heapflare_unwind)
target_compile_definitions(heapflare_unwind PRIVATE HAVE_CONFIG_H)
target_compile_options(heapflare_unwind PRIVATE -include "${_heapflare_cmake}/libunwind/config.h")
target_include_directories(
  heapflare_unwind
  PRIVATE "${_heapflare_cmake}/libunwind" "${_heapflare_root}" "${_source}/include"
          "${_source}/include/tdep-${_arch}" "${_source}/src")
target_include_directories(heapflare_unwind SYSTEM INTERFACE "${_source}/public")

# --- zlib

# zlib can rename its symbols itself, to z_*, but so may the program's own copy: ours are
# heapflare_z_*.
function(_heapflare_prepare_zlib directory)
  file(READ "${directory}/zconf.h" text)
  string(FIND "${text}" "#ifdef Z_PREFIX" begin)
  string(FIND "${text}" "#if defined(__MSDOS__)" end)
  math(EXPR length "${end} - ${begin}")
  string(SUBSTRING "${text}" ${begin} ${length} names)
  string(REGEX REPLACE "( +)z_" "\\1heapflare_z_" renamed "${names}")
  string(REPLACE "${names}" "${renamed}" text "${text}")
  file(WRITE "${directory}/zconf.h" "${text}")
  file(READ "${directory}/zlib.h" text)
  string(REGEX REPLACE "(# *define +)z_([a-z]+Init)" "\\1heapflare_z_\\2" text "${text}")
  file(WRITE "${directory}/zlib.h" "${text}")
  file(COPY "${directory}/zlib.h" "${directory}/zconf.h" DESTINATION "${directory}/public")
endfunction()

_heapflare_tarball(
  _tarball zlib
  DEBIAN_SOURCE zlib=1:1.2.13.dfsg-1
  DEBIAN_FILE zlib_1.2.13.dfsg.orig.tar.bz2
  DEBIAN_SHA256 71feb7947e3c00ef125f83b79a4e529bde31171e5babe48b391f06758d1ab0a1
  UPSTREAM_URL https://github.com/madler/zlib/releases/download/v1.2.13/zlib-1.2.13.tar.gz
  UPSTREAM_SHA256 b3a24de97a8fdbc835b9833169501030b8977031bcb54b3b3ac13740f846ab30)
_heapflare_unpack(_source zlib "${_tarball}" "" _heapflare_prepare_zlib)

set(_sources adler32.c crc32.c deflate.c inffast.c inflate.c inftrees.c trees.c zutil.c)
list(TRANSFORM _sources PREPEND "${_source}/")
add_library(heapflare_zlib STATIC ${_sources})
add_library(heapflare::zlib ALIAS heapflare_zlib)
_heapflare_dependency(heapflare_zlib)
target_compile_definitions(
  heapflare_zlib PUBLIC Z_PREFIX Z_SOLO
  # Z_SOLO stands for "no C library at all"; memcpy is fine. Z_PREFIX forgets this one name.
  PRIVATE HAVE_MEMCPY z_errmsg=heapflare_z_errmsg)
target_compile_options(heapflare_zlib PRIVATE -include string.h)
target_include_directories(heapflare_zlib SYSTEM INTERFACE "${_source}/public")

unset(_arch)
unset(_arch_sources)
unset(_source)
unset(_sources)
unset(_tarball)
