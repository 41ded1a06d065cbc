// lib/recorder/settings: the environment of a process, as /proc/PID/environ has it.
#include <signal.h>

#include <vector>

#include "lib/base/parse.h"
#include "lib/box/format.h"
#include "lib/recorder/settings.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

using recorder::Metric;
using recorder::Rung;
using recorder::Settings;

std::vector<std::string>* reports = nullptr;

void Report(std::string_view line) { reports->emplace_back(line); }

Settings Parse(std::string_view environment, std::vector<std::string>* lines) {
  reports = lines;
  Settings settings;
  recorder::ParseSettings(environment, &settings, Report);
  return settings;
}

bool Same(const Settings& a, const Settings& b) {
  for (uint32_t i = 0; i < a.rung_count; ++i) {
    if (a.rungs[i].bytes != b.rungs[i].bytes || a.rungs[i].percent != b.rungs[i].percent) {
      return false;
    }
  }
  return a.rung_count == b.rung_count && a.dump_directory.view() == b.dump_directory.view() &&
         a.box_directory.view() == b.box_directory.view() &&
         a.sample_interval == b.sample_interval && a.limit == b.limit && a.metric == b.metric &&
         a.eta_seconds == b.eta_seconds && a.signal == b.signal &&
         a.dump_at_exit == b.dump_at_exit && a.programs.view() == b.programs.view() &&
         a.keep == b.keep && a.box_bytes == b.box_bytes && a.box_mode == b.box_mode &&
         a.max_stack == b.max_stack && a.verbose == b.verbose;
}

// The environment that asks for these settings.
std::string Format(const Settings& settings) {
  std::string text;
  const auto add = [&text](const char* name, const std::string& value) {
    text += std::string("HEAPFLARE_") + name + "=" + value + std::string(1, 0);
  };
  add("DIR", settings.dump_directory.c_str());
  add("BOX_DIR", settings.box_directory.c_str());
  add("SAMPLE_INTERVAL", std::to_string(settings.sample_interval));
  std::string rungs;
  for (uint32_t i = 0; i < settings.rung_count; ++i) {
    const Rung& rung = settings.rungs[i];
    char item[32];
    snprintf(item, sizeof(item), "%u.%02u%%", rung.percent / 100, rung.percent % 100);
    rungs += (i == 0 ? "" : ",") + (rung.percent == 0 ? std::to_string(rung.bytes) : item);
  }
  add("THRESHOLDS", rungs);
  if (settings.limit != 0) add("LIMIT", std::to_string(settings.limit));
  constexpr const char* kMetrics[] = {"working_set", "usage", "rss"};
  add("METRIC", kMetrics[static_cast<int>(settings.metric)]);
  add("ETA", std::to_string(settings.eta_seconds));
  if (settings.signal >= 34) add("SIGNAL", "SIGRTMIN+" + std::to_string(settings.signal - 34));
  // libc calls it POLL.
  if (settings.signal == SIGIO) {
    add("SIGNAL", "IO");
  } else if (settings.signal > 0 && settings.signal < 32) {
    add("SIGNAL", sigabbrev_np(settings.signal));
  }
  add("DUMP_AT_EXIT", settings.dump_at_exit ? "1" : "0");
  add("PROGRAMS", settings.programs.c_str());
  add("KEEP", std::to_string(settings.keep));
  add("BOX_SIZE", std::to_string(settings.box_bytes));
  char mode[16];
  snprintf(mode, sizeof(mode), "%04o", settings.box_mode);
  add("BOX_MODE", mode);
  add("MAX_STACK", std::to_string(settings.max_stack));
  add("VERBOSE", settings.verbose ? "1" : "0");
  return text;
}

void CanBeUsed(const Settings& settings) {
  for (const std::string_view path :
       {settings.dump_directory.view(), settings.box_directory.view()}) {
    Require(path.empty() || path[0] == '/', "directories are absolute");
    Require(path.size() <= 3800, "and leave room for a name");
  }
  Require(settings.rung_count <= recorder::kMaxRungs, "no more rungs than there is room for");
  for (uint32_t i = 0; i < settings.rung_count; ++i) {
    const Rung& rung = settings.rungs[i];
    Require((rung.bytes == 0) != (rung.percent == 0), "a rung is bytes or a percentage");
    Require(rung.percent <= 10000, "of the whole at most");
  }
  Require(settings.sample_interval <= uint64_t{1} << 40, "the interval is sane");
  Require(
      settings.box_bytes >= box::kMinimumFileBytes && settings.box_bytes <= box::kMaximumFileBytes,
      "a box can be that large");
  Require((settings.box_mode & ~0777u) == 0 && (settings.box_mode & 0600) == 0600,
          "the owner can use the box");
  Require(settings.keep >= 1 && settings.keep <= 1000, "a number of dumps to keep");
  Require(settings.max_stack >= 1 && settings.max_stack <= box::kMaxFrames, "frames of a stack");
  Require(settings.signal >= 0 && settings.signal <= 64 && settings.signal != SIGKILL &&
              settings.signal != SIGSEGV,
          "a signal that can be taken");
}

bool NamesPlainly(std::string_view list, std::string_view name) {
  bool any = false;
  while (true) {
    const size_t end = list.find(',');
    const std::string_view item = base::TrimSpace(list.substr(0, end));
    any = any || item == name;
    if (end == std::string_view::npos) return any;
    list.remove_prefix(end + 1);
  }
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  const Alone environment(bytes);
  std::vector<std::string> lines;
  const Settings settings = Parse(environment.view(), &lines);
  CanBeUsed(settings);
  for (const std::string& line : lines) {
    Require(line.starts_with("HEAPFLARE_"), "a report names the variable first");
    Require(line.find("; using ") != std::string::npos || line.ends_with("; ignored"),
            "and says at the end what is done");
    for (const char c : line) {
      Require(static_cast<uint8_t>(c) >= 0x20 && c != 0x7f, "it is one line of text");
    }
  }
  std::vector<std::string> none;
  Require(Same(Parse(Format(settings), &none), settings),
          "what was understood can be written down");
  Require(none.empty(), "and is understood without a report");

  Input input(bytes);
  const std::string_view name = base::TrimSpace(input.Bytes(input.Take<uint8_t>() % 8));
  const std::string_view list = settings.programs.view();
  if (!name.empty() && name.find(',') == std::string_view::npos) {
    Require(recorder::NamesProgram(list, name) ==
                (base::TrimSpace(list).empty() || NamesPlainly(list, name)),
            "a program is named or not");
  }
}

}  // namespace heapflare::fuzz
