"""What runs and measures came to; kept as JSON, so that a long benchmark can be made in pieces."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import cattrs
from attrs import define, field, frozen


@frozen(kw_only=True)
class Run:
    """One client on one workload. Times in seconds, `memory` in bytes at its highest, beyond what was held before."""

    client: str
    workload: str
    round: int
    count: int
    seconds: float
    cpu: float
    memory: float
    #: From a task's true end to when the caller had its result; of the tasks whose results came.
    delays: tuple[float, ...]
    #: The part of them after the first answer that said so: what the client itself added, its last request included.
    handovers: tuple[float, ...]
    requests: int
    exchanges: int
    errors: dict[str, int]

    @property
    def is_whole(self) -> bool:
        return len(self.delays) == self.count

    @property
    def delay(self) -> float:
        return statistics.fmean(self.delays)

    @property
    def p95(self) -> float:
        return sorted(self.delays)[int(0.95 * (len(self.delays) - 1))]

    @property
    def polls(self) -> float:
        """For each task."""
        return self.requests / self.count

    @property
    def price(self) -> float:
        """Mean delay times polls: what a client's pacing is worth, however often it polls."""
        return self.delay * self.polls

    @property
    def throughput(self) -> float:
        return len(self.delays) / self.seconds


@frozen(kw_only=True)
class Measured:
    """One measure of one subject."""

    measure: str
    subject: str
    round: int
    count: int
    values: dict[str, float]


@define
class Results:
    """All of them."""

    runs: list[Run] = field(factory=list)
    measured: list[Measured] = field(factory=list)

    @classmethod
    def load(cls, path: Path) -> Results:
        return cattrs.structure(json.loads(path.read_text()), cls) if path.exists() else cls()

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(cattrs.unstructure(self)))

    def of(self, client: str, workload: str) -> list[Run]:
        return [run for run in self.runs if (run.client, run.workload) == (client, workload)]

    def values(self, measure: str, subject: str, name: str, count: int | None = None) -> list[float]:
        """One for each round, in order."""
        return [
            made.values[name]
            for made in self.measured
            if (made.measure, made.subject) == (measure, subject) and count in {None, made.count}
        ]

    def ratios(self, client: str, other: str, workload: str, value: Callable[[Run], float]) -> list[float]:
        """Between two clients in the same round, where both brought all results."""
        others = {run.round: run for run in self.of(other, workload) if run.is_whole}
        pairs = [(run, others[run.round]) for run in self.of(client, workload) if run.is_whole and run.round in others]
        return [value(run) / value(than) for run, than in pairs]


def middle(values: Iterable[float]) -> float:
    """The median; not a number for none."""
    given = list(values)
    return statistics.median(given) if given else float("nan")
