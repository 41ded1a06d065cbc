#include "lib/recorder/modules.h"

#include <sys/auxv.h>

#include <atomic>
#include <cstring>

#include "lib/base/syscall.h"
#include "lib/recorder/elf_image.h"
#include "lib/recorder/maps_reader.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/unwind_port.h"

namespace heapflare::recorder {
namespace {

using box::Atomic;
using box::Module;
using box::ModuleState;

// What is known of a module beyond its record; private, since only this process can use it.
struct Companion {
  uint64_t image;  // where the file's first byte is mapped; 0: not an ELF file
  bool seen;       // by the scan that is under way
};
constexpr uint32_t kMaxModules = 4096;

// glibc's struct dl_find_object (2.35); an ABI, so its layout is fixed.
struct FoundObject {
  unsigned long long flags;
  void* map_start;
  void* map_end;
  void* link_map;
  void* eh_frame_header;
  unsigned long long reserved[7];
};
using ObjectLookup = int (*)(void* pc, FoundObject* found);

constinit box::Mapping* mapping = nullptr;
constinit ObjectLookup object_lookup = nullptr;
constinit std::atomic<uint32_t> scanning = 0;  // a lock that is only ever tried
constinit std::atomic<int64_t> next_scan_by_hook = 0;
// Used by the scan alone.
constinit char line_buffer[8192];
constinit Companion companions[kMaxModules] = {};

Module* Modules() { return mapping->Records<Module>(box::kModules); }

uint32_t Count() {
  const uint64_t used =
      Atomic(mapping->header().regions[box::kModules].used).load(std::memory_order_acquire);
  return static_cast<uint32_t>(used < kMaxModules ? used : kMaxModules);
}

bool Loaded(Module& module) {
  return Atomic(module.state).load(std::memory_order_acquire) ==
         static_cast<uint32_t>(ModuleState::kLoaded);
}

bool Same(const Module& module, const MapsLine& line) {
  const std::string_view path(mapping->Records<char>(box::kStrings) + module.path_offset,
                              module.path_bytes);
  if (module.start != line.start || module.file_offset != line.offset ||
      module.device != line.device || module.inode != line.inode) {
    return false;
  }
  // Memory without a file may grow (a JIT compiler's); a file's segment does not.
  return line.inode == 0 ? line.limit >= module.limit
                         : line.limit == module.limit && path == line.path;
}

bool Append(const MapsLine& line, uint64_t image_base) {
  const std::string_view path = line.path.empty() ? std::string_view("[anon]") : line.path;
  uint64_t index = 0;
  uint64_t text = 0;
  if (Count() == kMaxModules || !mapping->Take(box::kStrings, path.size(), &text) ||
      !mapping->Take(box::kModules, 1, &index)) {
    return false;
  }
  memcpy(mapping->Records<char>(box::kStrings) + text, path.data(), path.size());
  Module& module = Modules()[index];
  ElfImage image = {};
  const bool is_elf = image_base != 0 && ReadElfImage(image_base, &image);
  module.build_id_bytes = is_elf ? ReadBuildId(image, module.build_id, sizeof(module.build_id)) : 0;
  module.start = line.start;
  module.limit = line.limit;
  module.file_offset = line.offset;
  module.path_offset = static_cast<uint32_t>(text);
  module.path_bytes = static_cast<uint32_t>(path.size());
  module.device = line.device;
  module.inode = line.inode;
  companions[index] = {.image = is_elf ? image_base : 0, .seen = true};
  Atomic(module.state)
      .store(static_cast<uint32_t>(ModuleState::kLoaded), std::memory_order_release);
  return true;
}

// Marks the line's module as seen, or appends it. True if the table changed.
bool Note(const MapsLine& line, uint64_t image_base) {
  const uint32_t count = Count();
  for (uint32_t i = 0; i < count; ++i) {
    Module& module = Modules()[i];
    if (companions[i].seen || !Loaded(module) || !Same(module, line)) continue;
    companions[i].seen = true;
    if (line.limit > module.limit) {
      Atomic(module.limit).store(line.limit, std::memory_order_relaxed);
    }
    return false;
  }
  return Append(line, image_base);
}

// One pass over the maps. With `only_at` not zero, only the module that holds that address is
// noted.
bool Pass(uint64_t only_at) {
  MapsReader reader(line_buffer, sizeof(line_buffer));
  MapsLine line = {};
  bool changed = false;
  // The latest mapping of a file's first byte: the segments of the same file that follow belong to
  // it.
  uint64_t image_base = 0;
  uint64_t image_device = 0;
  uint64_t image_inode = 0;
  while (reader.Next(&line)) {
    if (line.offset == 0 && (line.inode != 0 || line.path == "[vdso]")) {
      image_base = line.start;
      image_device = line.device;
      image_inode = line.inode;
    }
    if (!line.executable || line.path == "[vsyscall]") continue;
    const bool of_image = line.device == image_device && line.inode == image_inode;
    if (only_at == 0 || (only_at >= line.start && only_at < line.limit)) {
      changed |= Note(line, of_image ? image_base : 0);
    }
  }
  return changed;
}

bool MarkGone() {
  bool changed = false;
  const uint32_t count = Count();
  for (uint32_t i = 0; i < count; ++i) {
    Module& module = Modules()[i];
    if (companions[i].seen || !Loaded(module)) continue;
    Atomic(module.state)
        .store(static_cast<uint32_t>(ModuleState::kUnloaded), std::memory_order_release);
    changed = true;
  }
  return changed;
}

uint32_t Look(uint64_t pc) {
  const uint32_t count = Count();
  // The call, not the return address, which may be the first byte of something else.
  const uint64_t address = pc - 1;
  for (uint32_t i = 0; i < count; ++i) {
    Module& module = Modules()[i];
    if (!Loaded(module)) continue;
    if (address >= module.start && address < Atomic(module.limit).load(std::memory_order_relaxed)) {
      return i + 1;
    }
  }
  return 0;
}

// Locations that were met before their module was known.
void PlaceLocations() {
  auto* locations = mapping->Records<box::Location>(box::kLocations);
  const uint64_t count =
      Atomic(mapping->header().regions[box::kLocations].used).load(std::memory_order_acquire);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t pc = Atomic(locations[i].pc).load(std::memory_order_acquire);
    const auto module = Atomic(locations[i].module_plus_one);
    if (pc != 0 && module.load(std::memory_order_relaxed) == 0) {
      module.store(Look(pc), std::memory_order_relaxed);
    }
  }
}

}  // namespace

void AttachModules(box::Mapping* of) {
  mapping = of;
  scanning.store(1, std::memory_order_relaxed);
  // First of all the main program, which readers expect as module 0.
  const bool found = Pass(getauxval(AT_ENTRY));
  scanning.store(0, std::memory_order_release);
  if (!found) return;  // no /proc: stacks keep their addresses, without modules
  ScanModules();
}

void DetachModules() {
  mapping = nullptr;
  scanning.store(0, std::memory_order_relaxed);
  next_scan_by_hook.store(0, std::memory_order_relaxed);
}

void ScanModules() {
  if (mapping == nullptr || scanning.exchange(1, std::memory_order_acquire) != 0) return;
  const uint32_t count = Count();
  for (uint32_t i = 0; i < count; ++i) companions[i].seen = false;
  bool changed = Pass(0);
  // If /proc went away nothing was seen, and nothing is believed to be gone.
  if (count > 0 && companions[0].seen) changed |= MarkGone();
  if (changed) {
    __atomic_fetch_add(&heapflare_unwind_generation, 1, __ATOMIC_RELEASE);
    PlaceLocations();
  }
  scanning.store(0, std::memory_order_release);
}

uint32_t FindModuleOf(uint64_t pc) {
  uint32_t found = Look(pc);
  if (found != 0) return found;
  constexpr int64_t kPause = 100'000'000;
  const int64_t now = base::MonotonicNanoseconds();
  int64_t due = next_scan_by_hook.load(std::memory_order_relaxed);
  if (now < due || !IsOwnProcessId() ||
      !next_scan_by_hook.compare_exchange_strong(due, now + kPause)) {
    return 0;
  }
  ScanModules();
  return Look(pc);
}

void UseObjectLookup(void* function) { object_lookup = reinterpret_cast<ObjectLookup>(function); }

int VisitObject(uint64_t ip, int (*callback)(dl_phdr_info*, size_t, void*), void* data) {
  dl_phdr_info info = {};
  if (object_lookup != nullptr) {
    FoundObject found = {};
    if (object_lookup(reinterpret_cast<void*>(ip), &found) != 0) return 0;
    // The two headers that the unwinder looks for, as the loader knows them.
    const auto start = reinterpret_cast<uint64_t>(found.map_start);
    ElfW(Phdr) headers[2] = {};
    headers[0].p_type = PT_LOAD;
    headers[0].p_memsz = reinterpret_cast<uint64_t>(found.map_end) - start;
    headers[1].p_type = PT_GNU_EH_FRAME;
    headers[1].p_vaddr = reinterpret_cast<uint64_t>(found.eh_frame_header) - start;
    info.dlpi_addr = start;
    info.dlpi_phdr = headers;
    info.dlpi_phnum = found.eh_frame_header == nullptr ? 1 : 2;
    return callback(&info, sizeof(info), data);
  }
  // glibc before 2.35: the module table, checked against what is in memory now. A library that
  // holds a frame of this very stack cannot be unloaded while we look.
  const uint32_t module = mapping == nullptr ? 0 : FindModuleOf(ip + 1);
  ElfImage image = {};
  if (module == 0 || companions[module - 1].image == 0 ||
      !ReadElfImage(companions[module - 1].image, &image)) {
    return 0;
  }
  info.dlpi_addr = image.bias;
  info.dlpi_phdr = image.headers;
  info.dlpi_phnum = static_cast<ElfW(Half)>(image.header_count);
  return callback(&info, sizeof(info), data);
}

}  // namespace heapflare::recorder
