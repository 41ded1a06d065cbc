#include "lib/cgroup/stat.h"

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace heapflare::cgroup {
namespace {

// kUnknown + n = n.
void AddTo(uint64_t* sum, uint64_t value) {
  if (value == kUnknown) return;
  if (*sum == kUnknown) *sum = 0;
  if (__builtin_add_overflow(*sum, value, sum)) *sum = kUnknown - 1;
}

int ParseV1(Lines* lines, MemoryStat* stat) {
  struct Field {
    std::string_view key;
    uint64_t MemoryStat::*value;
  };
  static constexpr Field kFields[] = {{"rss", &MemoryStat::anon},
                                      {"cache", &MemoryStat::file},
                                      {"shmem", &MemoryStat::shmem},
                                      {"inactive_file", &MemoryStat::inactive_file},
                                      {"active_file", &MemoryStat::active_file}};
  // Without children included: a stand-in for a missing total_.
  MemoryStat own;
  std::string_view line;
  std::string_view key;
  uint64_t value = 0;
  while (lines->Next(&line)) {
    if (!ParseKeyValue(line, &key, &value)) continue;
    if (key == "hierarchical_memory_limit") {
      // Beyond 2^62: none, as in ParseLimit.
      stat->hierarchical_limit = value >> 62 == 0 ? value : kUnlimited;
    }
    constexpr std::string_view kTotal = "total_";
    MemoryStat* to = &own;
    if (key.starts_with(kTotal)) {
      key.remove_prefix(kTotal.size());
      to = stat;
    }
    for (const Field& field : kFields) {
      if (key == field.key) to->*field.value = value;
    }
  }
  for (const Field& field : kFields) {
    if (stat->*field.value == kUnknown) stat->*field.value = own.*field.value;
  }
  return lines->error();
}

int ParseV2(Lines* lines, MemoryStat* stat) {
  // `kernel` came with Linux 5.18; before, its parts are added up.
  uint64_t kernel = kUnknown;
  uint64_t parts = kUnknown;
  uint64_t sock = kUnknown;
  const struct {
    std::string_view key;
    uint64_t* sum;
  } fields[] = {{"anon", &stat->anon},
                {"file", &stat->file},
                {"shmem", &stat->shmem},
                {"inactive_file", &stat->inactive_file},
                {"active_file", &stat->active_file},
                {"kernel", &kernel},
                {"sock", &sock},
                {"slab", &parts},
                {"kernel_stack", &parts},
                {"pagetables", &parts},
                {"percpu", &parts}};
  std::string_view line;
  std::string_view key;
  uint64_t value = 0;
  while (lines->Next(&line)) {
    if (!ParseKeyValue(line, &key, &value)) continue;
    for (const auto& field : fields) {
      if (key == field.key) AddTo(field.sum, value);
    }
  }
  stat->kernel = kernel != kUnknown ? kernel : parts;
  // Charged like the rest, but not part of `kernel`.
  AddTo(&stat->kernel, sock);
  return lines->error();
}

}  // namespace

int ParseStat(Version version, Lines* lines, MemoryStat* stat) {
  *stat = {};
  return version == Version::kV1 ? ParseV1(lines, stat) : ParseV2(lines, stat);
}

uint64_t WorkingSet(uint64_t usage, const MemoryStat& stat) {
  if (usage == kUnknown) return usage;
  for (const uint64_t cache : {stat.inactive_file, stat.active_file}) {
    if (cache != kUnknown) usage -= std::min(usage, cache);
  }
  return usage;
}

int ParseEvents(Lines* lines, MemoryEvents* events) {
  static constexpr struct {
    std::string_view key;
    uint64_t MemoryEvents::*counter;
  } kCounters[] = {
      {"low", &MemoryEvents::low},           {"high", &MemoryEvents::high},
      {"max", &MemoryEvents::max},           {"oom", &MemoryEvents::oom},
      {"oom_kill", &MemoryEvents::oom_kill}, {"oom_group_kill", &MemoryEvents::oom_group_kill}};
  *events = {};
  std::string_view line;
  std::string_view key;
  uint64_t value = 0;
  while (lines->Next(&line)) {
    if (!ParseKeyValue(line, &key, &value)) continue;
    for (const auto& counter : kCounters) {
      if (key == counter.key) events->*counter.counter = value;
    }
  }
  return lines->error();
}

}  // namespace heapflare::cgroup
