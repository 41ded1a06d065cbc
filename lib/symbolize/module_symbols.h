// The symbols of one mapped ELF file, asked by its addresses at run time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lib/symbolize/frame.h"

namespace heapflare::symbolize {

// A mapped segment, as a profile names it.
struct Mapped {
  std::string path;
  std::string build_id;  // lower-case hex; empty: the file has none
  uint64_t start = 0;
  uint64_t limit = 0;
  uint64_t file_offset = 0;
  // The process it is mapped in, in our PID namespace; 0: not known, or dead.
  int pid = 0;
};

class ModuleSymbols {
 public:
  // Looks for the file, and for its debug information, where find_elf.h says; takes none of another
  // build id. nullptr: there is none.
  static std::unique_ptr<ModuleSymbols> Open(const Mapped& mapped);
  ~ModuleSymbols();
  ModuleSymbols(const ModuleSymbols&) = delete;
  ModuleSymbols& operator=(const ModuleSymbols&) = delete;

  // From DWARF, else one frame from the symbol table. Empty: nothing covers the address. Not
  // thread-safe.
  Frames Find(uint64_t address) const;
  bool has_debug_info() const;

 private:
  struct Session;
  explicit ModuleSymbols(std::unique_ptr<Session> session);
  std::unique_ptr<Session> session_;
};

}  // namespace heapflare::symbolize
