#include "lib/leak/histories.h"

#include <algorithm>
#include <cmath>

namespace heapflare::leak {
namespace {

constexpr double kSecond = 1e9;

double ToBytes(uint64_t weighted) {
  return static_cast<double>(weighted) / (uint64_t{1} << box::kByteShift);
}

// One more sample that stands for `stands_for` bytes.
void AddTo(const box::Sample& sample, double stands_for, Holding* holding) {
  const auto size = static_cast<double>(box::SizeOf(sample));
  holding->stack = sample.stack;
  holding->bytes += stands_for;
  holding->objects += static_cast<double>(sample.weight) / (uint64_t{1} << box::kObjectShift);
  // The variance, until the end: pprof/live_error.h.
  holding->error += stands_for * std::max(stands_for - size, 0.0);
  ++holding->samples;
}

}  // namespace

Histories::Histories(const box::Reader& box, std::optional<double> since) : box_(box) {
  const box::Header& header = box.header();
  now_ = static_cast<double>(std::max(header.heartbeat_mono, header.opened_mono) -
                             header.opened_mono) /
         kSecond;
  ReadLooks();
  box::Sample sample = {};
  for (uint64_t slot = 0; slot < box.sample_slots(); ++slot) {
    if (box.sample(slot, &sample)) Add(sample, since ? now_ - *since : 0);
  }
  for (StackSamples& stack : stacks_) {
    stack.all.error = std::sqrt(stack.all.error);
    stack.called.error = std::sqrt(stack.called.error);
    live_bytes_ += stack.all.bytes;
  }
  // The same in every run.
  std::sort(stacks_.begin(), stacks_.end(),
            [](const StackSamples& a, const StackSamples& b) { return a.all.stack < b.all.stack; });
  places_.clear();
}

void Histories::ReadLooks() {
  box::GrowthColumn columns[box::kGrowthColumns] = {};
  const uint32_t count = box_.growth_columns(columns);
  const box::Header& header = box_.header();
  // A look comes just before the heartbeat; one that is much later is not to be believed.
  constexpr double kMostAhead = 60;
  const double latest = now_ + kMostAhead;
  double before = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (columns[i].time_mono <= header.opened_mono) continue;
    const double time = static_cast<double>(columns[i].time_mono - header.opened_mono) / kSecond;
    if (time <= before || time > latest) continue;
    times_[looks_] = before = time;
    columns_[looks_++] = columns[i].number;
  }
  if (looks_ > 0) now_ = std::max(now_, before);
}

void Histories::Add(const box::Sample& sample, double since) {
  const auto [entry, is_new] = places_.emplace(sample.stack, stacks_.size());
  if (is_new) stacks_.emplace_back();
  StackSamples& stack = stacks_[entry->second];
  const double stands_for = ToBytes(box::WeightedBytes(box::SizeOf(sample), sample.weight));
  AddTo(sample, stands_for, &stack.all);
  stack.squares += stands_for * stands_for;
  // Stamps count whole tenths, and a look comes before the clock moves on (recorder/growth.h).
  uint32_t look = 0;
  while (look < looks_ && sample.born_tenths >= std::floor(times_[look] * 10)) ++look;
  stack.born[look] += stands_for;

  const uint32_t needed = std::max(box_.header().reach.passes_needed, 1U);
  const uint32_t passes = box::UnreachablePasses(sample);
  const double born = sample.born_tenths / 10.0;
  if (passes < needed || born < since) return;
  AddTo(sample, stands_for, &stack.called);
  if (box::IsIndirect(sample)) stack.indirect_bytes += stands_for;
  stack.fewest_passes = stack.called.samples == 1 ? passes : std::min(stack.fewest_passes, passes);
  stack.oldest_called = stack.called.samples == 1 ? born : std::min(stack.oldest_called, born);
}

History Histories::Of(const StackSamples& stack) const {
  History history;
  // When the box was opened there was nothing.
  history.moments.push_back({.time = 0, .live = 0, .kept = 0});
  double kept = 0;
  for (uint32_t i = 0; i < looks_; ++i) {
    kept += stack.born[i];
    history.moments.push_back(
        {.time = times_[i],
         .live = static_cast<double>(box_.growth(stack.all.stack, columns_[i])),
         .kept = kept});
  }
  const double live = stack.all.bytes;
  if (now_ > history.moments.back().time) {
    history.moments.push_back({.time = now_, .live = live, .kept = live});
  } else {
    history.moments.back() = {.time = now_, .live = live, .kept = live};
  }
  history.sample_bytes = live > 0 ? stack.squares / live : 0;
  box::StackView view = {};
  if (box_.stack(stack.all.stack, &view)) {
    history.freed = ToBytes(view.allocated_bytes - view.live_bytes);
  }
  return history;
}

}  // namespace heapflare::leak
