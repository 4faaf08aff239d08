"""One-sided tests, exact where they can be, with `math` alone.

Each test returns the probability of data at least this bad under the hypothesis that the canary is
no worse. None becomes larger when the canary's data become worse, so a verdict cannot turn to its
favour.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

_NEGLIGIBLE = 1e-18


def fisher_greater(bad: int, of: int, baseline_bad: int, baseline_of: int) -> float:
    """Fisher's exact test that `bad` of `of` is no larger a share than that of the baseline.

    The upper tail of the hypergeometric distribution with all margins fixed (Agresti, Categorical
    Data Analysis, 3rd ed., section 3.5.1, pages 90-92). 1 where one side has no data.
    """
    total, all_bad = of + baseline_of, bad + baseline_bad
    if min(of, baseline_of) == 0:
        return 1.0

    def log_chance(x: int) -> float:
        return (
            _log_choose(of, x) + _log_choose(baseline_of, all_bad - x) - _log_choose(total, all_bad)
        )

    def growth(x: int) -> float:
        """chance(x + 1) / chance(x)."""
        return (of - x) * (all_bad - x) / ((x + 1) * (baseline_of - all_bad + x + 1))

    lowest, highest = max(0, all_bad - baseline_of), min(all_bad, of)
    return _upper_tail(bad, lowest, highest, log_chance, growth, all_bad * of / total)


def binomial_greater(bad: int, of: int, rate: float) -> float:
    """Exact binomial test that the share behind `bad` of `of` is at most `rate` (0 to 1).

    Small exactly where the lower bound of Clopper and Pearson (Biometrika 26, 1934, pages 404-413)
    lies above `rate`.
    """
    if rate <= 0 or rate >= 1 or of == 0:
        return 0.0 if rate <= 0 < bad else 1.0

    def log_chance(x: int) -> float:
        return _log_choose(of, x) + x * math.log(rate) + (of - x) * math.log1p(-rate)

    def growth(x: int) -> float:
        return (of - x) / (x + 1) * rate / (1 - rate)

    return _upper_tail(bad, 0, of, log_chance, growth, of * rate)


def mann_whitney_greater(canary: Sequence[float], baseline: Sequence[float]) -> float:
    """The rank test of Mann and Whitney that `canary` is not stochastically larger.

    By the normal approximation with a continuity correction (Annals of Mathematical Statistics 18,
    1947, pages 50-60; good from about eight values on each side). Ties count half; the variance is
    that without ties, which is the larger one, so that ties make the test more careful.
    """
    n, m = len(canary), len(baseline)
    if min(n, m) == 0:
        return 1.0
    ordered = sorted(baseline)
    wins = sum((bisect_left(ordered, x) + bisect_right(ordered, x)) / 2 for x in canary)
    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc((wins - n * m / 2 - 0.5) / deviation / math.sqrt(2)) / 2


def _upper_tail(
    start: int,
    lowest: int,
    highest: int,
    log_chance: Callable[[int], float],
    growth: Callable[[int], float],
    mean: float,
) -> float:
    """The sum of the chances of `start` and above, from the shorter side of `mean`."""
    if start <= lowest:
        return 1.0
    if start > mean:
        return min(1.0, _sum(start, highest, math.exp(log_chance(start)), growth))

    def shrink(steps: int) -> float:
        return 1 / growth(start - 2 - steps)

    first = math.exp(log_chance(start - 1))
    return max(0.0, 1 - _sum(0, start - 1 - lowest, first, shrink))


def _sum(start: int, stop: int, term: float, growth: Callable[[int], float]) -> float:
    total = term
    for x in range(start, stop):
        term *= growth(x)
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return total


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
