// lib/symbolize: what names come from. A just-in-time compiler's map (/tmp/perf-PID.map), the cache of
// symbols on disk, and an ELF file with debug information. The first byte says which.
#include <filesystem>

#include "lib/symbolize/module_symbols.h"
#include "lib/symbolize/perf_map.h"
#include "lib/symbolize/symbol_cache.h"
#include "tests/fuzz/file_tree.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

void Map(std::string_view text) {
  const symbolize::PerfMap map({text.data(), text.size()});
  for (size_t i = 0; i + 1 < text.size(); i += 1 + text.size() / 64) {
    const uint64_t address = strtoull(std::string(text.substr(i, 17)).c_str(), nullptr, 16);
    const std::string name = map.Find(address);
    Require(name.empty() || text.find(name) != std::string_view::npos, "a name is of the text");
  }
}

void Cache(std::string_view bytes) {
  static FileTree tree;
  tree.Write("abcd.symbols", bytes);
  symbolize::SymbolCache cache(tree.root(), "abcd");
  for (uint64_t offset = 0; offset < 64; ++offset) {
    const symbolize::Frames* const frames = cache.Find(offset);
    Require(frames == nullptr || !frames->empty(), "what is known has a frame");
  }
}

void Elf(std::string_view bytes) {
  static MemoryFile file;
  file.Write(bytes);
  symbolize::Mapped mapped;
  mapped.path = file.path();
  mapped.start = 0x400000;
  mapped.limit = 0x500000;
  const auto symbols = symbolize::ModuleSymbols::Open(mapped);
  if (symbols == nullptr) return;
  for (uint64_t at = mapped.start; at < mapped.limit; at += 0x3331) symbols->Find(at);
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  Input input(bytes);
  const auto what = input.Take<uint8_t>();
  const Alone alone(input.Rest());
  switch (what % 3) {
    case 0:
      Map(alone.view());
      break;
    case 1:
      Cache(alone.view());
      break;
    default:
      Elf(alone.view());
  }
}

}  // namespace heapflare::fuzz
