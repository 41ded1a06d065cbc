// The version that the recorder and the command report; CMakeLists.txt has the same.
#pragma once

namespace heapflare::recorder {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace heapflare::recorder
