"""Whether a sampled profile agrees with a ledger.

Statistically: within 4 standard errors, which are computed from the sizes that were live. A right
profiler fails that once in 16,000 comparisons.
"""

import math

MIB = 1 << 20
STANDARD_ERRORS = 4
# The C++ runtime, standard streams and threads allocate a little that the ledger does not know of.
BACKGROUND = 128 << 10


def compare(name, estimate, truth, variance, slack, problems):
    """The difference in standard errors; beyond the limit, it is a problem."""
    # The fixed-point weights of samples round by less than this share.
    slack += truth * 1e-4
    beyond = max(0.0, abs(estimate - truth) - slack)
    errors = beyond / math.sqrt(variance) if variance > 0 else math.inf if beyond else 0.0
    if errors > STANDARD_ERRORS:
        problems.append(
            f"{name}: the profile says {estimate / MIB:.2f} MiB, the ledger {truth / MIB:.2f} "
            f"MiB: {errors:.1f} standard errors apart"
        )
    return math.copysign(errors, estimate - truth)


def compare_total(estimate, ledger, interval, processes, problems):
    """All that a ledger has, of so many processes, with what their profiles have."""
    total = ledger.total()
    background = BACKGROUND * processes
    variance = total.variance(interval) + background * interval
    slack = background + sum(ledger.undecided.values())
    return compare("all", estimate, total.bytes, variance, slack, problems)
