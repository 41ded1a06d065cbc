// The protobuf wire format, as far as profile.proto needs it: writing, into memory of fixed size.
// Format: https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace heapflare::pprof {

// One message in the making. Allocates nothing; what does not fit is dropped and `overflowed()`
// tells.
template <size_t kCapacity>
class Message {
 public:
  // Proto3 leaves out what is zero.
  void AddVarint(uint32_t field, uint64_t value) {
    if (value == 0) return;
    PutVarint(field << 3);
    PutVarint(value);
  }
  void AddBytes(uint32_t field, std::string_view bytes) {
    PutVarint(field << 3 | kLengthDelimited);
    PutVarint(bytes.size());
    Put(bytes.data(), bytes.size());
  }
  template <size_t kOther>
  void AddMessage(uint32_t field, const Message<kOther>& message) {
    AddBytes(field, message.view());
  }
  // An element of a packed field: numbers without a tag of their own.
  void AddPacked(uint64_t value) { PutVarint(value); }

  std::string_view view() const { return {bytes_, size_}; }
  bool overflowed() const { return overflowed_; }
  void Clear() {
    size_ = 0;
    overflowed_ = false;
  }

 private:
  static constexpr uint32_t kLengthDelimited = 2;

  void PutVarint(uint64_t value) {
    char encoded[10];
    size_t length = 0;
    while (value >= 0x80) {
      encoded[length++] = static_cast<char>(value | 0x80);
      value >>= 7;
    }
    encoded[length++] = static_cast<char>(value);
    Put(encoded, length);
  }
  void Put(const char* from, size_t length) {
    if (length > kCapacity - size_) {
      overflowed_ = true;
      return;
    }
    memcpy(bytes_ + size_, from, length);
    size_ += length;
  }

  size_t size_ = 0;
  bool overflowed_ = false;
  char bytes_[kCapacity];
};

}  // namespace heapflare::pprof
