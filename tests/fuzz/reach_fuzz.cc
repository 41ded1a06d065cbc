// lib/reach: what it reads of /proc: smaps, epoll's fdinfo, timers, syscall. The first byte says which.
#include "lib/reach/kernel_pointers.h"
#include "lib/reach/memory_map.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

void ReadMap(std::string_view text) {
  static MemoryFile file;
  file.Write(text);
  reach::MemoryMap map;
  map.Exclude(0x1000, 0x2000);
  map.Exclude(0x2000, 0x100000);
  if (map.ReadFrom(file.Open()) != 0) return;
  uint64_t before = 0;
  bool ordered = true;
  for (uint64_t i = 0; i < map.count(); ++i) {
    const reach::MemoryRange& range = map.range(i);
    Require(range.start < range.limit, "a mapping has a first and a last byte");
    Require(!range.MayRefer() || range.shared || range.anonymous > 0,
            "private memory refers as far as it is the process's own");
    ordered = ordered && range.start >= before;
    before = range.limit;
    uint64_t at = range.start;
    map.ForEachPart(range.start, range.limit, [&](uint64_t start, uint64_t limit) {
      Require(start >= at && start < limit && limit <= range.limit, "parts lie in it, in order");
      Require(limit <= 0x1000 || start >= 0x102000, "and leave out what is excluded");
      at = limit;
    });
  }
  // As the kernel lists them.
  for (uint64_t i = 0; ordered && i < map.count(); ++i) {
    const reach::MemoryRange& range = map.range(i);
    Require(map.Find(range.start) == &range && map.Find(range.limit - 1) == &range,
            "each address leads to its mapping");
    reach::DeadStackLimit(map, range, range.start + range.bytes() / 2, range.limit - 1);
  }
}

void ReadLines(std::string_view text) {
  const Alone alone(text);
  uint64_t word = 0;
  uint64_t words[reach::kMostSystemCallWords] = {};
  reach::ParseEpollLine(alone.view(), &word);
  reach::ParseTimersLine(alone.view(), &word);
  Require(reach::ParseSystemCallLine(alone.view(), words) <= reach::kMostSystemCallWords,
          "no more words than there is room for");
  reach::MemoryRange range = {};
  reach::ParseSmapsField(alone.view(), &range);
}

// What the kernel writes for any word comes back.
void ComesBack(uint64_t word) {
  char line[160];
  uint64_t read = ~word;
  snprintf(line, sizeof(line), "tfd: %8d events: %8x data: %16lx  pos:0 ino:61 sdev:2f", 7, 0x19,
           word);
  Require(reach::ParseEpollLine(line, &read) && read == word, "epoll's data comes back");
  read = ~word;
  snprintf(line, sizeof(line), "signal: %d/%016lx", 10, word);
  Require(reach::ParseTimersLine(line, &read) && read == word, "a timer's value comes back");
  uint64_t words[reach::kMostSystemCallWords] = {};
  snprintf(line, sizeof(line), "0 0x3 0x%lx 0x10 0x0 0x0 0x0 0x7ffc0 0x7f1\n", word);
  Require(reach::ParseSystemCallLine(line, words) == 8 && words[1] == word,
          "a system call's arguments come back");
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  Input input(bytes);
  if (input.Take<uint8_t>() % 2 == 0) return ReadMap(input.Rest());
  ComesBack(input.Take<uint64_t>());
  ReadLines(input.Rest());
}

}  // namespace heapflare::fuzz
