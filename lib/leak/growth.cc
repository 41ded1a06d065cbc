#include "lib/leak/growth.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace heapflare::leak {
namespace {

constexpr double kSignificant = 4;   // standard errors: the slope
constexpr double kPartGrows = 1.5;   // a third
constexpr double kLateSlower = 2.5;  // the last third of life
constexpr double kEndSlower = 3.5;   // what is shorter
constexpr double kStaysLess = 2;     // what is kept of the first half
constexpr double kMaterial = 0.5;    // of what the line, or the time before, says
// Of a stack's life: what counts as start-up, and what the window leaves out.
constexpr double kStartUp = 1.0 / 6;
constexpr double kWarmUp = 1.0 / 3;
// Of the time from there on, the part that is late.
constexpr double kLate = 0.6;
constexpr double kShareOfWatched = 0.125;
constexpr size_t kFewestMoments = 4;

// Values are packed to this relative precision (lib/box/growth.h); evenly distributed.
constexpr double kRounding = 1.0 / 2048 / 1.7320508;

// The moments of one window, as differences between two of them.
class Window {
 public:
  Window(const History& history, size_t first) : all_(history.moments), first_(first) {
    sample_ = history.sample_bytes;
  }

  size_t first() const { return first_; }
  size_t last() const { return all_.size() - 1; }
  size_t size() const { return all_.size() - first_; }
  double Time(size_t i) const { return all_[i].time; }
  double Seconds(size_t a, size_t b) const { return all_[b].time - all_[a].time; }
  double Seconds() const { return Seconds(first_, last()); }
  double Grown(size_t a, size_t b) const { return all_[b].live - all_[a].live; }
  double Kept(size_t a, size_t b) const { return std::max(all_[b].kept - all_[a].kept, 0.0); }
  double Gone(size_t i) const { return std::max(all_[i].live - all_[i].kept, 0.0); }
  // Of Grown; `expected`: what it should be, where a small number came by chance. Of one sample at
  // least.
  double Variance(size_t a, size_t b, double expected = 0) const {
    return sample_ * (Gone(a) + Gone(b) + std::max({Kept(a, b), expected, sample_})) + Rounding(a) +
           Rounding(b);
  }
  double Rounding(size_t i) const {
    const double error = i == last() ? 0 : all_[i].live * kRounding;
    return error * error;
  }
  double sample() const { return sample_; }
  // The moment nearest to `time` between that of `from` and the last.
  size_t Between(size_t from, double time) const {
    size_t best = from + 1;
    for (size_t i = best; i < last(); ++i) {
      if (std::abs(Time(i) - time) < std::abs(Time(best) - time)) best = i;
    }
    return best;
  }
  size_t Near(double time) const { return Between(first_, time); }

  // By least squares; false: there are too few moments.
  bool Fit(double* slope, double* error) const;

 private:
  const std::vector<Moment>& all_;
  size_t first_;
  double sample_;
};

bool Window::Fit(double* slope, double* error) const {
  if (size() < kFewestMoments || !(Seconds() > 0)) return false;
  const auto weight = [this](size_t i) {
    return Seconds(i == first_ ? i : i - 1, i == last() ? i : i + 1);
  };
  double sum = 0;
  double mean = 0;
  for (size_t i = first_; i <= last(); ++i) {
    sum += weight(i);
    mean += weight(i) * Time(i);
  }
  mean /= sum;
  double spread = 0;
  for (size_t i = first_; i <= last(); ++i) spread += weight(i) * std::pow(Time(i) - mean, 2);
  const auto coefficient = [&](size_t i) { return weight(i) * (Time(i) - mean) / spread; };

  *slope = 0;
  double variance = std::pow(sample_ / Seconds(), 2);
  double tail = 0;  // of the coefficients from i on
  for (size_t i = last() + 1; i-- > first_;) {
    const double c = coefficient(i);
    tail += c;
    *slope += c * all_[i].live;
    variance += c * c * (sample_ * Gone(i) + Rounding(i));
    if (i > first_) variance += sample_ * Kept(i - 1, i) * tail * tail;
  }
  double chi2 = 0;
  for (size_t i = first_; i < last(); ++i) {
    const double expected = *slope * Seconds(i, i + 1);
    chi2 += std::pow(Grown(i, i + 1) - expected, 2) / Variance(i, i + 1, std::abs(expected));
  }
  const auto freedom = static_cast<double>(size() - 2);
  *error = std::sqrt(variance * std::max(chi2 / freedom, 1.0));
  return std::isfinite(*slope) && std::isfinite(*error) && *error > 0;
}

bool EachThirdGrows(const Window& window, size_t one, size_t two) {
  for (const auto& [a, b] : {std::pair(window.first(), one), {one, two}, {two, window.last()}}) {
    if (window.Grown(a, b) < kPartGrows * std::sqrt(window.Variance(a, b))) return false;
  }
  return true;
}

// `early`: where the pace is taken that the last third is compared with, as far as the middle.
bool LevelsOff(const Window& window, double slope, size_t early, size_t late) {
  const size_t last = window.last();
  const size_t middle = window.Between(early, (window.Time(early) + window.Time(last)) / 2);
  const auto pace = [&window](size_t a, size_t b) {
    return window.Grown(a, b) / window.Seconds(a, b);
  };
  const auto variance = [&window](size_t a, size_t b) {
    return window.Variance(a, b) / std::pow(window.Seconds(a, b), 2);
  };
  const double slower = pace(early, middle) - pace(late, last);
  if (pace(late, last) < kMaterial * pace(early, middle) &&
      slower > kLateSlower * std::sqrt(variance(early, middle) + variance(late, last))) {
    return true;
  }
  for (size_t i = late; i < last; ++i) {
    const double expected = slope * window.Seconds(i, last);
    const double grown = window.Grown(i, last);
    if (grown < kMaterial * expected &&
        expected - grown > kEndSlower * std::sqrt(window.Variance(i, last, expected))) {
      return true;
    }
  }
  return false;
}

bool TurnsOver(const Window& window, double slope) {
  const size_t first = window.first();
  const size_t middle = window.Near(window.Time(first) + window.Seconds() / 2);
  const double expected = slope * window.Seconds(first, middle);
  const double kept = window.Kept(first, middle);
  return kept < kMaterial * expected &&
         expected - kept > kStaysLess * std::sqrt(window.sample() * expected);
}

Growth JudgeWindow(const History& history, size_t first, size_t early) {
  const Window window(history, first);
  Growth growth;
  growth.since = window.Time(first);
  growth.bytes = window.Grown(first, window.last());
  if (!window.Fit(&growth.slope, &growth.error)) return growth;
  const size_t one =
      std::min(window.Near(window.Time(first) + window.Seconds() / 3), window.last() - 2);
  const size_t two = std::max(window.Near(window.Time(first) + window.Seconds() * 2 / 3), one + 1);
  const double life = window.Time(window.last()) - window.Time(early);
  const size_t late = window.Near(window.Time(early) + life * kLate);
  if (growth.slope < kSignificant * growth.error) {
    growth.verdict = Verdict::kSteady;
  } else if (LevelsOff(window, growth.slope, early, late)) {
    growth.verdict = Verdict::kLevelsOff;
  } else if (TurnsOver(window, growth.slope)) {
    growth.verdict = Verdict::kTurnsOver;
  } else if (!EachThirdGrows(window, one, two)) {
    growth.verdict = Verdict::kUneven;
  } else {
    growth.verdict = Verdict::kGrows;
  }
  return growth;
}

// The moment nearest to `time` and not before that of `from`.
size_t Nearest(const std::vector<Moment>& moments, size_t from, double time) {
  while (from + 1 < moments.size() &&
         std::abs(moments[from + 1].time - time) < std::abs(moments[from].time - time)) {
    ++from;
  }
  return from;
}

// It has begun to grow later, if its pace was less before.
bool BeganLater(const std::vector<Moment>& moments, size_t first, size_t later, double slope) {
  const double pace =
      (moments[later].live - moments[first].live) / (moments[later].time - moments[first].time);
  return pace < kMaterial * slope;
}

}  // namespace

Growth Judge(const History& history, double since) {
  const std::vector<Moment>& moments = history.moments;
  if (moments.size() < kFewestMoments || !(history.sample_bytes > 0)) return {};
  const double now = moments.back().time;
  // The last moment at which there was nothing yet: that is known, too.
  size_t born = 0;
  while (born + 1 < moments.size() && moments[born + 1].live <= 0 && moments[born + 1].kept <= 0) {
    ++born;
  }
  while (born + 1 < moments.size() && moments[born].time < since) ++born;
  const double life = now - moments[born].time;
  const size_t early = Nearest(moments, born, moments[born].time + life * kStartUp);
  const size_t first = Nearest(moments, early, moments[born].time + life * kWarmUp);

  Growth growth = JudgeWindow(history, first, early);
  const bool gives_back = history.freed > kMaterial * moments.back().live;
  for (size_t i = first + 1;
       !gives_back && growth.verdict != Verdict::kGrows && i + kFewestMoments <= moments.size();
       ++i) {
    const Growth later = JudgeWindow(history, i, i);
    if (later.verdict == Verdict::kGrows && BeganLater(moments, first, i, later.slope)) {
      growth = later;
    }
  }
  const double watched = now - moments.front().time;
  if (growth.verdict == Verdict::kGrows && now - growth.since < watched * kShareOfWatched) {
    growth.verdict = Verdict::kTooShort;
  }
  return growth;
}

const char* Name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGrows:
      return "grows";
    case Verdict::kUnseen:
      return "not seen long enough";
    case Verdict::kSteady:
      return "steady";
    case Verdict::kUneven:
      return "grew at once";
    case Verdict::kLevelsOff:
      return "levels off";
    case Verdict::kTurnsOver:
      return "turns over";
    case Verdict::kTooShort:
      return "too early to tell";
    case Verdict::kCount:
      break;
  }
  return "";
}

}  // namespace heapflare::leak
