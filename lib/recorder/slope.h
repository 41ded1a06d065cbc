// How fast memory fills: bytes per second, averaged over about five seconds. Pure, not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>

namespace heapflare::recorder {

class Slope {
 public:
  // `value` bytes at `now`, ns, of a clock that does not go back. What comes less than a tenth of a
  // second after the last one is left out.
  void Update(uint64_t value, int64_t now) {
    constexpr double kSecond = 1e9;
    constexpr int64_t kShortest = 100'000'000;
    const int64_t elapsed = now - time_;
    if (time_ != 0 && elapsed < kShortest) return;
    if (time_ != 0) {
      const double seconds = static_cast<double>(elapsed) / kSecond;
      const double latest = (static_cast<double>(value) - static_cast<double>(value_)) / seconds;
      per_second_ += (latest - per_second_) * std::min(seconds / 5, 1.0);
    }
    time_ = now;
    value_ = value;
  }

  double per_second() const { return per_second_; }

 private:
  double per_second_ = 0;
  int64_t time_ = 0;
  uint64_t value_ = 0;
};

}  // namespace heapflare::recorder
