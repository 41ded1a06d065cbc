// What an ELF file says about how it is loaded and who defines its malloc.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace heapflare::doctor {

struct ElfFile {
  uint16_t machine = 0;         // EM_X86_64, ...
  int bits = 0;                 // 32 or 64
  bool executable = false;      // ET_EXEC or ET_DYN
  std::string interpreter;      // the dynamic loader; empty: static (or a library)
  bool defines_malloc = false;  // a malloc of its own
  bool has_heapflare = false;   // linked with heapflare
};

// `most_symbols`: a table of symbols for debuggers that is longer is not searched; the one for the
// dynamic loader always is. A file that is no ELF file is an InvalidArgument.
absl::StatusOr<ElfFile> ReadElf(const std::string& path, uint64_t most_symbols = UINT64_MAX);

// "x86_64", "aarch64", or the number.
std::string MachineName(uint16_t machine);

}  // namespace heapflare::doctor
