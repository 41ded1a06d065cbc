#include "lib/pprof/live_error.h"

#include <algorithm>

#include "lib/base/elementary.h"
#include "lib/box/totals.h"

namespace heapflare::pprof {
namespace {

constexpr double kLargest = 0x1p63;

// The lowest and highest interval that the box remembers; 0, which is "off", took no samples.
struct Intervals {
  uint64_t lowest = 0;
  uint64_t highest = 0;

  void Add(uint64_t interval) {
    if (interval == 0) return;
    lowest = lowest == 0 ? interval : std::min(lowest, interval);
    highest = std::max(highest, interval);
  }
};

Intervals Remembered(const box::Reader& box) {
  Intervals intervals;
  intervals.Add(box.header().configured_interval);
  intervals.Add(box.header().interval);
  const box::Reader::Range range = box.events();
  box::Event event = {};
  for (uint64_t number = range.first; number < range.end; ++number) {
    if (!box.event(number, &event)) continue;
    const auto kind = static_cast<box::EventKind>(event.kind);
    if (kind != box::EventKind::kIntervalChanged && kind != box::EventKind::kThinned) continue;
    intervals.Add(event.a);
    intervals.Add(event.b);
  }
  return intervals;
}

}  // namespace

LiveError::LiveError(const box::Reader& box)
    : samples_(static_cast<double>(box::SumTallies(box.header()).samples_live())) {
  const Intervals intervals = Remembered(box);
  lowest_.interval = static_cast<double>(intervals.lowest);
  highest_.interval = static_cast<double>(intervals.highest);
}

void LiveError::AtInterval::Add(double objects, double bytes) {
  // Exact mode takes everything, with p = 1.
  const double size = bytes / objects;
  const double p = interval <= 1 ? 1 : base::OneMinusExp((size + 1) / interval);
  variance += bytes * (size / p - size);
  samples += objects * p;
}

void LiveError::Add(const box::StackView& stack) {
  if (stack.live_objects == 0) return;
  const double objects =
      static_cast<double>(stack.live_objects) / (uint64_t{1} << box::kObjectShift);
  const double bytes = static_cast<double>(stack.live_bytes) / (uint64_t{1} << box::kByteShift);
  live_bytes_ += bytes;
  lowest_.Add(objects, bytes);
  highest_.Add(objects, bytes);
}

uint64_t LiveError::Bytes() const {
  const double range = lowest_.samples - highest_.samples;
  // Where both take the same blocks they have the same variance.
  const double part = range > 0 ? std::clamp((lowest_.samples - samples_) / range, 0.0, 1.0) : 0.0;
  const double variance = lowest_.variance + (highest_.variance - lowest_.variance) * part;
  return static_cast<uint64_t>(std::min(base::SquareRoot(variance) + 0.5, kLargest));
}

void LiveError::AddPercent(base::TextWriter* text) const {
  if (live_bytes_ < 1) {
    text->Add("0 %");
    return;
  }
  const double percent = static_cast<double>(Bytes()) / live_bytes_ * 100;
  const auto tenths = static_cast<uint64_t>(std::min(percent * 10 + 0.5, kLargest));
  if (tenths == 0 && percent > 0) {
    text->Add("<0.1 %");
  } else if (tenths >= 100) {
    text->AddNumber((tenths + 5) / 10).Add(" %");
  } else {
    text->AddNumber(tenths / 10).Add('.').AddNumber(tenths % 10).Add(" %");
  }
}

}  // namespace heapflare::pprof
