// The symbols of one ELF file, asked by its addresses at run time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace heapflare::symbolize {

struct Symbol {
  std::string mangled;
  std::string file;  // empty: not known
  int line = 0;
};

class ElfSymbols {
 public:
  // The segment of `path` that begins at `file_offset` is (or was) mapped at `start`. nullptr if
  // the file is missing, is no ELF file, or has another build id than `build_id` (lower-case hex;
  // empty: not checked).
  static std::unique_ptr<ElfSymbols> Open(const std::string& path, const std::string& build_id,
                                          uint64_t start, uint64_t file_offset);
  ~ElfSymbols();
  ElfSymbols(const ElfSymbols&) = delete;
  ElfSymbols& operator=(const ElfSymbols&) = delete;

  // False: no symbol covers the address.
  bool Find(uint64_t address, Symbol* symbol) const;

 private:
  struct Session;
  explicit ElfSymbols(std::unique_ptr<Session> session);
  std::unique_ptr<Session> session_;
};

}  // namespace heapflare::symbolize
