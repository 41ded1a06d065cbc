// Frames that were once found in debug information, on disk: reading a binary of some hundred
// megabytes takes seconds, reading this a fraction of one.
//
// One file for each build id, for this user only. It is believed no more than any file: what is
// damaged is ignored and written anew. Two commands that write at once lose one's additions,
// nothing else.
#pragma once

#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "lib/symbolize/frame.h"

namespace heapflare::symbolize {

// $HEAPFLARE_SYMBOL_CACHE, else $XDG_CACHE_HOME/heapflare, else $HOME/.cache/heapflare. Empty: none
// is wanted (the first is set and empty), or there is no home.
std::string CacheDirectory();

class SymbolCache {
 public:
  // Reads what is there. `directory` empty, or a `build_id` that is no hexadecimal number: keeps
  // nothing.
  SymbolCache(const std::string& directory, const std::string& build_id);

  // By offset in the file. nullptr: not known.
  const Frames* Find(uint64_t file_offset) const;
  void Add(uint64_t file_offset, Frames frames);
  // Writes the file if something was added. Failing is no error: it is a cache.
  void Save() const;

 private:
  std::string directory_;
  std::string path_;  // empty: none
  absl::flat_hash_map<uint64_t, Frames> places_;
  bool changed_ = false;
};

}  // namespace heapflare::symbolize
