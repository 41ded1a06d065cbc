#include "lib/leakcheck/report.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/str_format.h"
#include "lib/profile/frames.h"
#include "lib/target/files.h"
#include "lib/target/human.h"

namespace heapflare::leakcheck {
namespace {

using profile::Frames;

// Of the stacks the largest are shown; all are in the profile.
constexpr size_t kMostStacks = 100;
constexpr int kMostFrames = 12;

struct Sum {
  uint64_t objects = 0;
  uint64_t bytes = 0;
  void Add(const profile::Sample& sample) {
    objects += static_cast<uint64_t>(sample.value(kObjects));
    bytes += static_cast<uint64_t>(sample.value(kBytes));
  }
};

std::string Amount(const Sum& sum) {
  return absl::StrFormat("%s in %d block%s", target::HumanSize(sum.bytes), sum.objects,
                         sum.objects == 1 ? "" : "s");
}

Suppression* Suppressing(const Frames& frames, const profile::Sample& sample,
                         Suppressions* suppressions) {
  for (const uint64_t id : sample.location_id()) {
    const profile::Location& location = frames.location(id);
    const profile::Mapping* const mapping = frames.mapping(location);
    std::vector<std::string> names;
    if (mapping != nullptr) names.emplace_back(frames.String(mapping->filename()));
    for (const profile::Line& line : location.line()) {
      const profile::Function& function = frames.function(line.function_id());
      names.emplace_back(frames.String(function.name()));
      names.emplace_back(frames.String(function.system_name()));
      names.emplace_back(frames.String(function.filename()));
    }
    for (const std::string& name : names) {
      if (Suppression* const found = suppressions->Find(name); found != nullptr) return found;
    }
  }
  return nullptr;
}

void AppendStack(const Frames& frames, const profile::Sample& sample, std::string* text) {
  int shown = 0;
  for (const uint64_t id : sample.location_id()) {
    if (shown++ == kMostFrames) {
      absl::StrAppendFormat(text, "      … %d more\n", sample.location_id_size() - kMostFrames);
      return;
    }
    const profile::Location& location = frames.location(id);
    if (location.line_size() == 0) {
      absl::StrAppendFormat(text, "      %s\n", frames.PlaceName(location));
    }
    for (const profile::Line& line : location.line()) {
      const profile::Function& function = frames.function(line.function_id());
      const std::string& file = frames.String(function.filename());
      absl::StrAppendFormat(text, "      %s", std::string(frames.String(function.name())));
      if (!file.empty())
        absl::StrAppendFormat(text, "  %s:%d", target::Basename(file), line.line());
      text->push_back('\n');
    }
  }
}

}  // namespace

Report MakeReport(LeakList* list, Suppressions* suppressions) {
  std::vector<profile::Sample> samples(list->profile.sample().begin(),
                                       list->profile.sample().end());
  Sum direct;
  Sum indirect;
  {
    const Frames frames(list->profile);
    std::erase_if(samples, [&](const profile::Sample& sample) {
      Suppression* const suppression = Suppressing(frames, sample, suppressions);
      if (suppression == nullptr) return false;
      suppression->objects += static_cast<uint64_t>(sample.value(kObjects));
      suppression->bytes += static_cast<uint64_t>(sample.value(kBytes));
      return true;
    });
    for (const profile::Sample& sample : samples) {
      (IsDirect(list->profile, sample) ? direct : indirect).Add(sample);
    }
    // Direct ones first: they bring the others with them.
    std::stable_sort(samples.begin(), samples.end(),
                     [&](const profile::Sample& a, const profile::Sample& b) {
                       const bool a_direct = IsDirect(list->profile, a);
                       const bool b_direct = IsDirect(list->profile, b);
                       if (a_direct != b_direct) return a_direct;
                       return a.value(kBytes) > b.value(kBytes);
                     });
  }
  list->profile.clear_sample();
  for (const profile::Sample& sample : samples) *list->profile.add_sample() = sample;

  Report report = {.leaks = !samples.empty(), .text = ""};
  std::string& text = report.text;
  if (report.leaks) {
    const Sum all = {.objects = direct.objects + indirect.objects,
                     .bytes = direct.bytes + indirect.bytes};
    absl::StrAppendFormat(&text, "heapflare: %s (pid %d) leaked %s: %d direct, %d indirect\n",
                          target::Printable(list->program), list->pid, Amount(all), direct.objects,
                          indirect.objects);
    const Frames frames(list->profile);
    for (size_t i = 0; i < samples.size() && i < kMostStacks; ++i) {
      Sum sum;
      sum.Add(samples[i]);
      absl::StrAppendFormat(&text, "\n  %s, %s\n", Amount(sum),
                            IsDirect(list->profile, samples[i]) ? "direct" : "indirect");
      AppendStack(frames, samples[i], &text);
    }
    if (samples.size() > kMostStacks) {
      absl::StrAppendFormat(&text, "\n  … and %d more stacks\n", samples.size() - kMostStacks);
    }
    text.push_back('\n');
  }
  for (const Suppression& suppression : suppressions->all()) {
    if (suppression.objects == 0) continue;
    absl::StrAppendFormat(
        &text, "%s suppressed: %s by leak:%s (%s:%d)\n", report.leaks ? " " : "heapflare:",
        Amount({.objects = suppression.objects, .bytes = suppression.bytes}), suppression.pattern,
        target::Basename(list->suppressions), suppression.line);
  }
  return report;
}

}  // namespace heapflare::leakcheck
