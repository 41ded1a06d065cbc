#include "lib/recorder/leak_report.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "lib/base/glibc_versions.h"
#include "lib/base/parse.h"
#include "lib/base/say.h"
#include "lib/base/syscall.h"
#include "lib/base/text.h"
#include "lib/box/format.h"
#include "lib/box/leak_list.h"
#include "lib/recorder/leak_command.h"
#include "lib/recorder/leak_suppressions.h"
#include "lib/recorder/modules.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/places.h"
#include "lib/recorder/recorder.h"

namespace heapflare::recorder {
namespace {

class ListWriter {
 public:
  explicit ListWriter(int fd) : fd_(fd) {}

  base::TextWriter& line() { return line_; }
  void EndLine() {
    line_.Add('\n');
    ok_ = ok_ && !line_.truncated() && base::WriteAll(fd_, line_.c_str(), line_.size()) == 0;
    line_.Clear();
  }
  bool ok() const { return ok_; }

 private:
  int fd_;
  bool ok_ = true;
  base::Text<16384> line_;
};

// Large, and used by one report at a time.
alignas(ListWriter) constinit char writer_memory[sizeof(ListWriter)] = {};

std::string_view StringAt(uint32_t offset, uint32_t bytes) {
  return {recorder.mapping.Records<char>(box::kStrings) + offset, bytes};
}

void WriteModules(ListWriter* list) {
  const uint64_t count = recorder.mapping.header().regions[box::kModules].used;
  const auto* const modules = recorder.mapping.Records<box::Module>(box::kModules);
  for (uint64_t i = 0; i < count; ++i) {
    const box::Module& module = modules[i];
    if (module.state == static_cast<uint32_t>(box::ModuleState::kUnpublished)) continue;
    base::TextWriter& line = list->line();
    line.Add("module ").AddHex(module.start).Add(' ').AddHex(module.limit).Add(' ');
    line.AddHex(module.file_offset).Add(' ');
    for (uint32_t k = 0; k < module.build_id_bytes; ++k) line.AddHex(module.build_id[k], 2);
    if (module.build_id_bytes == 0) line.Add('-');
    line.Add(' ').Add(StringAt(module.path_offset, module.path_bytes));
    list->EndLine();
  }
}

uint32_t FramesOf(uint64_t stack, const uint32_t** frames) {
  const box::Stack& record = recorder.mapping.Records<box::Stack>(box::kStacks)[stack];
  *frames = recorder.mapping.Records<uint32_t>(box::kFrames) + record.first_frame;
  return record.depth == 0 ? 0 : record.depth - 1;
}

uint64_t ProgramCounter(uint32_t location) {
  return recorder.mapping.Records<box::Location>(box::kLocations)[location].pc;
}

void WriteLeak(const char* kind, uint64_t objects, uint64_t bytes, uint64_t stack,
               ListWriter* list) {
  if (objects == 0) return;
  base::TextWriter& line = list->line();
  line.Add("leak ").Add(kind).Add(' ').AddNumber(objects).Add(' ').AddNumber(bytes);
  const uint32_t* frames = nullptr;
  const uint32_t depth = FramesOf(stack, &frames);
  for (uint32_t i = 0; i < depth; ++i) line.Add(' ').AddHex(ProgramCounter(frames[i]));
  list->EndLine();
}

bool WriteList(const LeakResult& result, int fd) {
  auto& list = *::new (writer_memory) ListWriter(fd);
  list.line().Add(box::kLeakListHead);
  list.EndLine();
  const Identity& identity = recorder.identity;
  list.line().Add("program ").AddNumber(static_cast<uint64_t>(OwnProcessId())).Add(' ');
  list.line().AddNumber(identity.start_utc / 1'000'000'000).Add(' ').Add(identity.program.view());
  list.EndLine();
  base::Path directory;
  DumpDirectory(recorder.settings, &directory);
  list.line().Add("directory ").Add(directory.view());
  list.EndLine();
  if (recorder.settings.leak_suppressions.size() > 0) {
    list.line().Add("suppressions ").Add(recorder.settings.leak_suppressions.view());
    list.EndLine();
  }
  WriteModules(&list);
  for (uint64_t i = 0; i < result.stack_count; ++i) {
    const StackLeaks& leaks = result.stacks[i];
    WriteLeak("direct", leaks.direct_objects, leaks.direct_bytes, i, &list);
    WriteLeak("indirect", leaks.indirect_objects, leaks.indirect_bytes, i, &list);
  }
  list.line().Add("end");
  list.EndLine();
  return list.ok();
}

// The exit code of the command; negative: it could not be asked.
int AskCommand(const LeakResult& result) {
  base::Path command;
  if (!FindCommand(&command)) return -1;
  const int fd = static_cast<int>(
      base::Syscall(SYS_memfd_create, base::Arg("heapflare-leaks"), 1));  // MFD_CLOEXEC
  if (fd < 0) return -1;
  int code = -1;
  if (WriteList(result, fd) && base::Syscall(SYS_lseek, fd, 0, SEEK_SET) == 0) {
    code = RunCommand(command.c_str(), fd);
  }
  base::Close(fd);
  return code;
}

// --- Without the command ---

struct Place {
  std::string_view module;
  std::string_view symbol;  // empty: none is exported there
  uint64_t offset;          // in the module's file
};

Place PlaceOf(uint32_t location) {
  const auto& record = recorder.mapping.Records<box::Location>(box::kLocations)[location];
  Place place = {};
  if (record.module_plus_one != 0) {
    const auto& module =
        recorder.mapping.Records<box::Module>(box::kModules)[record.module_plus_one - 1];
    place.module = StringAt(module.path_offset, module.path_bytes);
    place.offset = record.pc - 1 - module.start + module.file_offset;
  }
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(record.pc - 1), &info) != 0 &&
      info.dli_sname != nullptr) {
    place.symbol = info.dli_sname;
  }
  return place;
}

bool IsSuppressed(uint64_t stack, LeakSuppressions* suppressions) {
  const uint32_t* frames = nullptr;
  const uint32_t depth = FramesOf(stack, &frames);
  for (uint32_t i = 0; i < depth; ++i) {
    const Place place = PlaceOf(frames[i]);
    if (suppressions->Match(place.symbol) || suppressions->Match(place.module)) return true;
  }
  return false;
}

void SayLeak(const char* kind, uint64_t objects, uint64_t bytes, uint64_t stack) {
  if (objects == 0) return;
  base::Text<512> line("  ");
  line.AddSize(bytes).Add(" in ").AddNumber(objects).Add(objects == 1 ? " block, " : " blocks, ");
  line.Add(kind);
  base::Say(line.view());
  constexpr uint32_t kMostFrames = 12;
  const uint32_t* frames = nullptr;
  const uint32_t depth = std::min(FramesOf(stack, &frames), kMostFrames);
  for (uint32_t i = 0; i < depth; ++i) {
    const Place place = PlaceOf(frames[i]);
    line.Clear();
    line.Add("    ").Add(place.symbol.empty() ? "?" : place.symbol).Add("  ");
    line.Add(place.module).Add("+0x").AddHex(place.offset);
    base::Say(line.view());
  }
}

alignas(LeakSuppressions) constinit char suppressions_memory[sizeof(LeakSuppressions)] = {};

Verdict ReportByOurselves(const LeakResult& result) {
  auto& suppressions = *::new (suppressions_memory) LeakSuppressions();
  if (recorder.settings.leak_suppressions.size() > 0) {
    suppressions.Read(recorder.settings.leak_suppressions.c_str());
    base::Say(
        "the heapflare command was not found: suppressions match modules and exported symbols "
        "only");
  }
  StackLeaks shown = {};
  StackLeaks suppressed = {};
  const auto add = [](const StackLeaks& from, StackLeaks* to) {
    to->direct_objects += from.direct_objects;
    to->direct_bytes += from.direct_bytes;
    to->indirect_objects += from.indirect_objects;
    to->indirect_bytes += from.indirect_bytes;
  };
  for (uint64_t i = 0; i < result.stack_count; ++i) {
    StackLeaks& leaks = result.stacks[i];
    if (leaks.direct_objects + leaks.indirect_objects == 0) continue;
    if (IsSuppressed(i, &suppressions)) {
      add(leaks, &suppressed);
      leaks = {};
    } else {
      add(leaks, &shown);
    }
  }
  base::Text<512> line;
  const uint64_t hidden = suppressed.direct_objects + suppressed.indirect_objects;
  const uint64_t objects = shown.direct_objects + shown.indirect_objects;
  if (objects > 0) {
    line.Add(recorder.identity.program.view()).Add(" (pid ");
    line.AddNumber(static_cast<uint64_t>(OwnProcessId())).Add(") leaked ");
    line.AddSize(shown.direct_bytes + shown.indirect_bytes).Add(" in ").AddNumber(objects);
    line.Add(objects == 1 ? " block: " : " blocks: ").AddNumber(shown.direct_objects);
    line.Add(" direct, ").AddNumber(shown.indirect_objects).Add(" indirect");
    base::Say(line.view());
  }
  for (uint64_t i = 0; objects > 0 && i < result.stack_count; ++i) {
    SayLeak("direct", result.stacks[i].direct_objects, result.stacks[i].direct_bytes, i);
    SayLeak("indirect", result.stacks[i].indirect_objects, result.stacks[i].indirect_bytes, i);
  }
  if (hidden > 0) {
    line.Clear();
    line.Add("suppressed: ").AddSize(suppressed.direct_bytes + suppressed.indirect_bytes);
    line.Add(" in ").AddNumber(hidden).Add(hidden == 1 ? " block" : " blocks");
    base::Say(line.view());
  }
  return objects > 0 ? Verdict::kLeaks : Verdict::kClean;
}

}  // namespace

Verdict ReportLeaks(const LeakResult& result) {
  ScanModules();
  const int code = AskCommand(result);
  if (code == box::kLeaksRemain) return Verdict::kLeaks;
  if (code == box::kAllSuppressed) return Verdict::kClean;
  return ReportByOurselves(result);
}

}  // namespace heapflare::recorder
