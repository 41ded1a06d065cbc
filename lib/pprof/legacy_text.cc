#include "lib/pprof/legacy_text.h"

#include "lib/base/text.h"
#include "lib/pprof/addresses.h"

namespace heapflare::pprof {
namespace {

// 512 frames of 19 characters fit, and a path of 4 KiB of which each character takes four. Readers
// refuse lines of 64 KiB.
using Line = base::Text<20 << 10>;
constexpr size_t kMostPath = 4095;

void PadTo(size_t width, uint64_t value, Line* line) {
  base::Text<24> digits;
  digits.AddNumber(value);
  for (size_t i = digits.size(); i < width; ++i) line->Add(' ');
  line->Add(digits.view());
}

// "%6d: %8d [%6d: %8d] @"
void Counts(uint64_t live_objects, uint64_t live_bytes, uint64_t objects, uint64_t bytes,
            Line* line) {
  PadTo(6, live_objects, line);
  line->Add(": ");
  PadTo(8, live_bytes, line);
  line->Add(" [");
  PadTo(6, objects, line);
  line->Add(": ");
  PadTo(8, bytes, line);
  line->Add("] @");
}

// A line ends where it should, whatever the box says: a newline as the kernel writes it.
void AddPath(std::string_view path, Line* line) {
  for (const char c : path) {
    if (c == '\n') {
      line->Add("\\012");
    } else {
      line->Add(c);
    }
  }
}

bool Put(Line* line, Sink* sink) {
  line->Add('\n');
  return sink->Write(line->c_str(), line->size());
}

}  // namespace

bool EncodeLegacyText(const box::Reader& box, Sink* sink) {
  const Addresses addresses(box);
  box::StackView stack = {};
  uint64_t sums[4] = {};
  for (uint64_t i = 0; i < box.stack_count(); ++i) {
    if (!box.stack(i, &stack)) continue;
    sums[0] += box::WholeObjects(stack.live_objects);
    sums[1] += box::WholeBytes(stack.live_bytes);
    sums[2] += box::WholeObjects(stack.allocated_objects);
    sums[3] += box::WholeBytes(stack.allocated_bytes);
  }
  Line line;
  line.Add("heap profile: ");
  Counts(sums[0], sums[1], sums[2], sums[3], &line);
  line.Add(" heapprofile");
  if (!Put(&line, sink)) return false;

  for (uint64_t i = 0; i < box.stack_count(); ++i) {
    if (!box.stack(i, &stack) || stack.allocated_objects == 0) continue;
    line.Clear();
    Counts(box::WholeObjects(stack.live_objects), box::WholeBytes(stack.live_bytes),
           box::WholeObjects(stack.allocated_objects), box::WholeBytes(stack.allocated_bytes),
           &line);
    for (uint32_t k = 0; k < stack.depth; ++k) {
      box::Location location = {};
      uint64_t address = 0;
      if (!box.location(stack.frames[k], &location)) continue;
      addresses.Resolve(stack.frames[k], location, &address);
      line.Add(" 0x").AddHex(address + 1);
    }
    if (!Put(&line, sink)) return false;
  }

  line.Clear();
  line.Add("\nMAPPED_LIBRARIES:");
  if (!Put(&line, sink)) return false;
  for (uint64_t i = 0; i < addresses.modules(); ++i) {
    box::ModuleView module = {};
    box.module(i, &module);
    const uint64_t moved = addresses.Moved(i);
    line.Clear();
    line.AddHex(module.start + moved, 8).Add('-').AddHex(module.limit + moved, 8).Add(" r-xp ");
    line.AddHex(module.file_offset, 8).Add(' ');
    line.AddHex(module.device >> 32, 2).Add(':').AddHex(module.device & 0xffffffff, 2).Add(' ');
    line.AddNumber(module.inode).Add(' ');
    AddPath(module.path.substr(0, kMostPath), &line);
    if (!Put(&line, sink)) return false;
  }
  return true;
}

}  // namespace heapflare::pprof
