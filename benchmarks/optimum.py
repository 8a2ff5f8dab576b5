"""What polling costs at best where durations are known: the optimum by dynamic programming, and fixed intervals.

Both give a frontier: polls per task, and the mean delay in seconds that they buy. The first poll, at age 0, counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: From polls per task to mean delay.
Frontier = Callable[[float], float]


def frontier(points: Iterable[tuple[float, float]]) -> Frontier:
    """The line through these pairs of polls and delay, straight between neighbours in their logarithms; NaN beyond."""
    polls, delays = np.log(sorted(points)).T
    return lambda at: float(np.exp(np.interp(np.log(at), polls, delays, left=np.nan, right=np.nan)))


def fixed(durations: Floats) -> Frontier:
    """Fixed intervals of every length that makes 3 to 40 polls."""
    intervals = durations.mean() / np.geomspace(2, 40, 100)
    needed = [np.ceil(durations / interval) for interval in intervals]
    return frontier(
        (float(np.mean(n)) + 1, float(np.mean(n * interval - durations)))
        for n, interval in zip(needed, intervals, strict=True)
    )


def optimum(known: Floats, durations: Floats, *, floor: float, points: int = 900, prices: int = 36) -> Frontier:
    """The schedules that minimise mean delay + price · polls for the durations `known`, tried on `durations`.

    Nothing bounds their intervals but `floor`. Ages are those of a grid, dense where tasks end and where intervals are
    short.
    """
    known = np.sort(known)
    top = float(max(known[-1], durations.max()))
    grid = np.concatenate(
        [
            [0.0, top],
            np.quantile(known, np.linspace(0, 1, points // 2)),
            np.geomspace(known[0] / 8 + 0.01, top, points // 2),
        ]
    )
    grid = np.unique(grid.round(6))
    ended = np.searchsorted(known, grid, side="right")
    share = ended / len(known)
    moment = np.concatenate([[0.0], np.cumsum(known)])[ended] / len(known)
    # late[i, j]: the delay of all that end between grid[i] and grid[j], noticed at grid[j].
    late = grid * (share - share[:, None]) - (moment - moment[:, None])
    late[grid < grid[:, None] + floor] = np.inf
    late[:-1, -1] = (grid[-1] * (1 - share) - (moment[-1] - moment))[:-1]  # the last age may always be next
    found = []
    for price in np.geomspace(known.mean() / 60_000, known.mean() / 3, prices):
        value, after = np.zeros(len(grid)), np.zeros(len(grid), dtype=int)
        for n in range(len(grid) - 2, -1, -1):
            costs = late[n, n + 1 :] + value[n + 1 :]
            best = int(np.argmin(costs))
            after[n] = n + 1 + best
            value[n] = costs[best] + price * (1 - share[n])
        at = [0]
        while at[-1] < len(grid) - 1:
            at.append(int(after[at[-1]]))
        schedule = grid[at]
        seen = np.searchsorted(schedule, durations.round(6))
        found.append((float(np.mean(seen)) + 1, float(np.mean(schedule[seen] - durations))))
    return frontier(found)
