#include "lib/symbolize/symbolize.h"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "lib/profile/frames.h"
#include "lib/symbolize/elf_symbols.h"

namespace heapflare::symbolize {
namespace {

std::string Demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return text != nullptr ? text.get() : name;
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

  int64_t String(const std::string& text) {
    const auto [entry, is_new] = strings_.emplace(text, profile_->string_table_size());
    if (is_new) profile_->add_string_table(text);
    return entry->second;
  }

  uint64_t Function(const std::string& name, const std::string& mangled, const std::string& file) {
    const auto [entry, is_new] = functions_.emplace(std::pair(mangled, file), 0);
    if (is_new) {
      profile::Function* const function = profile_->add_function();
      // The lowest that is free: those that are there may go up to the last number.
      while (used_.contains(next_function_)) ++next_function_;
      entry->second = next_function_++;
      function->set_id(entry->second);
      function->set_name(String(name));
      function->set_system_name(String(mangled));
      function->set_filename(String(file));
    }
    return entry->second;
  }

 private:
  profile::Profile* profile_;
  absl::flat_hash_map<std::string, int64_t> strings_;
  absl::flat_hash_map<std::pair<std::string, std::string>, uint64_t> functions_;
  absl::flat_hash_set<uint64_t> used_;  // ids of functions that were there before
  uint64_t next_function_ = 1;
};

}  // namespace

Result Symbolize(profile::Profile* profile) {
  // What is there already is read from a copy, since the original is changed on the way.
  const profile::Profile before = *profile;
  const profile::Frames frames(before);
  absl::flat_hash_map<uint64_t, std::unique_ptr<ElfSymbols>> files;
  for (const profile::Mapping& mapping : before.mapping()) {
    files[mapping.id()] =
        ElfSymbols::Open(frames.String(mapping.filename()), frames.String(mapping.build_id()),
                         mapping.memory_start(), mapping.file_offset());
  }

  Result result;
  Writer writer(profile);
  for (profile::Location& location : *profile->mutable_location()) {
    if (location.line_size() > 0) continue;
    const auto file = files.find(location.mapping_id());
    Symbol symbol;
    const bool found = file != files.end() && file->second != nullptr &&
                       file->second->Find(location.address(), &symbol);
    ++(found ? result.named : result.unnamed);
    if (!found) symbol.mangled = frames.PlaceName(location);
    profile::Line* const line = location.add_line();
    line->set_function_id(writer.Function(found ? Demangled(symbol.mangled) : symbol.mangled,
                                          symbol.mangled, symbol.file));
    line->set_line(symbol.line);
  }
  // Every location has a line now: nobody is to look for others and drop these.
  for (profile::Mapping& mapping : *profile->mutable_mapping()) {
    mapping.set_has_functions(true);
    mapping.set_has_filenames(true);
    mapping.set_has_line_numbers(true);
  }
  return result;
}

}  // namespace heapflare::symbolize
