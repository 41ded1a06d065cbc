#include "lib/leakcheck/leak_list.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_format.h"
#include "lib/base/parse.h"
#include "lib/box/leak_list.h"
#include "lib/pprof/gzip.h"
#include "lib/profile/fd_sink.h"
#include "lib/target/files.h"

namespace heapflare::leakcheck {
namespace {

constexpr size_t kMostBytes = size_t{1} << 30;

bool Number(std::string_view text, uint64_t* value) {
  const auto number = base::ParseNumber(text);
  if (number) *value = *number;
  return number.has_value();
}
bool Hex(std::string_view text, uint64_t* value) {
  const auto number = base::ParseHex(text);
  if (number) *value = *number;
  return number.has_value();
}

// Up to `most` words; the last one is the rest.
std::vector<std::string_view> Words(std::string_view text, size_t most) {
  std::vector<std::string_view> words;
  std::string_view word;
  while (words.size() + 1 < most && base::TakeUntil(' ', &text, &word)) words.push_back(word);
  if (!text.empty()) words.push_back(text);
  return words;
}

class Builder {
 public:
  explicit Builder(LeakList* list) : list_(list), profile_(list->profile) {
    String("");
    for (const auto& [type, unit] :
         {std::pair("leaked_objects", "count"), {"leaked_space", "bytes"}}) {
      profile::ValueType* const value = profile_.add_sample_type();
      value->set_type(String(type));
      value->set_unit(String(unit));
    }
    profile_.set_default_sample_type(String("leaked_space"));
    evidence_ = String("evidence");
  }

  bool Take(std::string_view line) {
    std::string_view word = line.substr(0, line.find(' '));
    std::string_view rest = word.size() == line.size() ? "" : line.substr(word.size() + 1);
    if (word == "program") return Program(rest);
    if (word == "directory") return list_->directory = rest, true;
    if (word == "suppressions") return list_->suppressions = rest, true;
    if (word == "module") return Module(rest);
    if (word == "leak") return Leak(rest);
    return false;
  }

 private:
  int64_t String(std::string_view text) {
    const auto [entry, is_new] = strings_.emplace(text, profile_.string_table_size());
    if (is_new) profile_.add_string_table(std::string(text));
    return entry->second;
  }

  bool Program(std::string_view rest) {
    const std::vector<std::string_view> words = Words(rest, 3);
    list_->program = words.size() == 3 ? words[2] : "";
    return words.size() == 3 && Number(words[0], &list_->pid) && Number(words[1], &list_->start);
  }

  bool Module(std::string_view rest) {
    const std::vector<std::string_view> words = Words(rest, 5);
    uint64_t start = 0;
    uint64_t limit = 0;
    uint64_t offset = 0;
    if (words.size() != 5 || !Hex(words[0], &start) || !Hex(words[1], &limit) ||
        !Hex(words[2], &offset) || start >= limit) {
      return false;
    }
    profile::Mapping* const mapping = profile_.add_mapping();
    mapping->set_id(static_cast<uint64_t>(profile_.mapping_size()));
    mapping->set_memory_start(start);
    mapping->set_memory_limit(limit);
    mapping->set_file_offset(offset);
    if (words[3] != "-") mapping->set_build_id(String(words[3]));
    mapping->set_filename(String(words[4]));
    return true;
  }

  bool Leak(std::string_view rest) {
    const std::vector<std::string_view> words = Words(rest, SIZE_MAX);
    uint64_t objects = 0;
    uint64_t bytes = 0;
    if (words.size() < 3 || (words[0] != "direct" && words[0] != "indirect") ||
        !Number(words[1], &objects) || !Number(words[2], &bytes)) {
      return false;
    }
    profile::Sample* const sample = profile_.add_sample();
    sample->add_value(static_cast<int64_t>(objects));
    sample->add_value(static_cast<int64_t>(bytes));
    profile::Label* const label = sample->add_label();
    label->set_key(evidence_);
    label->set_str(String(words[0]));
    for (size_t i = 3; i < words.size(); ++i) {
      uint64_t pc = 0;
      if (!Hex(words[i], &pc) || pc == 0) return false;
      // A return address belongs to the call before it.
      sample->add_location_id(Location(pc - 1));
    }
    return true;
  }

  uint64_t Location(uint64_t address) {
    const auto [entry, is_new] = locations_.emplace(address, 0);
    if (is_new) {
      profile::Location* const location = profile_.add_location();
      entry->second = static_cast<uint64_t>(profile_.location_size());
      location->set_id(entry->second);
      location->set_address(address);
      // The one that was loaded last, if several were there.
      for (const profile::Mapping& mapping : profile_.mapping()) {
        if (address >= mapping.memory_start() && address < mapping.memory_limit()) {
          location->set_mapping_id(mapping.id());
        }
      }
    }
    return entry->second;
  }

  LeakList* list_;
  profile::Profile& profile_;
  absl::flat_hash_map<std::string, int64_t> strings_;
  absl::flat_hash_map<uint64_t, uint64_t> locations_;
  int64_t evidence_ = 0;
};

}  // namespace

bool IsDirect(const profile::Profile& profile, const profile::Sample& sample) {
  for (const profile::Label& label : sample.label()) {
    if (profile.string_table(static_cast<int>(label.key())) == "evidence") {
      return profile.string_table(static_cast<int>(label.str())) == "direct";
    }
  }
  return false;
}

absl::StatusOr<LeakList> ParseList(std::string_view text) {
  LeakList list;
  Builder builder(&list);
  bool ended = false;
  int number = 0;
  for (std::string_view line; base::TakeUntil('\n', &text, &line);) {
    ++number;
    if (number == 1 && line != box::kLeakListHead) {
      return absl::DataLossError("stdin: not a list of leaks");
    }
    if (number == 1 || ended) continue;
    if (line == "end") {
      ended = true;
    } else if (!line.empty() && !builder.Take(line)) {
      return absl::DataLossError(absl::StrFormat("stdin: line %d is damaged", number));
    }
  }
  if (!ended) return absl::DataLossError("stdin: the list of leaks is not complete");
  return list;
}

absl::StatusOr<LeakList> ReadList(int fd) {
  std::string text;
  char buffer[64 << 10];
  for (;;) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return target::FileError("stdin", "cannot be read", errno);
    if (got == 0) break;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kMostBytes) return absl::DataLossError("stdin: too long");
  }
  return ParseList(text);
}

absl::StatusOr<std::string> WriteProfile(const LeakList& list) {
  // As the recorder makes it for its dumps.
  mkdir(list.directory.c_str(), 0700);
  const std::string path = absl::StrFormat("%s/%s.%d.%d.leaks.pb.gz", list.directory, list.program,
                                           list.pid, list.start);
  auto file = target::NewFile::Create(path);
  if (!file.ok()) return file.status();
  const std::string bytes = list.profile.SerializeAsString();
  profile::FdSink sink(file->fd());
  const auto gzip = std::make_unique<pprof::Gzip>();
  const bool written = gzip->Begin(&sink) && gzip->Write(bytes.data(), bytes.size()) &&
                       gzip->Finish() && sink.Flush();
  if (!written) return target::FileError(path, "cannot be written", sink.error());
  return file->TakeFreeName(".pb.gz");
}

}  // namespace heapflare::leakcheck
