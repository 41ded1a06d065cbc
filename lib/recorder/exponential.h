// Logarithm and exponential without libm, which the recorder does not link: as exact as the sampler
// needs.
#pragma once

namespace heapflare::recorder {

// Natural logarithm of x > 0, normal; relative error below 1e-14.
double Log(double x);

// 1 - exp(-x) for x >= 0; relative error below 1e-13, also for tiny x.
double OneMinusExp(double x);

}  // namespace heapflare::recorder
