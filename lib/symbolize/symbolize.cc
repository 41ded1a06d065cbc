#include "lib/symbolize/symbolize.h"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "lib/profile/frames.h"
#include "lib/symbolize/module_symbols.h"
#include "lib/symbolize/perf_map.h"
#include "lib/symbolize/symbol_cache.h"

namespace heapflare::symbolize {
namespace {

std::string Demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  // "f", "i" and the like are types to the demangler, and functions to everybody else.
  return text != nullptr && name.starts_with("_") ? text.get() : name;
}

// Adds strings and functions, each once.
class Writer {
 public:
  explicit Writer(profile::Profile* profile) : profile_(profile) {
    for (int i = 0; i < profile->string_table_size(); ++i) {
      strings_.emplace(profile->string_table(i), i);
    }
    for (const profile::Function& function : profile->function()) {
      used_.insert(function.id());
    }
  }

  void AddLine(const Frame& frame, profile::Location* location) {
    profile::Line* const line = location->add_line();
    line->set_function_id(Function(frame));
    line->set_line(frame.line);
  }

 private:
  int64_t String(const std::string& text) {
    const auto [entry, is_new] = strings_.emplace(text, profile_->string_table_size());
    if (is_new) profile_->add_string_table(text);
    return entry->second;
  }

  uint64_t Function(const Frame& frame) {
    const auto [entry, is_new] =
        functions_.emplace(std::tuple(frame.system_name, frame.name, frame.file), 0);
    if (is_new) {
      profile::Function* const function = profile_->add_function();
      // The lowest that is free: those that are there may go up to the last number.
      while (used_.contains(next_function_)) ++next_function_;
      entry->second = next_function_++;
      function->set_id(entry->second);
      function->set_name(String(frame.name.empty() ? Demangled(frame.system_name) : frame.name));
      function->set_system_name(String(frame.system_name));
      function->set_filename(String(frame.file));
      function->set_start_line(frame.start_line);
    }
    return entry->second;
  }

  profile::Profile* profile_;
  absl::flat_hash_map<std::string, int64_t> strings_;
  absl::flat_hash_map<std::tuple<std::string, std::string, std::string>, uint64_t> functions_;
  absl::flat_hash_set<uint64_t> used_;  // ids of functions that were there before
  uint64_t next_function_ = 1;
};

// One mapping's symbols: from the cache, else from the file, which is opened when it is needed.
class ModuleReader {
 public:
  ModuleReader(Mapped mapped, const std::string& cache_directory)
      : mapped_(std::move(mapped)), cache_(cache_directory, mapped_.build_id) {}
  ~ModuleReader() { cache_.Save(); }
  ModuleReader(const ModuleReader&) = delete;
  ModuleReader& operator=(const ModuleReader&) = delete;

  Frames Find(uint64_t address) {
    const uint64_t offset = address - mapped_.start + mapped_.file_offset;
    if (const Frames* const known = cache_.Find(offset)) return *known;
    if (!opened_) {
      symbols_ = ModuleSymbols::Open(mapped_);
      opened_ = true;
    }
    if (symbols_ == nullptr) return {};
    Frames frames = symbols_->Find(address);
    // A symbol table is read in no time, and debug information may turn up later.
    if (symbols_->has_debug_info() && !frames.empty()) cache_.Add(offset, frames);
    return frames;
  }

 private:
  const Mapped mapped_;
  SymbolCache cache_;
  bool opened_ = false;
  std::unique_ptr<ModuleSymbols> symbols_;
};

}  // namespace

Result Symbolize(profile::Profile* profile, const Options& options) {
  // What is there already is read from a copy, since the original is changed on the way.
  const profile::Profile before = *profile;
  const profile::Frames names(before);
  // One module at a time is held open.
  absl::flat_hash_map<uint64_t, std::vector<int>> unnamed_of_mapping;
  for (int i = 0; i < before.location_size(); ++i) {
    if (before.location(i).line_size() > 0) continue;
    unnamed_of_mapping[before.location(i).mapping_id()].push_back(i);
  }
  std::vector<Frames> found(static_cast<size_t>(before.location_size()));
  for (const profile::Mapping& mapping : before.mapping()) {
    const auto locations = unnamed_of_mapping.find(mapping.id());
    if (locations == unnamed_of_mapping.end()) continue;
    ModuleReader module({.path = names.String(mapping.filename()),
                         .build_id = names.String(mapping.build_id()),
                         .start = mapping.memory_start(),
                         .limit = mapping.memory_limit(),
                         .file_offset = mapping.file_offset(),
                         .pid = options.pid},
                        options.cache_directory);
    for (const int i : locations->second) {
      found[static_cast<size_t>(i)] = module.Find(before.location(i).address());
    }
  }

  Result result;
  Writer writer(profile);
  std::optional<PerfMap> compiled;
  bool inlined = false;
  for (int i = 0; i < before.location_size(); ++i) {
    if (before.location(i).line_size() > 0) continue;
    Frames& frames = found[static_cast<size_t>(i)];
    if (frames.empty() && options.pid != 0) {
      if (!compiled) compiled.emplace(PerfMap::Of(options.pid));
      const std::string name = compiled->Find(before.location(i).address());
      if (!name.empty()) frames = {OnlyName(name)};
    }
    ++(frames.empty() ? result.unnamed : result.named);
    if (frames.empty()) {
      frames = {OnlyName(names.PlaceName(before.location(i)))};
    }
    inlined = inlined || frames.size() > 1;
    for (const Frame& frame : frames) writer.AddLine(frame, profile->mutable_location(i));
  }
  // Every location has a line now: nobody is to look for others and drop these.
  for (profile::Mapping& mapping : *profile->mutable_mapping()) {
    mapping.set_has_functions(true);
    mapping.set_has_filenames(true);
    mapping.set_has_line_numbers(true);
    if (inlined) mapping.set_has_inline_frames(true);
  }
  return result;
}

}  // namespace heapflare::symbolize
