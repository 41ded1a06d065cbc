#include "lib/recorder/settings.h"

#include <signal.h>
#include <sys/mman.h>

#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/box/format.h"

extern "C" char** environ;

namespace heapflare::recorder {
namespace {

using base::ParseNumber;
using base::ParseSize;
using base::TextWriter;

// A parser returns what is wrong with the value, in words that follow "VARIABLE: ", or nothing said
// if it is right; then, and only then, it has changed the settings.
using Parse = void (*)(std::string_view value, Settings* settings, TextWriter* problem);

// What was found, as far as a line has room for it. It comes from outside: in the service's log it
// may not begin a line of its own.
void AddFound(std::string_view text, TextWriter* to) {
  constexpr size_t kMost = 100;
  to->AddPrintable(text.substr(0, kMost));
  if (text.size() > kMost) to->Add("...");
}

void ParseDirectory(std::string_view value, base::Path* path, TextWriter* problem) {
  // Room for a file name in it.
  if (value.empty() || value[0] != '/' || value.size() > 3800) {
    problem->Add("not an absolute path");
    return;
  }
  // A slash at the end would follow a symlink, which is not to be used.
  while (value.size() > 1 && value.back() == '/') value.remove_suffix(1);
  path->Clear();
  path->Add(value);
}

// Used at the program's end, in the working directory that it has then: so only an absolute path is
// sure to name the same file.
void ParseFile(std::string_view value, base::Path* path, TextWriter* problem) {
  if (value[0] != '/' || value.size() > 4000) {
    problem->Add("not an absolute path");
    return;
  }
  path->Clear();
  path->Add(value);
}

void ParseSizeUpTo(std::string_view value, uint64_t least, uint64_t most, uint64_t* bytes,
                   TextWriter* problem) {
  const std::optional<uint64_t> size = ParseSize(value);
  if (!size) {
    problem->Add("not a size (as 524288, 512KiB, 64MB, 1.5GiB)");
  } else if (*size < least || *size > most) {
    problem->Add("not between ").AddSize(least).Add(" and ").AddSize(most);
  } else {
    *bytes = *size;
  }
}

void ParseNumberUpTo(std::string_view value, uint64_t least, uint64_t most, uint64_t* number,
                     TextWriter* problem) {
  const std::optional<uint64_t> parsed = ParseNumber(value);
  if (!parsed || *parsed < least || *parsed > most) {
    problem->Add("not a number from ").AddNumber(least).Add(" to ").AddNumber(most);
  } else {
    *number = *parsed;
  }
}

void ParseSwitch(std::string_view value, bool* on, TextWriter* problem) {
  if (value == "1") {
    *on = true;
  } else if (value == "0") {
    *on = false;
  } else {
    problem->Add("neither 0 nor 1");
  }
}

bool ParseRung(std::string_view item, Rung* rung) {
  if (!item.empty() && item.back() == '%') {
    // "92.5" as 92 and 5 tenths; hundredths are what is kept.
    std::string_view number = item.substr(0, item.size() - 1);
    std::string_view whole;
    if (!base::TakeUntil('.', &number, &whole)) return false;
    const std::optional<uint64_t> percent = ParseNumber(whole);
    uint64_t hundredths = 0;
    if (item.find('.') != std::string_view::npos) {
      const std::optional<uint64_t> fraction = ParseNumber(number);
      if (!fraction || number.size() > 2) return false;
      hundredths = number.size() == 1 ? *fraction * 10 : *fraction;
    }
    if (!percent || *percent > 100) return false;
    const uint64_t sum = *percent * 100 + hundredths;
    if (sum == 0 || sum > 10000) return false;
    *rung = {.bytes = 0, .percent = static_cast<uint32_t>(sum)};
    return true;
  }
  const std::optional<uint64_t> size = ParseSize(item);
  if (!size || *size == 0) return false;
  *rung = {.bytes = *size, .percent = 0};
  return true;
}

void ParseThresholds(std::string_view value, Settings* settings, TextWriter* problem) {
  Rung rungs[kMaxRungs];
  uint32_t count = 0;
  uint32_t item_number = 0;
  for (std::string_view item; base::TakeUntil(',', &value, &item);) {
    ++item_number;
    if (count == kMaxRungs) {
      problem->Add("more than ").AddNumber(kMaxRungs).Add(" items");
      return;
    }
    if (!ParseRung(base::TrimSpace(item), &rungs[count])) {
      problem->Add('\'');
      AddFound(item, problem);
      problem->Add("' at item ").AddNumber(item_number);
      problem->Add(": not a percentage or a size");
      return;
    }
    ++count;
  }
  for (uint32_t i = 0; i < count; ++i) settings->rungs[i] = rungs[i];
  settings->rung_count = count;
}

void ParseMetric(std::string_view value, Settings* settings, TextWriter* problem) {
  if (value == "working_set") {
    settings->metric = Metric::kWorkingSet;
  } else if (value == "usage") {
    settings->metric = Metric::kUsage;
  } else if (value == "rss") {
    settings->metric = Metric::kRss;
  } else {
    problem->Add("none of working_set, usage, rss");
  }
}

void ParseSignal(std::string_view value, Settings* settings, TextWriter* problem) {
  struct Named {
    std::string_view name;
    int number;
  };
  static constexpr Named kSignals[] = {{"USR1", SIGUSR1},   {"USR2", SIGUSR2}, {"HUP", SIGHUP},
                                       {"QUIT", SIGQUIT},   {"URG", SIGURG},   {"IO", SIGIO},
                                       {"WINCH", SIGWINCH}, {"PWR", SIGPWR},   {"ALRM", SIGALRM}};
  std::string_view name = value;
  if (name.substr(0, 3) == "SIG") name.remove_prefix(3);
  for (const Named& named : kSignals) {
    if (named.name == name) {
      settings->signal = named.number;
      return;
    }
  }
  // The kernel's real-time signals are 32 to 64; libc keeps the first two for itself.
  constexpr int kFirst = 34;
  constexpr int kLast = 64;
  if (name == "RTMIN" || name == "RTMAX") {
    settings->signal = name == "RTMIN" ? kFirst : kLast;
    return;
  }
  if (name.substr(0, 6) == "RTMIN+" || name.substr(0, 6) == "RTMAX-") {
    const std::optional<uint64_t> offset = ParseNumber(name.substr(6));
    if (offset && *offset <= kLast - kFirst) {
      settings->signal =
          name[3] == 'I' ? kFirst + static_cast<int>(*offset) : kLast - static_cast<int>(*offset);
      return;
    }
  }
  problem->Add("not a signal such as USR2 or RTMIN+3");
}

void ParseMode(std::string_view value, Settings* settings, TextWriter* problem) {
  uint32_t mode = 0;
  for (const char c : value) {
    if (c < '0' || c > '7' || mode > 0777) {
      mode = 0;
      break;
    }
    mode = mode * 8 + static_cast<uint32_t>(c - '0');
  }
  constexpr uint32_t kOthersWrite = 022;
  if ((mode & 0600) != 0600 || mode > 0777) {
    problem->Add("not a file mode such as 0600 or 0640");
  } else if ((mode & kOthersWrite) != 0) {
    // Who can cut a mapped file short can end the process with SIGBUS.
    problem->Add("lets others write, who could end the program by that");
  } else {
    settings->box_mode = mode;
  }
}

struct Variable {
  std::string_view name;
  std::string_view default_text;  // for the message
  Parse parse;
};

constexpr uint64_t kTiB = uint64_t{1} << 40;

constexpr Variable kVariables[] = {
    {"HEAPFLARE_DIR", "/tmp/heapflare-UID",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseDirectory(value, &settings->dump_directory, problem);
     }},
    {"HEAPFLARE_BOX_DIR", "/dev/shm/heapflare-UID",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseDirectory(value, &settings->box_directory, problem);
     }},
    {"HEAPFLARE_SAMPLE_INTERVAL", "512KiB",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseSizeUpTo(value, 0, kTiB, &settings->sample_interval, problem);
     }},
    {"HEAPFLARE_THRESHOLDS", "80%,90%,95%", ParseThresholds},
    {"HEAPFLARE_LIMIT", "what the cgroup says",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseSizeUpTo(value, 1 << 20, kTiB << 10, &settings->limit, problem);
     }},
    {"HEAPFLARE_METRIC", "working_set", ParseMetric},
    {"HEAPFLARE_ETA", "0",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseNumberUpTo(value, 0, 86400, &settings->eta_seconds, problem);
     }},
    {"HEAPFLARE_SIGNAL", "none", ParseSignal},
    {"HEAPFLARE_DUMP_AT_EXIT", "0",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseSwitch(value, &settings->dump_at_exit, problem);
     }},
    {"HEAPFLARE_PROGRAMS", "all",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       base::Text<1024> list(value);
       if (list.truncated()) {
         problem->Add("longer than 1023 characters");
       } else {
         settings->programs = list;
       }
     }},
    {"HEAPFLARE_KEEP", "10",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       uint64_t keep = settings->keep;
       ParseNumberUpTo(value, 1, 1000, &keep, problem);
       settings->keep = static_cast<uint32_t>(keep);
     }},
    {"HEAPFLARE_BOX_SIZE", "16MiB",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseSizeUpTo(value, box::kMinimumFileBytes, box::kMaximumFileBytes, &settings->box_bytes,
                     problem);
     }},
    {"HEAPFLARE_BOX_MODE", "0600", ParseMode},
    {"HEAPFLARE_MAX_STACK", "64",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       uint64_t frames = settings->max_stack;
       ParseNumberUpTo(value, 1, box::kMaxFrames, &frames, problem);
       settings->max_stack = static_cast<uint32_t>(frames);
     }},
    {"HEAPFLARE_VERBOSE", "0",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseSwitch(value, &settings->verbose, problem);
     }},
    {"HEAPFLARE_LEAK_CHECK", "0",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseSwitch(value, &settings->leak_check, problem);
     }},
    {"HEAPFLARE_LEAK_EXIT_CODE", "23",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       uint64_t code = settings->leak_exit_code;
       ParseNumberUpTo(value, 0, 255, &code, problem);
       settings->leak_exit_code = static_cast<uint32_t>(code);
     }},
    {"HEAPFLARE_LEAK_SUPPRESSIONS", "none",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseFile(value, &settings->leak_suppressions, problem);
     }},
    {"HEAPFLARE_COMMAND", "the one beside the library",
     [](std::string_view value, Settings* settings, TextWriter* problem) {
       ParseFile(value, &settings->leak_command, problem);
     }},
};

void ParseVariable(std::string_view name, std::string_view value, Settings* settings,
                   ReportProblem report) {
  for (const Variable& variable : kVariables) {
    if (variable.name != name) continue;
    // As if it were not set; an empty list of thresholds means something else: none.
    if (value.empty() && name != "HEAPFLARE_THRESHOLDS") return;
    base::Text<512> problem;
    variable.parse(value, settings, &problem);
    if (problem.size() == 0) return;
    base::Text<1024> line(name);
    line.Add(": ");
    // A list names the item itself.
    if (problem.c_str()[0] != '\'') {
      line.Add('\'');
      AddFound(value, &line);
      line.Add("': ");
    }
    line.Add(problem.view()).Add("; using ").Add(variable.default_text);
    report(line.view());
    return;
  }
  // Set for the command, not for the recorder.
  if (name == "HEAPFLARE_LIBRARY" || name == "HEAPFLARE_SYMBOL_CACHE") return;
  base::Text<512> line;
  AddFound(name, &line);
  report(line.Add(": no such variable; ignored").view());
}

}  // namespace

void ParseSettings(std::string_view environment, Settings* settings, ReportProblem report) {
  for (std::string_view entry; base::TakeUntil('\0', &environment, &entry);) {
    if (entry.starts_with("VALGRIND_LAUNCHER=")) settings->under_valgrind = true;
    std::string_view name;
    if (entry.substr(0, 10) != "HEAPFLARE_" || !base::TakeUntil('=', &entry, &name)) continue;
    ParseVariable(name, entry, settings, report);
  }
  // A leak check must know every block.
  if (settings->leak_check) settings->sample_interval = 1;
}

void ReadSettings(Settings* settings, ReportProblem report) {
  // Linux bounds argument strings together with the environment to a quarter of the stack limit, 6
  // MiB at most unless that is raised; what is beyond is not read.
  constexpr size_t kCapacity = 8 << 20;
  void* memory = base::Map(nullptr, kCapacity, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  long bytes = 0;
  if (memory != nullptr) {
    bytes = base::ReadFile("/proc/self/environ", memory, kCapacity);
    if (bytes > 0) {
      ParseSettings({static_cast<char*>(memory), static_cast<size_t>(bytes)}, settings, report);
    }
    base::Unmap(memory, kCapacity);
  }
  // Without /proc what libc knows has to do.
  if (bytes > 0 || environ == nullptr) return;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    ParseSettings(*entry, settings, report);
  }
}

bool NamesProgram(std::string_view list, std::string_view name) {
  if (base::TrimSpace(list).empty()) return true;
  for (std::string_view item; base::TakeUntil(',', &list, &item);) {
    if (base::TrimSpace(item) == name) return true;
  }
  return false;
}

}  // namespace heapflare::recorder
