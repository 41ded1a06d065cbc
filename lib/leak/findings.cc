#include "lib/leak/findings.h"

#include <algorithm>
#include <cmath>

namespace heapflare::leak {
namespace {

// The last look at memory that knows what it is about.
void ReadLimit(const box::Reader& box, Findings* findings) {
  const box::Reader::Range range = box.recent();
  box::TimelinePoint point = {};
  for (uint64_t number = range.end; number > range.first && range.end - number < 16; --number) {
    if (!box.recent(number - 1, &point)) continue;
    findings->limit = point.limit;
    findings->working_set = point.working_set != box::kUnknown ? point.working_set : point.resident;
    return;
  }
}

std::optional<double> SecondsToLimit(const Findings& findings, const Growth& growth) {
  if (findings.limit == box::kUnknown || findings.working_set == box::kUnknown ||
      !(growth.slope > 0)) {
    return std::nullopt;
  }
  const uint64_t headroom = findings.limit - std::min(findings.limit, findings.working_set);
  return static_cast<double>(headroom) / growth.slope;
}

void JudgeGrowth(const Histories& histories, const Options& options, Findings* findings) {
  const double since = options.since ? findings->now - *options.since : 0;
  for (const StackSamples& stack : histories.stacks()) {
    const History history = histories.Of(stack);
    const Growth growth = Judge(history, since);
    ++findings->judged;
    ++findings->by_verdict[static_cast<size_t>(growth.verdict)];
    if (growth.verdict != Verdict::kGrows && growth.verdict != Verdict::kTooShort) continue;
    if (stack.all.bytes < static_cast<double>(options.min_bytes)) continue;
    const GrowthSuspect suspect = {
        .holding = stack.all,
        .growth = growth,
        .share = findings->live_bytes > 0 ? stack.all.bytes / findings->live_bytes : 0,
        .seconds_to_limit = SecondsToLimit(*findings, growth)};
    (growth.verdict == Verdict::kGrows ? findings->growing : findings->early).push_back(suspect);
  }
  const auto more_certain = [](const GrowthSuspect& a, const GrowthSuspect& b) {
    return a.growth.certain() > b.growth.certain();
  };
  std::stable_sort(findings->growing.begin(), findings->growing.end(), more_certain);
  std::stable_sort(findings->early.begin(), findings->early.end(), more_certain);
}

void ListUnreachable(const Histories& histories, const box::Reader& box, const Options& options,
                     Findings* findings) {
  box::StackView view = {};
  for (uint64_t i = 0; i < box.stack_count(); ++i) {
    if (box.stack(i, &view)) findings->false_leaks += view.false_leaks;
  }
  for (const StackSamples& stack : histories.stacks()) {
    if (stack.called.samples == 0) continue;
    if (!box.stack(stack.all.stack, &view)) continue;
    if (view.false_leaks > 0) {
      ++findings->suppressed;
      continue;
    }
    if (stack.called.bytes < static_cast<double>(options.min_bytes)) continue;
    findings->unreachable.push_back({.holding = stack.called,
                                     .indirect_bytes = stack.indirect_bytes,
                                     .fewest_passes = stack.fewest_passes,
                                     .oldest = findings->now - stack.oldest_called});
  }
  std::stable_sort(findings->unreachable.begin(), findings->unreachable.end(),
                   [](const UnreachableSuspect& a, const UnreachableSuspect& b) {
                     return a.holding.bytes > b.holding.bytes;
                   });
}

}  // namespace

Findings Find(const box::Reader& box, const Options& options) {
  const Histories histories(box, options.since);
  Findings findings;
  findings.now = histories.now();
  findings.looks = histories.looks();
  findings.live_bytes = histories.live_bytes();
  findings.reach = box.header().reach;
  ReadLimit(box, &findings);
  JudgeGrowth(histories, options, &findings);
  ListUnreachable(histories, box, options, &findings);
  return findings;
}

}  // namespace heapflare::leak
