// The version that the recorder and the command report; CMakeLists.txt has the same.
#pragma once

namespace heapflare::recorder {

// Not inline: g++ makes an inline array a unique symbol (STB_GNU_UNIQUE), which objcopy
// --localize-hidden leaves global, so that the archives would define it in the program.
constexpr char kVersion[] = "0.1.0";

}  // namespace heapflare::recorder
