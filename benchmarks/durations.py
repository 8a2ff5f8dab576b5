"""How long simulated tasks take: shapes for tuning learned pacing, and others, never used in tuning, to report.

A life is the time spent waiting in a queue (0 where there is none) and the time spent working, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: The inverse of a distribution: turns even random numbers in (0, 1) into durations.
Inverse = Callable[[Floats], Floats]
#: How long tasks of a kind wait (None: not at all), and how long they work.
Shape = tuple[Inverse | None, Inverse]

_SHARES = np.linspace(0, 1, 10_002)[1:-1]
_NORMAL = np.array([NormalDist().inv_cdf(float(share)) for share in _SHARES])


def lognormal(median: float, sigma: float) -> Inverse:
    return lambda u: median * np.exp(sigma * np.interp(u, _SHARES, _NORMAL))


def exponential(mean: float) -> Inverse:
    return lambda u: -mean * np.log1p(-u)


def pareto(least: float, tail: float, most: float) -> Inverse:
    """A power law with this tail index, cut off at `most`."""
    return lambda u: np.minimum(least * (1 - u) ** (-1 / tail), most)


def bimodal(share: float, one: Inverse, other: Inverse) -> Inverse:
    return lambda u: np.where(
        u < share, one(np.minimum(u / share, 1 - 1e-9)), other(np.maximum((u - share) / (1 - share), 1e-9))
    )


TUNING: dict[str, Shape] = {
    "log-normal": (None, lognormal(6.0, 0.5)),
    "bimodal": (None, bimodal(0.6, lognormal(3.0, 0.25), lognormal(15.0, 0.2))),
    "heavy": (None, pareto(2.0, 1.3, 600.0)),
    "narrow": (None, lognormal(6.0, 0.06)),
    "exponential": (None, exponential(12.0)),
    "two-phase": (exponential(15.0), lognormal(8.0, 0.15)),
    "two-phase, short work": (exponential(10.0), lognormal(2.0, 0.3)),
}
REPORTED: dict[str, Shape] = {
    "log-normal": (None, lognormal(8.0, 0.7)),
    "bimodal": (None, bimodal(0.7, lognormal(4.0, 0.3), lognormal(25.0, 0.25))),
    "heavy": (None, pareto(3.0, 1.5, 900.0)),
    "narrow": (None, lognormal(20.0, 0.08)),
    "exponential": (None, exponential(9.0)),
    "two-phase": (exponential(20.0), lognormal(12.0, 0.2)),
    "two-phase, broad": (lognormal(10.0, 0.8), lognormal(10.0, 0.5)),
}


def draw(shape: Shape, count: int, seed: int) -> tuple[Floats, Floats]:
    """Waiting and working times of this many tasks."""
    wait, work = shape
    rng = np.random.default_rng(seed)
    waited = wait(rng.random(count)) if wait else np.zeros(count)
    return waited, work(rng.random(count))
