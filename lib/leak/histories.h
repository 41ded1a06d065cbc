// A box's live samples, gathered by stack, and the history of each stack for growth.h.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "lib/box/reader.h"
#include "lib/leak/growth.h"

namespace heapflare::leak {

// Blocks of one stack, estimated from samples.
struct Holding {
  uint32_t stack = 0;
  double bytes = 0;
  double objects = 0;
  double error = 0;  // one standard error of the bytes
  uint64_t samples = 0;
};

// The live samples of one stack.
struct StackSamples {
  Holding all;
  double squares = 0;  // of what each stands for, in bytes
  // Bytes that were born before look i and not before the one before it; the last: after all looks.
  std::array<double, box::kGrowthColumns + 1> born = {};

  // Those that the search called unreachable and that is still so.
  Holding called;
  double indirect_bytes = 0;
  uint32_t fewest_passes = 0;
  double oldest_called = 0;  // when it was born, seconds after the box was opened
};

class Histories {
 public:
  // Samples born earlier than `since` seconds ago are not among the called ones. The box outlives
  // this.
  Histories(const box::Reader& box, std::optional<double> since);

  const std::vector<StackSamples>& stacks() const { return stacks_; }
  History Of(const StackSamples& stack) const;

  // Seconds after the box was opened.
  double now() const { return now_; }
  uint32_t looks() const { return looks_; }
  double live_bytes() const { return live_bytes_; }

 private:
  void ReadLooks();
  void Add(const box::Sample& sample, double since);

  const box::Reader& box_;
  double now_ = 0;
  double live_bytes_ = 0;
  uint32_t looks_ = 0;
  double times_[box::kGrowthColumns] = {};
  uint32_t columns_[box::kGrowthColumns] = {};
  std::vector<StackSamples> stacks_;
  absl::flat_hash_map<uint32_t, size_t> places_;  // in stacks_
};

}  // namespace heapflare::leak
