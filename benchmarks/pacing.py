"""What learned pacing is worth: a simulation of polls, without a network, against the best that there can be.

    python -m benchmarks.pacing [--plot FILE] [--tuning] [--defaults]

Tasks arrive at random, twenty on the way at a time, and pacing learns from its own polls alone. Delay is how long after
a task's end a poll saw it; an exchange takes no time. Figures are of tasks 501 to 2,500, the mean over seeds that were
not used in tuning, as were the shapes (`--tuning` shows those that were).

Compared at equal polls: each rival is run at many settings, which gives its delay as a function of its polls per task,
and is read off at the polls that learned pacing used. Rivals: the optimum by dynamic programming, which knows the
distribution and may place polls as it likes, `Pacing.floor` apart (for one phase; an optimum that hears of transitions
is another problem); a fixed interval; plain backoff, with all its seconds scaled.

The last columns are delay · polls against plain backoff's at its defaults on the same tasks: of the first 100 tasks,
and of the 300 that follow when after 1,500 tasks all durations become three times as long, or a third.

`--defaults` instead compares numbers for plain backoff, on the shapes above with all durations a fifth, as they are,
and ten times as long.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections.abc import Callable

import numpy as np

from benchmarks.durations import REPORTED, TUNING, Floats, Shape, draw
from benchmarks.optimum import Frontier, fixed, frontier, optimum
from distribute_async import Pacing
from distribute_async._policy.adaptive import PacingMemory, Phase

TASKS, LEARNING = 2_500, 500
COLD, DRIFT_AT, DRIFTED = 100, 1_500, 300
AT_ONCE = 20
ASKED = (10, 20)


def seeded(seed: int) -> Callable[[float], float]:
    generator = random.Random(seed)
    return lambda span: generator.uniform(0, span)


def simulate(pacing: Pacing, waiting: Floats, working: Floats, seed: int) -> tuple[Floats, Floats]:
    """Polls and delay of each task."""
    memory = PacingMemory(pacing)
    lives = waiting + working
    starts = np.random.default_rng(seed).exponential(lives / AT_ONCE).cumsum()
    polls, delays = np.zeros(len(lives)), np.zeros(len(lives))
    # Of each task: the next poll, its number, the phase last seen, since when, the last poll, polls since a change.
    due: list[tuple[float, int, Phase | None, float, float, int]] = [
        (float(start), n, None, 0.0, 0.0, 0) for n, start in enumerate(starts)
    ]
    heapq.heapify(due)
    while due:
        now, n, phase, since, last, quiet = heapq.heappop(due)
        polls[n] += 1
        age = now - float(starts[n])
        seen = Phase.WAITING if age < waiting[n] else Phase.WORKING if age < lives[n] else None
        if phase is not None:
            memory.record("chat", "model", phase, last - since, now - since, left=seen is not phase)
        if seen is None:
            delays[n] = age - lives[n]
            continue
        since, quiet = (since, quiet + 1) if seen is phase else (now, 0)
        interval = memory.interval("chat", "model", seen, now - since, quiet, waited=age)
        heapq.heappush(due, (now + interval, n, seen, since, now, quiet))
    return polls, delays


def backoff(scale: float, seed: int) -> Pacing:
    return Pacing(initial=0.5 * scale, max=10.0 * scale, floor=0.1 * scale, jitter=seeded(seed))


class Trial:
    """One shape, with its tasks for each seed and what the rivals make of them."""

    def __init__(self, shape: Shape, seeds: tuple[int, ...]) -> None:
        self.shape = shape
        self.runs = [(seed, *draw(shape, TASKS, seed)) for seed in seeds]
        durations = np.concatenate([(waiting + working)[LEARNING:] for _, waiting, working in self.runs])
        self.fixed = fixed(durations)
        self.backoff = frontier(
            self._mean(lambda seed, scale=scale: backoff(scale, seed), slice(LEARNING, None))  # type: ignore[misc]
            for scale in np.geomspace(0.1, 8.0, 12)
        )
        self.optimum: Frontier | None = None
        if shape[0] is None:
            known = draw(shape, 200_000, 0)[1]
            self.optimum = optimum(known, durations, floor=Pacing().floor)

    def _mean(self, pacing: Callable[[int], Pacing], tasks: slice, scale: Floats | float = 1.0) -> tuple[float, float]:
        found = [simulate(pacing(seed), waiting * scale, working * scale, seed) for seed, waiting, working in self.runs]
        return (
            float(np.mean([polls[tasks] for polls, _ in found])),
            float(np.mean([delays[tasks] for _, delays in found])),
        )

    def learned(self, asked: float) -> tuple[float, float]:
        return self._mean(lambda seed: Pacing.learned(asked, jitter=seeded(seed)), slice(LEARNING, None))

    def against_backoff(self, asked: float, tasks: slice, scale: Floats | float = 1.0) -> float:
        """Delay · polls of these tasks, as a ratio."""
        ours = self._mean(lambda seed: Pacing.learned(asked, jitter=seeded(seed)), tasks, scale)
        plain = self._mean(lambda seed: backoff(1.0, seed), tasks, scale)
        return ours[0] * ours[1] / (plain[0] * plain[1])

    def drift(self, asked: float, factor: float) -> float:
        scale = np.where(np.arange(TASKS) < DRIFT_AT, 1.0, factor)
        return self.against_backoff(asked, slice(DRIFT_AT, DRIFT_AT + DRIFTED), scale)


def compare(trials: dict[str, Trial]) -> None:
    head = ("shape", "asked", "polls", "delay s", "÷ optimum", "÷ fixed", "÷ backoff", "cold", "slower", "faster")
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for (name, trial), asked in itertools.product(trials.items(), ASKED):
        polls, delay = trial.learned(asked)
        ratios = [
            f"{delay / trial.optimum(polls):.2f}" if trial.optimum else "",
            *(f"{delay / rival(polls):.2f}" for rival in (trial.fixed, trial.backoff)),
            f"{trial.against_backoff(asked, slice(COLD)):.2f}",
            *(f"{trial.drift(asked, factor):.2f}" for factor in (3, 1 / 3)),
        ]
        print(f"| {name} | {asked} | {polls:.1f} | {delay:.3f} | " + " | ".join(ratios) + " |", flush=True)


def defaults(shapes: dict[str, Shape], seeds: tuple[int, ...]) -> None:
    """Polls and delay of plain backoff for several numbers, and of fixed intervals."""
    numbers = [
        *((0.5, 1.3, 10.0), (0.25, 1.3, 10.0), (1.0, 1.3, 10.0), (0.5, 1.15, 10.0), (0.5, 1.5, 10.0), (0.5, 2.0, 10.0)),
        *((0.5, 1.3, 5.0), (0.5, 1.3, 30.0), (1.0, 1.0, 1.0), (3.0, 1.0, 3.0)),
    ]
    print("| initial, factor, max | short | usual | long | delay · polls |\n|---|---|---|---|---|")
    usual = 0.0
    for initial, factor, cap in numbers:
        cells, products = [], []
        for scale in (0.2, 1.0, 10.0):
            found = []
            for shape, seed in itertools.product(shapes.values(), seeds):
                waiting, working = draw(shape, LEARNING, seed)
                pacing = Pacing(initial=initial, factor=factor, max=cap, jitter=seeded(seed))
                polls, delays = simulate(pacing, waiting * scale, working * scale, seed)
                found.append((polls.mean(), delays.mean(), delays.mean() / (scale * (waiting + working).mean())))
                products.append(polls.mean() * delays.mean())
            polls, delay, share = np.mean(found, axis=0)
            cells.append(f"{polls:.1f} polls, {delay:.2f} s ({share:.0%})")
        product = float(np.exp(np.mean(np.log(products))))
        usual = usual or product
        print(f"| {initial:g}, {factor:g}, {cap:g} | " + " | ".join(cells) + f" | {product / usual:.2f} |", flush=True)


def plot(trials: dict[str, Trial], file: str) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - a plot alone needs it

    mpl.use("agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(2, 4, figsize=(16, 8))
    line = np.geomspace(5, 32, 40)
    for axis, (name, trial) in zip(axes.flat, trials.items(), strict=False):
        for label, rival in (("fixed", trial.fixed), ("backoff", trial.backoff), ("optimum", trial.optimum)):
            if rival:
                axis.plot(line, [rival(polls) for polls in line], label=label)
        points = [trial.learned(asked) for asked in (6, 8, 10, 14, 20, 28)]
        axis.plot(*zip(*points, strict=True), "ko", label="learned")
        axis.set(title=name, xscale="log", yscale="log", xlabel="polls per task", ylabel="mean delay, s")
        axis.legend()
    axes.flat[-1].set_visible(False)
    figure.tight_layout()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tuning", action="store_true", help="the shapes and seeds that were used in tuning")
    parser.add_argument("--defaults", action="store_true", help="numbers for plain backoff")
    parser.add_argument("--plot", metavar="FILE", help="draw delay against polls per task")
    options = parser.parse_args()
    shapes, seeds = (TUNING, (1, 2)) if options.tuning else (REPORTED, (101, 102, 103))
    if options.defaults:
        defaults(shapes, seeds[:1])
        return
    trials = {name: Trial(shape, seeds) for name, shape in shapes.items()}
    compare(trials)
    if options.plot:
        plot(trials, options.plot)


if __name__ == "__main__":
    main()
