// Functions, inlined functions, files and lines of one ELF file, from its DWARF.
//
// A compilation unit is read when the first address in it is asked for, in one pass over its
// entries, so that many addresses of one unit cost little more than one. Finding the unit does not
// rely on .debug_aranges, which clang does not write. Split units (.dwo) are followed where libdw
// finds them. Not thread-safe.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "lib/symbolize/frame.h"

namespace heapflare::symbolize {

class DebugInfo {
 public:
  // `dwarf` outlives this.
  explicit DebugInfo(Dwarf* dwarf);

  // `address`: as in the file's own symbol table. Empty: no function is known there.
  Frames Find(uint64_t address);

 private:
  struct Range {
    uint64_t low;
    uint64_t high;
    uint32_t index;  // of what covers it
  };
  // A function, or what is inlined somewhere into it.
  struct Scope {
    Dwarf_Die die;
    uint32_t depth;  // 0: the function itself
    std::vector<Range> ranges;
  };
  struct Unit {
    Dwarf_Die lines;    // whose line table is meant
    Dwarf_Die content;  // the same but for split units
    bool cxx = false;
    bool read = false;
    std::vector<std::vector<Scope>> functions;  // each with its inlined functions
    std::vector<Range> ranges;                  // of the functions, sorted
  };

  static std::vector<Range> RangesOf(Dwarf_Die* die, uint32_t index);
  static const Range* FindRange(const std::vector<Range>& sorted, uint64_t address);
  void SetName(Dwarf_Die* die, bool cxx, Frame* frame);
  void Read(Unit* unit);
  void ReadChildren(Dwarf_Die* parent, Unit* unit, int64_t function, uint32_t depth, int nesting);

  absl::flat_hash_map<Dwarf_Off, std::string> qualified_names_;  // by declaration
  std::vector<Unit> units_;
  std::vector<Range> ranges_;  // of the units, sorted
};

}  // namespace heapflare::symbolize
