// Single words of this process's memory, whatever its protection: through a buffer that holds what
// lies around the last one. For memory that nobody changes meanwhile.
#pragma once

#include <cstdint>
#include <cstring>

#include "lib/reach/memory_reader.h"

namespace heapflare::recorder {

class MemoryWindow {
 public:
  static constexpr size_t kBytes = 16 << 10;

  explicit MemoryWindow(reach::MemoryReader* reader) : reader_(reader) {}

  // What cannot be read is 0. `address`: a multiple of 8.
  uint64_t Word(uint64_t address) {
    if (address - start_ > kBytes - sizeof(uint64_t)) {
      start_ = address / kPage * kPage;
      reader_->Read(start_, bytes_, kBytes);
    }
    uint64_t word = 0;
    memcpy(&word, bytes_ + (address - start_), sizeof(word));
    return word;
  }

 private:
  static constexpr uint64_t kPage = 4096;

  reach::MemoryReader* reader_;
  uint64_t start_ = ~uint64_t{0} / 2;
  alignas(8) std::byte bytes_[kBytes];
};

}  // namespace heapflare::recorder
