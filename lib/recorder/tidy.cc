#include "lib/recorder/tidy.h"

#include <algorithm>
#include <cstring>

#include "lib/base/directory.h"
#include "lib/base/parse.h"
#include "lib/base/text.h"
#include "lib/recorder/places.h"
#include "lib/recorder/recorder.h"

namespace heapflare::recorder {
namespace {

constexpr std::string_view kSuffix = ".box";

// Reads the header of a box; false if it is none, or not this user's.
bool ReadHeader(const char* path, box::Header* header) {
  return base::ReadFile(path, header, sizeof(*header)) == sizeof(*header) &&
         header->magic == box::kMagic && header->version == box::kVersion &&
         header->uid == base::EffectiveUserId();
}

// Whether the process still lives; true when that cannot be told, as for one of another PID
// namespace, or where /proc does not tell one boot or namespace from another.
bool MayLive(const box::Header& header) {
  const box::Header& own = recorder.mapping.header();
  constexpr uint8_t kUnknownBoot[sizeof(own.boot_id)] = {};
  const bool boots_known = memcmp(header.boot_id, kUnknownBoot, sizeof(kUnknownBoot)) != 0 &&
                           memcmp(own.boot_id, kUnknownBoot, sizeof(kUnknownBoot)) != 0;
  if (boots_known && memcmp(header.boot_id, own.boot_id, sizeof(own.boot_id)) != 0) return false;
  if (header.pid_namespace != own.pid_namespace || own.pid_namespace == 0) return true;
  // Signal 0 tests for existence. A number that was used again keeps a dead one's box a while
  // longer.
  const long result = base::Syscall(SYS_kill, header.pid, 0);
  constexpr long kNoSuchProcess = -3;
  return result != kNoSuchProcess;
}

void Remove(base::Path* path) {
  base::Unlink(path->c_str());
  path->ShortenTo(path->size() - kSuffix.size());
  base::Unlink(path->Add(".ctl").c_str());
}

struct Dead {
  uint64_t opened_utc = 0;
  base::Text<160> name;
};

}  // namespace

bool ParseBoxName(std::string_view name, uint64_t* process) {
  if (name.size() <= kSuffix.size() || name.substr(name.size() - kSuffix.size()) != kSuffix) {
    return false;
  }
  name.remove_suffix(kSuffix.size());
  const size_t start = name.rfind('.');
  if (start == std::string_view::npos || start == 0) return false;
  const size_t dot = name.rfind('.', start - 1);
  if (dot == std::string_view::npos || dot == 0) return false;
  const auto number = base::ParseNumber(name.substr(dot + 1, start - dot - 1));
  if (!number || !base::ParseNumber(name.substr(start + 1))) return false;
  *process = *number;
  return true;
}

void RemovePredecessor() {
  // Asked of the kernel: a program that is not profiled has not marked its memory as its own.
  const auto self = static_cast<uint64_t>(base::ProcessId());
  base::Path directory;
  for (int choice = 0; BoxDirectory(recorder.settings, choice, &directory); ++choice) {
    base::ForEachEntry(directory.c_str(), [&](std::string_view name) {
      uint64_t process = 0;
      box::Header header = {};
      if (!ParseBoxName(name, &process) || process != self) return true;
      base::Path path(directory);
      path.Add('/').Add(name);
      // The one that was opened already, by an allocation before the constructors, is this image's.
      // The second in the name does not tell: the clock may have been set between the two.
      if (path.view() == recorder.box_path.view() || !ReadHeader(path.c_str(), &header) ||
          !WrittenBy(recorder.identity, header)) {
        return true;
      }
      Remove(&path);
      return false;
    });
  }
}

void RemoveBoxesOfTheDead() {
  const std::string_view own = recorder.box_path.view();
  const size_t slash = own.rfind('/');
  if (own.empty() || slash == std::string_view::npos) return;
  const base::Path directory(own.substr(0, slash));

  // The youngest so far, unordered; static because the thread's stack is small.
  static constinit Dead kept[kDeadBoxesKept] = {};
  int count = 0;
  base::ForEachEntry(directory.c_str(), [&](std::string_view name) {
    uint64_t process = 0;
    base::Path path(directory);
    path.Add('/').Add(name);
    box::Header header = {};
    if (name == own.substr(slash + 1) || !ParseBoxName(name, &process) || path.truncated() ||
        !ReadHeader(path.c_str(), &header) || MayLive(header)) {
      return true;
    }
    if (header.state == static_cast<uint32_t>(box::State::kClosed)) {
      Remove(&path);
      return true;
    }
    const Dead dead = {.opened_utc = header.opened_utc, .name = base::Text<160>(name)};
    if (count < kDeadBoxesKept) {
      kept[count++] = dead;
      return true;
    }
    Dead* oldest = std::min_element(kept, kept + count, [](const Dead& a, const Dead& b) {
      return a.opened_utc < b.opened_utc;
    });
    if (oldest->opened_utc < dead.opened_utc) {
      path.ShortenTo(directory.size() + 1);
      path.Add(oldest->name.view());
      *oldest = dead;
    }
    Remove(&path);
    return true;
  });
}

}  // namespace heapflare::recorder
