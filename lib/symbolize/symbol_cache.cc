#include "lib/symbolize/symbol_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/profile/fd_sink.h"
#include "lib/symbolize/symbol_cache.pb.h"
#include "lib/target/files.h"

namespace heapflare::symbolize {
namespace {

constexpr uint32_t kVersion = 1;
constexpr size_t kMaximumBytes = 64 << 20;

bool IsHexadecimal(const std::string& text) {
  return !text.empty() && text.size() <= 128 &&
         std::ranges::all_of(text, [](unsigned char digit) { return std::isxdigit(digit) != 0; });
}

std::string Setting(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Each string once.
class Strings {
 public:
  explicit Strings(CachedModule* module) : module_(module) {}
  uint32_t Index(const std::string& text) {
    const auto [entry, is_new] = indexes_.emplace(text, module_->strings_size());
    if (is_new) module_->add_strings(text);
    return static_cast<uint32_t>(entry->second);
  }

 private:
  CachedModule* module_;
  absl::flat_hash_map<std::string, int> indexes_;
};

}  // namespace

std::string CacheDirectory() {
  if (const char* const set = std::getenv("HEAPFLARE_SYMBOL_CACHE")) return set;
  if (const std::string cache = Setting("XDG_CACHE_HOME"); !cache.empty()) {
    return cache + "/heapflare";
  }
  const std::string home = Setting("HOME");
  return home.empty() ? "" : home + "/.cache/heapflare";
}

SymbolCache::SymbolCache(const std::string& directory, const std::string& build_id) {
  if (directory.empty() || !IsHexadecimal(build_id)) return;
  directory_ = directory;
  path_ = absl::StrCat(directory, "/", build_id, ".symbols");
  const auto bytes = target::ReadWhole(path_, kMaximumBytes);
  CachedModule module;
  if (!bytes.ok() || !module.ParseFromString(*bytes) || module.version() != kVersion) return;
  const auto known = [&module](uint32_t index) {
    return index < static_cast<uint32_t>(module.strings_size());
  };
  for (const CachedPlace& place : module.places()) {
    Frames frames;
    for (const CachedFrame& frame : place.frames()) {
      if (!known(frame.system_name()) || !known(frame.name()) || !known(frame.file())) break;
      frames.push_back({.system_name = module.strings(static_cast<int>(frame.system_name())),
                        .name = module.strings(static_cast<int>(frame.name())),
                        .file = module.strings(static_cast<int>(frame.file())),
                        .line = frame.line(),
                        .start_line = frame.start_line()});
    }
    if (std::cmp_equal(frames.size(), place.frames_size()) && !frames.empty()) {
      places_[place.file_offset()] = std::move(frames);
    }
  }
}

const Frames* SymbolCache::Find(uint64_t file_offset) const {
  const auto found = places_.find(file_offset);
  return found == places_.end() ? nullptr : &found->second;
}

void SymbolCache::Add(uint64_t file_offset, Frames frames) {
  places_[file_offset] = std::move(frames);
  changed_ = true;
}

void SymbolCache::Save() const {
  if (!changed_ || path_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(directory_, ignored);
  auto file = target::NewFile::Create(path_);
  if (!file.ok()) return;
  CachedModule module;
  module.set_version(kVersion);
  Strings strings(&module);
  for (const auto& [offset, frames] : places_) {
    CachedPlace* const place = module.add_places();
    place->set_file_offset(offset);
    for (const Frame& frame : frames) {
      CachedFrame* const cached = place->add_frames();
      cached->set_system_name(strings.Index(frame.system_name));
      cached->set_name(strings.Index(frame.name));
      cached->set_file(strings.Index(frame.file));
      cached->set_line(frame.line);
      cached->set_start_line(frame.start_line);
    }
  }
  const std::string bytes = module.SerializeAsString();
  profile::FdSink sink(file->fd());
  if (!sink.Write(bytes.data(), bytes.size()) || !sink.Flush()) return;
  if (!file->Replace().ok()) return;
}

}  // namespace heapflare::symbolize
