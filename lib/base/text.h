// Text of bounded length, built in place: what the recorder has instead of std::string and printf.
//
// Allocates nothing, is always zero-terminated, and cuts what does not fit; `truncated()` tells.
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace heapflare::base {

// Appends to memory that somebody else owns (`capacity` > 0 bytes, the terminating zero included).
class TextWriter {
 public:
  constexpr TextWriter(char* memory, size_t capacity) : memory_(memory), capacity_(capacity) {
    // Memory of static objects is zero already.
    if (!std::is_constant_evaluated()) memory_[0] = 0;
  }

  TextWriter& Add(std::string_view text);
  TextWriter& Add(char character) { return Add(std::string_view(&character, 1)); }
  TextWriter& AddNumber(uint64_t value, int minimum_digits = 1);  // decimal, zero-padded
  TextWriter& AddSigned(int64_t value);
  TextWriter& AddHex(uint64_t value, int minimum_digits = 1);  // lower case, no 0x
  // Text from elsewhere, on one line: control characters as \xNN.
  TextWriter& AddPrintable(std::string_view text);
  // As people read sizes: "512 B", "1.5 MiB", "256 MiB"; at most one digit after the point.
  TextWriter& AddSize(uint64_t bytes);

  void Clear() {
    length_ = 0;
    truncated_ = false;
    memory_[0] = 0;
  }
  // Drops everything after the first `length` characters.
  void ShortenTo(size_t length) {
    if (length < length_) memory_[length_ = length] = 0;
  }

  const char* c_str() const { return memory_; }
  size_t size() const { return length_; }
  bool truncated() const { return truncated_; }
  std::string_view view() const { return {memory_, length_}; }

 private:
  char* memory_;
  size_t capacity_;
  size_t length_ = 0;
  bool truncated_ = false;
};

// The same with its own memory.
template <size_t kCapacity>
class Text : public TextWriter {
 public:
  constexpr Text() : TextWriter(storage_, kCapacity), storage_{} {}
  explicit Text(std::string_view text) : Text() { Add(text); }
  Text(const Text& other) : Text() { Add(other.view()); }
  Text& operator=(const Text& other) {
    if (this != &other) {
      Clear();
      Add(other.view());
    }
    return *this;
  }

 private:
  char storage_[kCapacity];
};

// Room for any path that the kernel takes (PATH_MAX counts the zero).
using Path = Text<4096>;

}  // namespace heapflare::base
