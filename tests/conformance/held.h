// Blocks that are meant to be found in the profile: each is allocated below a function whose name
// tells how, and is never freed. conformance_test.py knows how many, and how large, from the lines
// that Held prints.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstring>

namespace conformance {

inline constexpr int kHeldBlocks = 17;

// Calls `hold` kHeldBlocks times; `name` is the function in which it allocates `bytes`.
template <typename Function>
void Hold(const char* name, size_t bytes, Function hold) {
  for (int i = 0; i < kHeldBlocks; ++i) memset(hold(), 1, bytes);
  std::printf("held %s %d %zu\n", name, kHeldBlocks, kHeldBlocks * bytes);
}

}  // namespace conformance

// Defines the function `name`, which returns what `expression` allocates. It stays a frame of its
// own: neither inlined nor left by a jump.
#define CONFORMANCE_HOLDER(name, ...)   \
  [[gnu::noinline]] void* name() {      \
    void* volatile block = __VA_ARGS__; \
    return block;                       \
  }
