// Whether what a stack holds grows and goes on growing: the mathematics of the evidence "growth".
//
// What is known of a stack. At some moments of the past t_1 < ... < t_n, the last of them now, its
// live bytes L_i, estimated from samples; and of each block that is sampled and lives now when it
// was allocated. So L_i has two parts: K_i, kept, was allocated before t_i and lives now; the rest,
// G_i = L_i - K_i, is gone. (Now, nothing is gone: G_n = 0.)
//
// The noise. One sample stands for u bytes; q = sum u^2 / sum u is what a sample of this stack
// stands for, the larger ones counting more. Allocations arrive at random and are sampled at
// random: the number of samples in any set of blocks is Poisson distributed, so that the bytes B
// of the set are known with a variance of q B. (It is the sum of u^2: sampling's share is
// u (u - s), see pprof/live_error.h, that of the arrivals u s. In exact mode only this one is
// left.) Of the difference between two moments a < b, what lived at both cancels. That is K_a at
// least; what was gone before now is taken to be different blocks. So
//     var(L_b - L_a) = q (G_a + G_b + K_b - K_a).
// This is exact at both ends: of a leak, where the series is a random walk and its increments are
// independent, and of churn, where every look finds different blocks; between them it errs to the
// careful side. A stack that holds a lot and neither takes nor gives has no noise at all.
//
// The slope is that of the line through the points of a window by least squares, each weighted with
// the time that it stands for (moments are dense near now): slope = sum c_i L_i with sum c_i = 0.
// A leak's best estimate would be the two ends alone, churn's all points; this loses a fifth of the
// variance at most, for a leak, and depends on nothing that is estimated. Its variance, in the above,
//     q (sum c_i^2 G_i + sum_i (K_i - K_{i-1}) (c_i + ... + c_n)^2),
// is multiplied by chi^2 per degree of freedom, if that is above 1, of the increments about the
// line: what does not grow evenly is not known so well. That is the standard error that is shown.
//
// The window is the last two thirds of the stack's life: warm-up is not growth. A stack that never
// gives back, or hardly, may also have begun to grow later: then the longest window is taken in
// which it does, if it grew less before. No window is shorter than an eighth of the time that the
// process was watched: what grows for a shorter time is a burst, or too early to tell.
//
// A stack grows like a leak, if
//   1. the slope is 4 standard errors or more                       not: churn, noise
//   2. each third of the window has grown by 1.5 standard errors    not: a step, a spike at the end
//   3. it does not level off. In the last 40 % of its life after the start-up (a sixth) it has not
//      grown at less than half the pace of the first half, by 2.5 standard errors; and no shorter
//      time up to now has grown by less than half of what the line says, by 3.5
//                                                        not: a cache that filled, a bounded pool
//   4. what was allocated in the first half of the window and lives is at least half of what the line
//      says, within 2 standard errors: it is memory that stays
//                                                        not: a sawtooth, more load of young blocks
// tests/unit/leak_growth_test.cc holds each to a rate of false answers.
//
// What it cannot know: a bounded pool that has not filled by half looks like a leak to this and to
// anybody; so does a cache that filled a moment ago, the longer the fewer samples it has (with 100, for
// a tenth of its life). A leak whose traffic ended looks like a cache that filled.
#pragma once

#include <cstdint>
#include <vector>

namespace heapflare::leak {

// A moment of a stack's history.
struct Moment {
  double time;  // seconds; ascending
  double live;  // bytes
  double kept;  // of these, what lives now; of the last moment all
};

struct History {
  std::vector<Moment> moments;  // the last is now
  double sample_bytes = 0;      // q
  double freed = 0;             // all that was ever given back, bytes
};

enum class Verdict {
  kGrows,
  kUnseen,     // fewer than three looks at it
  kSteady,     // 1. fails
  kUneven,     // 2.
  kLevelsOff,  // 3.
  kTurnsOver,  // 4.
  kTooShort,   // would be kGrows, but not for long enough
  kCount,
};

struct Growth {
  Verdict verdict = Verdict::kUnseen;
  double slope = 0;  // bytes a second, in the window
  double error = 0;  // one standard error of it
  double since = 0;  // when the window begins
  double bytes = 0;  // grown since
  // What growth there is for certain: suspects are ranked by it.
  double certain() const { return slope - 2 * error; }
};

// `since`: nothing that is older counts.
Growth Judge(const History& history, double since = 0);

// A word for people: "grows", "steady", ...
const char* Name(Verdict verdict);

}  // namespace heapflare::leak
