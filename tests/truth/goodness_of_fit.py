"""Whether numbers that should be standard normal are: three tests, each of which a true standard
normal fails with a probability of at most alpha.

`faults` gives what is wrong in words, nothing if nothing is.
"""

import math
from statistics import NormalDist

NORMAL = NormalDist()


def mean_limit(count, alpha):
    """Of |mean|: the mean of independent standard normals is normal with variance 1/count."""
    return NORMAL.inv_cdf(1 - alpha / 2) / math.sqrt(count)


def variance_limits(count, alpha):
    """Of the mean square: chi-square with `count` degrees of freedom, divided by them, after
    Wilson & Hilferty (1931), which is off by less than 1 % from 50 degrees of freedom on."""
    spread = 2 / (9 * count)
    return tuple(
        max(0.0, 1 - spread + NORMAL.inv_cdf(q) * math.sqrt(spread)) ** 3
        for q in (alpha / 2, 1 - alpha / 2))


def distance(values):
    """Kolmogorov and Smirnov's, from the standard normal."""
    count = len(values)
    largest = 0.0
    for i, value in enumerate(sorted(values)):
        cdf = NORMAL.cdf(value)
        largest = max(largest, cdf - i / count, (i + 1) / count - cdf)
    return largest


def distance_limit(count, alpha):
    """By the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart, for every count."""
    return math.sqrt(math.log(2 / alpha) / (2 * count))


def mean_square(values):
    return sum(value * value for value in values) / len(values)


def faults(values, alpha):
    count = len(values)
    mean, square, far = sum(values) / count, mean_square(values), distance(values)
    low, high = variance_limits(count, alpha)
    found = []
    if not abs(mean) <= mean_limit(count, alpha):
        found.append(f"biased: mean error {mean:+.3f}, limit {mean_limit(count, alpha):.3f}")
    if not low <= square <= high:
        found.append(f"mean square {square:.3f}, limits {low:.3f} and {high:.3f}")
    if not far <= distance_limit(count, alpha):
        found.append(f"distance from normal {far:.3f}, limit {distance_limit(count, alpha):.3f}")
    return found
