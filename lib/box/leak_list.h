// The list by which a leak check at exit hands what it found to the `heapflare` command: lines of
// words with one space between.
//
//   heapflare-leaks 1
//   program PID START NAME                     START: of the process, Unix seconds
//   directory DIR                              where a profile of the leaks goes
//   suppressions FILE                          if there is one
//   module START LIMIT OFFSET BUILDID PATH     hexadecimal but the path; BUILDID "-": none
//   leak KIND OBJECTS BYTES PC...              KIND: direct or indirect; leaf first, hexadecimal
//   end                                        without it the list is not complete
#pragma once

#include <string_view>

namespace heapflare::box {

// Not inline: of that a symbol would be left in the archives.
constexpr std::string_view kLeakListHead = "heapflare-leaks 1";

// What the command says of it, as its exit code.
inline constexpr int kLeaksRemain = 41;
inline constexpr int kAllSuppressed = 42;

}  // namespace heapflare::box
