// Logarithm, exponential and square root without libm, which the recorder does not link: as exact
// as the statistics of sampling need.
#pragma once

namespace heapflare::base {

// Natural logarithm of x > 0, normal; relative error below 1e-14.
double Log(double x);

// 1 - exp(-x) for x >= 0; relative error below 1e-13, also for tiny x.
double OneMinusExp(double x);

// 0 for what has no square root or is not normal; else relative error below 1e-15.
double SquareRoot(double x);

}  // namespace heapflare::base
