#include "lib/recorder/modules.h"

#include <sys/auxv.h>

#include <atomic>
#include <cstring>

#include "lib/base/maps_reader.h"
#include "lib/base/syscall.h"
#include "lib/recorder/brief_wait.h"
#include "lib/recorder/elf_image.h"
#include "lib/recorder/own_memory.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/thread_state.h"
#include "lib/recorder/tried_lock.h"
#include "lib/recorder/unwind_port.h"

namespace heapflare::recorder {
namespace {

using box::Atomic;
using box::Module;
using box::ModuleState;
using box::Standing;

// What is known of a module beyond its record; private, since only this process can use it.
struct Companion {
  uint64_t image;     // where the file's first byte is mapped; 0: not an ELF file
  uint64_t build_id;  // where that is mapped; 0: it never goes away, or has none
  bool seen;          // by the scan that is under way
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
constinit std::atomic<ObjectLookup> object_lookup = nullptr;
// The part of the loader's list that does not change any more.
constinit const link_map* first_object = nullptr;
constinit const link_map* last_first_object = nullptr;
constinit TriedLock scanning;
constinit std::atomic<int64_t> next_scan_by_hook = 0;
// Locations without a module below this index stay so.
constinit std::atomic<uint64_t> unplaced_before = 0;
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

bool Same(const Module& module, const base::MapsLine& line) {
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

uint64_t LocationCount() {
  return Atomic(mapping->header().regions[box::kLocations].used).load(std::memory_order_acquire);
}

// A module went, or came back: of what was met before nobody can say any more where it was.
void GiveUpPlacing() { unplaced_before.store(LocationCount(), std::memory_order_relaxed); }

// Whether the object with this load bias was there at the start: it is never unloaded.
bool WasThereFirst(uint64_t bias) {
  const link_map* object = first_object;
  while (object != nullptr && object->l_addr != bias && object != last_first_object) {
    object = object->l_next;
  }
  return object != nullptr && object->l_addr == bias;
}

// The module that this line was before it was unloaded, if it is the same file's.
bool Revive(const base::MapsLine& line, const Module& now, const Companion& companion) {
  const uint32_t count = Count();
  for (uint32_t i = 0; i < count; ++i) {
    Module& module = Modules()[i];
    if (Atomic(module.state).load(std::memory_order_acquire) !=
            static_cast<uint32_t>(ModuleState::kUnloaded) ||
        line.inode == 0 || !Same(module, line) || module.build_id_bytes != now.build_id_bytes ||
        memcmp(module.build_id, now.build_id, now.build_id_bytes) != 0) {
      continue;
    }
    companions[i] = companion;
    GiveUpPlacing();
    Atomic(module.state)
        .store(static_cast<uint32_t>(ModuleState::kLoaded), std::memory_order_release);
    return true;
  }
  return false;
}

bool Append(const base::MapsLine& line, uint64_t image_base) {
  Module found = {};
  ElfImage image = {};
  uint64_t build_id = 0;
  const bool is_elf = image_base != 0 && ReadElfImage(image_base, &image);
  if (is_elf) {
    found.build_id_bytes = ReadBuildId(image, found.build_id, sizeof(found.build_id), &build_id);
  }
  const bool stays = !is_elf || WasThereFirst(image.bias);
  const Companion companion = {
      .image = is_elf ? image_base : 0, .build_id = stays ? 0 : build_id, .seen = true};
  if (Revive(line, found, companion)) return true;

  const std::string_view path = line.path.empty() ? std::string_view("[anon]") : line.path;
  uint64_t index = 0;
  uint64_t text = 0;
  if (Count() == kMaxModules || !mapping->Take(box::kStrings, path.size(), &text) ||
      !mapping->Take(box::kModules, 1, &index)) {
    return false;
  }
  memcpy(mapping->Records<char>(box::kStrings) + text, path.data(), path.size());
  Module& module = Modules()[index];
  module.build_id_bytes = found.build_id_bytes;
  memcpy(module.build_id, found.build_id, sizeof(module.build_id));
  module.start = line.start;
  module.limit = line.limit;
  module.file_offset = line.offset;
  module.path_offset = static_cast<uint32_t>(text);
  module.path_bytes = static_cast<uint32_t>(path.size());
  module.device = line.device;
  module.inode = line.inode;
  companions[index] = companion;
  Atomic(module.state)
      .store(static_cast<uint32_t>(ModuleState::kLoaded), std::memory_order_release);
  return true;
}

// Marks the line's module as seen, or appends it. True if the table changed.
bool Note(const base::MapsLine& line, uint64_t image_base) {
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

struct Passed {
  bool changed;   // the table
  bool complete;  // all of the maps was read
};
// One pass over the maps. With `only_at` not zero, only the module that holds that address is
// noted.
Passed Pass(uint64_t only_at) {
  base::MapsReader reader(base::OpenOwnMaps(), line_buffer, sizeof(line_buffer));
  base::MapsLine line = {};
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
  return {.changed = changed, .complete = reader.complete()};
}

bool MarkGone() {
  bool changed = false;
  const uint32_t count = Count();
  for (uint32_t i = 0; i < count; ++i) {
    Module& module = Modules()[i];
    if (companions[i].seen || !Loaded(module)) continue;
    GiveUpPlacing();
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
  const uint64_t count = LocationCount();
  for (uint64_t i = unplaced_before.load(std::memory_order_relaxed); i < count; ++i) {
    const uint64_t pc = Atomic(locations[i].pc).load(std::memory_order_acquire);
    const auto module = Atomic(locations[i].module_plus_one);
    // Unless a hook does that at this moment.
    uint32_t none = 0;
    if (pc != 0 && module.load(std::memory_order_relaxed) == none) {
      module.compare_exchange_strong(none, Look(pc), std::memory_order_relaxed);
    }
  }
}

}  // namespace

void AttachModules(box::Mapping* of) {
  // First of all the main program, which readers expect as module 0. Nobody else is at it before the
  // box is open.
  mapping = of;
  const uint64_t holding = scanning.Try();
  const bool found = Pass(getauxval(AT_ENTRY)).changed;
  scanning.Release(holding);
  if (!found) return;  // no /proc: stacks keep their addresses, without modules
  ScanModules();
}

void DetachModules() {
  mapping = nullptr;
  scanning.Reset();
  unplaced_before.store(0, std::memory_order_relaxed);
  next_scan_by_hook.store(0, std::memory_order_relaxed);
}

void KeepModulesInChild() { scanning.Reset(); }

// False if another thread is at it.
static bool TryScanModules() {
  if (mapping == nullptr) return true;
  const uint64_t holding = scanning.Try();
  if (holding == 0) return false;
  for (uint32_t i = 0, count = Count(); i < count; ++i) companions[i].seen = false;
  const Passed passed = Pass(0);
  bool changed = passed.changed;
  // What a pass that failed half-way, or met a masked /proc, did not see is not believed to be gone.
  if (passed.complete && companions[0].seen) changed |= MarkGone();
  if (changed) {
    __atomic_fetch_add(&heapflare_unwind_generation, 1, __ATOMIC_RELEASE);
    PlaceLocations();
  }
  scanning.Release(holding);
  return true;
}

void ScanModules() {
  if (!TryScanModules()) scanning.EndIfAbandoned(base::MonotonicNanoseconds());
}

// Whether the module still is what is mapped at its place; if not, it is marked unloaded.
static Standing CheckModule(uint32_t module_plus_one) {
  Module& module = Modules()[module_plus_one - 1];
  if (!Loaded(module)) return Standing::kGone;
  const uint64_t at = companions[module_plus_one - 1].build_id;
  if (at == 0) return Standing::kStays;
  uint8_t now[box::kBuildIdBytes];
  if (ReadOwnMemory(at, now, module.build_id_bytes) &&
      memcmp(now, module.build_id, module.build_id_bytes) == 0) {
    return Standing::kHere;
  }
  GiveUpPlacing();
  Atomic(module.state)
      .store(static_cast<uint32_t>(ModuleState::kUnloaded), std::memory_order_release);
  __atomic_fetch_add(&heapflare_unwind_generation, 1, __ATOMIC_RELEASE);
  return Standing::kGone;
}

Standing CheckLocation(uint32_t location, uint32_t module_plus_one) {
  if (module_plus_one != 0) return CheckModule(module_plus_one);
  const bool placeable = location >= unplaced_before.load(std::memory_order_relaxed);
  return placeable ? Standing::kHere : Standing::kGone;
}

uint32_t FindModuleOf(uint64_t pc) {
  const uint32_t found = Look(pc);
  if (found != 0 && CheckModule(found) != Standing::kGone) return found;
  if (thread_state.cramped != 0 || !IsOwnProcessId()) return 0;
  // What the loader knows is found by the scan, so there is one for each library that comes. Other
  // code, a JIT compiler's, may be where no scan finds it in time.
  FoundObject object = {};
  const ObjectLookup lookup = object_lookup.load(std::memory_order_relaxed);
  const bool will_be_found =
      lookup != nullptr && lookup(reinterpret_cast<void*>(pc - 1), &object) == 0;
  if (!will_be_found && found == 0) {
    constexpr int64_t kPause = 100'000'000;
    const int64_t now = base::MonotonicNanoseconds();
    int64_t due = next_scan_by_hook.load(std::memory_order_relaxed);
    if (now < due || !next_scan_by_hook.compare_exchange_strong(due, now + kPause)) return 0;
  }
  // Another thread's scan may have passed this place already; it takes a fraction of a millisecond.
  WaitBriefly(20'000'000, TryScanModules);
  return Look(pc);
}

void RememberFirstObjects(void* list) {
  if (list == nullptr) return;
  first_object = static_cast<const r_debug*>(list)->r_map;
  last_first_object = first_object;
  while (last_first_object != nullptr && last_first_object->l_next != nullptr) {
    last_first_object = last_first_object->l_next;
  }
}

void UseObjectLookup(void* function) {
  object_lookup.store(reinterpret_cast<ObjectLookup>(function), std::memory_order_relaxed);
  // Where the kernel does not let us read our own memory, whatever was walked so far was walked by
  // guesses.
  __atomic_fetch_add(&heapflare_unwind_generation, 1, __ATOMIC_RELEASE);
}

int VisitObject(uint64_t ip, int (*callback)(dl_phdr_info*, size_t, void*), void* data) {
  dl_phdr_info info = {};
  FoundObject found = {};
  const ObjectLookup lookup = object_lookup.load(std::memory_order_relaxed);
  if (lookup != nullptr && lookup(reinterpret_cast<void*>(ip), &found) == 0) {
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
  // glibc before 2.35, or before our constructor: the module table, checked against what is in
  // memory now. A library that holds a frame of this very stack cannot be unloaded while we look.
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
