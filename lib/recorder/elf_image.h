// An ELF file as it is mapped in this process: its program headers and build id, read without
// faulting.
#pragma once

#include <elf.h>
#include <link.h>

#include <cstdint>

namespace heapflare::recorder {

struct ElfImage {
  static constexpr int kMaxHeaders = 24;
  uint64_t bias;  // what is added to addresses in the file
  int header_count;
  ElfW(Phdr) headers[kMaxHeaders];
};

// `base`: where the file's first byte is mapped. False if no ELF header is there.
bool ReadElfImage(uint64_t base, ElfImage* image);

// The build id (NT_GNU_BUILD_ID): its length, 0 if there is none; longer ones are cut at
// `capacity`. `address`: where it is mapped.
uint32_t ReadBuildId(const ElfImage& image, uint8_t* build_id, uint32_t capacity,
                     uint64_t* address);

}  // namespace heapflare::recorder
