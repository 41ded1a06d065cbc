#include "lib/reach/kernel_pointers.h"

#include <errno.h>
#include <signal.h>

#include "lib/base/directory.h"
#include "lib/base/line_reader.h"
#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/base/text.h"

namespace heapflare::reach {
namespace {

constexpr size_t kLineBytes = 512;

void ProcessPath(int process, std::string_view rest, base::TextWriter* path) {
  path->Clear();
  path->Add("/proc/").AddNumber(static_cast<uint64_t>(process)).Add(rest);
}

void ThreadPath(int process, std::string_view thread, std::string_view rest,
                base::TextWriter* path) {
  ProcessPath(process, "/task/", path);
  path->Add(thread).Add(rest);
}

// Descriptors in one thread's table, or negative errno.
long CountDescriptors(int process, std::string_view thread) {
  base::Text<96> path;
  ThreadPath(process, thread, "/fd", &path);
  long count = 0;
  const int error = base::ForEachEntry(path.c_str(), [&count](std::string_view) {
    ++count;
    return count <= static_cast<long>(kMostDescriptors);
  });
  return error < 0 ? error : count;
}

void VisitEpollOf(int process, std::string_view thread, VisitWord visit, void* context) {
  base::Text<96> path;
  ThreadPath(process, thread, "/fd", &path);
  const size_t directory = path.size();
  base::ForEachEntry(path.c_str(), [&](std::string_view name) {
    path.ShortenTo(directory);
    path.Add('/').Add(name);
    char target[64];
    const long bytes = base::ReadLink(path.c_str(), target, sizeof(target));
    if (bytes <= 0 || std::string_view(target, static_cast<size_t>(bytes)) !=
                          std::string_view("anon_inode:[eventpoll]")) {
      return true;
    }
    base::Text<96> info;
    ThreadPath(process, thread, "/fdinfo/", &info);
    info.Add(name);
    char buffer[kLineBytes];
    base::LineReader lines(base::Open(info.c_str(), O_RDONLY), buffer, sizeof(buffer));
    if (!lines.ok()) return true;
    uint64_t data = 0;
    for (std::string_view line; lines.Next(&line);) {
      if (ParseEpollLine(line, &data)) visit(context, data);
    }
    return true;
  });
}

}  // namespace

bool ParseEpollLine(std::string_view line, uint64_t* data) {
  constexpr std::string_view kName = "data:";
  const size_t at = line.find(kName);
  if (line.substr(0, 4) != "tfd:" || at == std::string_view::npos) return false;
  std::string_view rest = base::TrimSpace(line.substr(at + kName.size()));
  std::string_view number;
  base::TakeUntil(' ', &rest, &number);
  const auto value = base::ParseHex(number);
  if (value) *data = *value;
  return value.has_value();
}

bool ParseTimersLine(std::string_view line, uint64_t* value) {
  // signal: 10/0000559228d082a0
  std::string_view name;
  std::string_view signal;
  if (!base::TakeUntil(':', &line, &name) || name != "signal" ||
      !base::TakeUntil('/', &line, &signal)) {
    return false;
  }
  const auto number = base::ParseHex(base::TrimSpace(line));
  if (number) *value = *number;
  return number.has_value();
}

uint32_t ParseSystemCallLine(std::string_view line, uint64_t* words) {
  // number, six arguments, stack pointer, program counter; or -1, the last two; or "running"
  uint32_t count = 0;
  for (std::string_view part; base::TakeUntil(' ', &line, &part);) {
    if (part.substr(0, 2) != "0x" || count == kMostSystemCallWords) continue;
    const auto number = base::ParseHex(base::TrimSpace(part.substr(2)));
    if (number) words[count++] = *number;
  }
  return count;
}

bool VisitEpollData(int process, int spared_thread, VisitWord visit, void* context) {
  base::Text<96> path;
  ProcessPath(process, "/task", &path);
  // The first thread that has descriptors: they share one table. (The first of all may have ended.)
  bool looked = false;
  base::ForEachEntry(path.c_str(), [&](std::string_view name) {
    const auto number = base::ParseNumber(name);
    if (!number || static_cast<int>(*number) == spared_thread) return true;
    const long count = CountDescriptors(process, name);
    if (count == 0 || count == -ENOENT) return true;
    looked = count > 0 && count <= static_cast<long>(kMostDescriptors);
    if (looked) VisitEpollOf(process, name, visit, context);
    return false;
  });
  return looked;
}

bool VisitTimers(int process, VisitWord visit, void* context) {
  base::Text<96> path;
  ProcessPath(process, "/timers", &path);
  char buffer[kLineBytes];
  base::LineReader lines(base::Open(path.c_str(), O_RDONLY), buffer, sizeof(buffer));
  if (!lines.ok()) return false;
  uint64_t value = 0;
  for (std::string_view line; lines.Next(&line);) {
    if (ParseTimersLine(line, &value)) visit(context, value);
  }
  return lines.complete();
}

bool VisitSystemCalls(int process, VisitWord visit, void* context) {
  base::Text<96> path;
  ProcessPath(process, "/task", &path);
  bool any = false;
  base::ForEachEntry(path.c_str(), [&](std::string_view name) {
    base::Text<96> file;
    ThreadPath(process, name, "/syscall", &file);
    char text[256];
    const long bytes = base::ReadFile(file.c_str(), text, sizeof(text));
    if (bytes <= 0) return true;
    any = true;
    uint64_t words[kMostSystemCallWords];
    const uint32_t count = ParseSystemCallLine({text, static_cast<size_t>(bytes)}, words);
    for (uint32_t i = 0; i < count; ++i) visit(context, words[i]);
    return true;
  });
  return any;
}

uint64_t AlternateStack() {
  stack_t stack = {};
  if (base::Syscall(SYS_sigaltstack, 0, base::Arg(&stack)) != 0) return 0;
  return (stack.ss_flags & SS_DISABLE) != 0 ? 0 : reinterpret_cast<uint64_t>(stack.ss_sp);
}

}  // namespace heapflare::reach
