"""How likely tasks are to end at each age, counted from polls, which see only between which two of them it was.

Pure statistics, for `adaptive` alone. Ages are seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate, pairwise

#: Ages are counted in bins: one to 0.1 s, then each 6 % wider than the last, to ten hours. What is older isn't counted.
BINS = 220
EDGES = (0.0, *(0.1 * 1.06**n for n in range(BINS)))
WIDTHS = tuple(end - start for start, end in pairwise(EDGES))
#: A bin's hazard is that of as many bins around it as it takes to hold `SMOOTHING_ENDS` ends, at most
#: `SMOOTHING_BINS` on each side.
SMOOTHING_ENDS, SMOOTHING_BINS = 5, 4
#: What is believed of a bin before anything is seen: this many ends for one task that passes it.
PRIOR = 0.08


class HazardEstimate:
    """One phase of tasks: how many ended within each bin of age, how many passed it, and what follows from that.

    `ends`, `hazard` and `steps`, the last two being ∫ h dt and ∫ √(weight · h) dt up to each edge, are as of the
    last `update`.
    """

    def __init__(self) -> None:
        self.ended = [0.0] * BINS
        self.exposure = [0.0] * BINS
        self.ends = 0.0
        self.cumulative_hazard = self.cumulative_rate = (0.0,) * (BINS + 1)

    def add(self, earlier: float, age: float, *, left: bool) -> None:
        """Between two polls a task passed these bins, or `left` in one of them, the likelier the higher its hazard."""
        passed: list[tuple[int, float]] = []
        for n in range(bisect_right(EDGES, earlier) - 1, BINS):
            start, end = max(earlier, EDGES[n]), min(age, EDGES[n + 1])
            if start >= end:
                break
            passed.append((n, (end - start) / WIDTHS[n]))
        if not left:
            for n, part in passed:
                self.exposure[n] += part
            return
        # With some of the prior, so that a wrong belief can't feed itself.
        likely = [part * (self.cumulative_hazard[n + 1] - self.cumulative_hazard[n] + PRIOR) for n, part in passed]
        still_on, whole = 1.0, sum(likely)
        for (n, part), ended in zip(passed, likely, strict=True):
            self.ended[n] += ended / whole
            self.exposure[n] += part * (still_on - ended / whole / 2)
            still_on -= ended / whole

    def fade(self, factor: float) -> None:
        """Let what was seen so far count less."""
        self.ended = [ended * factor for ended in self.ended]
        self.exposure = [passed * factor for passed in self.exposure]

    def update(self, weight: float) -> None:
        """Draw the conclusions, `weight` being how much it matters to see an end of this phase early."""
        ended, passed = (0.0, *accumulate(self.ended)), (0.0, *accumulate(self.exposure))
        hazards: list[float] = []
        for n in range(BINS):
            low, high = n, n + 1
            while ended[high] - ended[low] < SMOOTHING_ENDS and high - n <= SMOOTHING_BINS and high < BINS:
                low, high = max(low - 1, 0), high + 1
            hazards.append((ended[high] - ended[low] + PRIOR) / (passed[high] - passed[low] + 1))
        self.ends = ended[-1]
        self.cumulative_hazard = (0.0, *accumulate(hazards))
        roots = (math.sqrt(weight * hazard * width) for hazard, width in zip(hazards, WIDTHS, strict=True))
        self.cumulative_rate = (0.0, *accumulate(roots))

    def survival(self, age: float) -> float:
        """The part of the tasks that are in this phase for longer."""
        return math.exp(-_value_at(self.cumulative_hazard, age))

    def quantile(self, part: float) -> float:
        """The age at which this part of the tasks has left."""
        return min(_age_at(self.cumulative_hazard, -math.log1p(-part)), EDGES[-1])

    def age_after(self, age: float, step: float) -> float:
        """The age at which `steps` has grown by so much; infinite past the last bin."""
        return _age_at(self.cumulative_rate, _value_at(self.cumulative_rate, age) + step)

    def mean_cumulative_rate(self) -> float:
        """What `steps` is at the end of a task, on average: ∫ S·√(weight · h) dt."""
        grown = (end - start for start, end in pairwise(self.cumulative_rate))
        return sum(math.exp(-hazard) * step for hazard, step in zip(self.cumulative_hazard, grown, strict=False))


def _value_at(table: tuple[float, ...], age: float) -> float:
    """What a table of values at the edges says in between."""
    n = min(bisect_right(EDGES, age), BINS) - 1
    return table[n] + (table[n + 1] - table[n]) * (age - EDGES[n]) / WIDTHS[n]


def _age_at(table: tuple[float, ...], value: float) -> float:
    """The inverse: at which age a table that grows comes to this value."""
    n = bisect_right(table, value) - 1
    return EDGES[n] + WIDTHS[n] * (value - table[n]) / (table[n + 1] - table[n]) if n < BINS else math.inf
