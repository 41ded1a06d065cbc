// Names from the outside (paths) as valid UTF-8: one wrong byte in a string makes profile stores
// refuse the whole profile.
#pragma once

#include <string_view>

#include "lib/base/text.h"

namespace heapflare::pprof {

// `text` itself if it is valid UTF-8 (RFC 3629); else a copy in `memory` with '?' for every byte
// that is not.
std::string_view ValidUtf8(std::string_view text, base::TextWriter* memory);

}  // namespace heapflare::pprof
