"""Hazard estimate: how likely a task is to leave its phase at each age. Pure statistics; used by `adaptive` alone.

A poll only shows that a task left its phase at some age between two polls. Each observed end is therefore spread over
the bins of age between those polls. All ages are seconds since the phase began.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate, pairwise

#: Bins of age: the first ends at 0.1 s, each next one is 6 % wider, the last ends at ten hours. Older ages aren't
#: counted.
BINS = 220
EDGES = (0.0, *(0.1 * 1.06**n for n in range(BINS)))
WIDTHS = tuple(end - start for start, end in pairwise(EDGES))
#: A bin's hazard is averaged over as many neighbouring bins as it takes to hold `SMOOTHING_ENDS` ends, at most
#: `SMOOTHING_BINS` on each side.
SMOOTHING_ENDS, SMOOTHING_BINS = 5, 4
#: The prior of a bin's hazard: this many ends for one task that was at risk for the whole bin.
PRIOR = 0.08


class HazardEstimate:
    """The hazard h of one phase, constant within each bin of age.

    `ended` holds the ends in each bin. `exposure` holds the tasks at risk in each bin; a task that was in the phase for
    a part of the bin counts by that part. `update` computes the rest from these: `ends`, the sum of `ended`;
    `cumulative_hazard`, ∫ h dt up to each edge; and `cumulative_rate`, ∫ √(weight · h) dt up to each edge, which is
    proportional to the best number of polls.
    """

    def __init__(self) -> None:
        self.ended = [0.0] * BINS
        self.exposure = [0.0] * BINS
        self.ends = 0.0
        self.cumulative_hazard = self.cumulative_rate = (0.0,) * (BINS + 1)

    def add(self, earlier: float, age: float, *, left: bool) -> None:
        """Count a task between two polls: it stayed in the phase from `earlier` to `age`, or `left` it in between."""
        covered: list[tuple[int, float]] = []
        for n in range(bisect_right(EDGES, earlier) - 1, BINS):
            start, end = max(earlier, EDGES[n]), min(age, EDGES[n + 1])
            if start >= end:
                break
            covered.append((n, (end - start) / WIDTHS[n]))
        if not left:
            for n, part in covered:
                self.exposure[n] += part
            return
        # The end is spread in proportion to the hazard as last estimated. The prior is added to each bin, so that a
        # wrong estimate can't confirm itself.
        weights = [part * (self.cumulative_hazard[n + 1] - self.cumulative_hazard[n] + PRIOR) for n, part in covered]
        remaining, total = 1.0, sum(weights)
        for (n, part), weight in zip(covered, weights, strict=True):
            ended = weight / total
            self.ended[n] += ended
            self.exposure[n] += part * (remaining - ended / 2)
            remaining -= ended

    def fade(self, factor: float) -> None:
        """Multiply all counts by `factor`, so that older tasks count less."""
        self.ended = [ended * factor for ended in self.ended]
        self.exposure = [exposure * factor for exposure in self.exposure]

    def update(self, weight: float) -> None:
        """Estimate the hazard from the counts. `weight` is what it costs to see an end of this phase late."""
        ended, exposure = (0.0, *accumulate(self.ended)), (0.0, *accumulate(self.exposure))
        hazards: list[float] = []
        for n in range(BINS):
            low, high = n, n + 1
            while ended[high] - ended[low] < SMOOTHING_ENDS and high - n <= SMOOTHING_BINS and high < BINS:
                low, high = max(low - 1, 0), high + 1
            hazards.append((ended[high] - ended[low] + PRIOR) / (exposure[high] - exposure[low] + 1))
        self.ends = ended[-1]
        self.cumulative_hazard = (0.0, *accumulate(hazards))
        rates = (math.sqrt(weight * hazard * width) for hazard, width in zip(hazards, WIDTHS, strict=True))
        self.cumulative_rate = (0.0, *accumulate(rates))

    def survival(self, age: float) -> float:
        """The share of the tasks that are still in this phase at `age`."""
        return math.exp(-_interpolate(self.cumulative_hazard, age))

    def quantile(self, share: float) -> float:
        """The age at which this share of the tasks has left the phase; at most the last edge."""
        return min(_interpolate_age(self.cumulative_hazard, -math.log1p(-share)), EDGES[-1])

    def age_after(self, age: float, step: float) -> float:
        """The age at which `cumulative_rate` is by `step` higher than at `age`; infinite past the last edge."""
        return _interpolate_age(self.cumulative_rate, _interpolate(self.cumulative_rate, age) + step)

    def mean_cumulative_rate(self) -> float:
        """`cumulative_rate` at the end of a task, on average: ∫ S·√(weight · h) dt, with the survival S."""
        rates = (end - start for start, end in pairwise(self.cumulative_rate))
        return sum(math.exp(-hazard) * rate for hazard, rate in zip(self.cumulative_hazard, rates, strict=False))


def _interpolate(values: tuple[float, ...], age: float) -> float:
    """The value at `age`, given the values at the edges."""
    n = min(bisect_right(EDGES, age), BINS) - 1
    return values[n] + (values[n + 1] - values[n]) * (age - EDGES[n]) / WIDTHS[n]


def _interpolate_age(values: tuple[float, ...], value: float) -> float:
    """The inverse of `_interpolate` for values that grow: the age at `value`; infinite past the last edge."""
    n = bisect_right(values, value) - 1
    return EDGES[n] + WIDTHS[n] * (value - values[n]) / (values[n + 1] - values[n]) if n < BINS else math.inf
