#include "lib/cgroup/node.h"

#include <errno.h>

#include <string_view>

#include "lib/base/parse.h"
#include "lib/base/syscall.h"

namespace heapflare::cgroup {
namespace {

// "MemTotal:       24684092 kB", in bytes.
bool ParseLine(std::string_view line, std::string_view* key, uint64_t* bytes) {
  constexpr std::string_view kUnit = " kB";
  if (!base::TakeUntil(':', &line, key) || !line.ends_with(kUnit)) return false;
  line.remove_suffix(kUnit.size());
  return ParseBytes(line, bytes) && !__builtin_mul_overflow(*bytes, uint64_t{1024}, bytes);
}

}  // namespace

int ReadNodeMemory(const char* path, NodeMemory* memory) {
  *memory = {};
  uint64_t kernel = 0;
  uint64_t file = 0;
  const struct {
    std::string_view key;
    uint64_t* sum;
  } fields[] = {{"MemTotal", &memory->total},
                {"MemAvailable", &memory->available},
                {"AnonPages", &memory->stat.anon},
                {"Shmem", &memory->stat.shmem},
                {"Buffers", &file},
                {"Cached", &file},
                {"Slab", &kernel},
                {"KernelStack", &kernel},
                {"PageTables", &kernel},
                {"Percpu", &kernel}};
  char buffer[2048];
  Lines lines(base::Open(path, O_RDONLY), buffer, sizeof(buffer));
  std::string_view line;
  std::string_view key;
  uint64_t bytes = 0;
  while (lines.Next(&line)) {
    if (!ParseLine(line, &key, &bytes)) continue;
    for (const auto& field : fields) {
      if (key == field.key) *field.sum = bytes + (*field.sum == kUnknown ? 0 : *field.sum);
    }
  }
  memory->stat.file = file;
  memory->stat.kernel = kernel;
  memory->stat.inactive_file = 0;
  memory->stat.active_file = 0;
  if (lines.error() != 0) return lines.error();
  return memory->total == kUnknown ? -EINVAL : 0;
}

}  // namespace heapflare::cgroup
