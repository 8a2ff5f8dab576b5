"""What the server's tasks live through, drawn from a seed; the same in the server, the client and the report. Pure."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable

from attrs import frozen

#: Seconds after which no task of a wait workload is under way any more; keeps a run's length bounded.
LONGEST = 25.0
#: Seconds between the two phases' draws and the shape of the plain log-normal ones: median 8 s.
MEDIAN, SIGMA = 8.0, 0.5


@frozen
class Task:
    """One task: when it is created (seconds after the run's start), and its statuses, each with its age in seconds."""

    id: str
    arrival: float
    life: tuple[tuple[float, str], ...]

    @property
    def end(self) -> float:
        """Seconds after the run's start."""
        return self.arrival + self.life[-1][0]

    def status(self, age: float) -> str:
        """The status at an age; before its creation a task has its first one."""
        status = self.life[0][1]
        for since, name in self.life:
            if since > age:
                break
            status = name
        return status


Draw = Callable[[random.Random, float], tuple[float, tuple[tuple[float, str], ...]]]


@frozen
class Workload:
    """A name for the tables, how many tasks, how they are drawn, and the seconds after which a run is cut."""

    title: str
    count: int
    limit: float
    draw: Draw
    #: Only those clients that are about the pacing: the other peers' intervals are the same on each workload.
    is_about_pacing: bool = False
    #: A client that learns sees one of another seed before.
    is_learnt: bool = True

    def tasks(self, seed: int, count: int | None = None) -> list[Task]:
        """The tasks of one round."""
        count = count or self.count
        chance = random.Random(f"{self.title}/{seed}")
        tasks = []
        for n in range(count):
            task_id = uuid.UUID(int=chance.getrandbits(128), version=4)
            arrival, life = self.draw(chance, n / count)
            tasks.append(Task(str(task_id), arrival, life))
        return tasks


def log_normal(chance: random.Random, median: float = MEDIAN, sigma: float = SIGMA, most: float = LONGEST) -> float:
    return min(most, chance.lognormvariate(math.log(median), sigma))


def one_phase(seconds: float) -> tuple[tuple[float, str], ...]:
    return ((0.0, "PROCESSING"), (seconds, "COMPLETED"))


def at_once(chance: random.Random, _: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    # Within a second, or the loops would poll in step for ever.
    return chance.random(), one_phase(log_normal(chance))


def spread(chance: random.Random, _: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    return 20 * chance.random(), one_phase(log_normal(chance))


def two_phases(chance: random.Random, _: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    queued = log_normal(chance, 5, 0.9, 20)
    worked = log_normal(chance, 4, 0.15, 20)
    return chance.random(), ((0.0, "QUEUED"), (queued, "PROCESSING"), (queued + worked, "COMPLETED"))


def heavy_tail(chance: random.Random, _: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    return chance.random(), one_phase(min(1.5 * LONGEST, 2 * chance.paretovariate(1.2)))


def drifting(chance: random.Random, part: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    return 30 * part, one_phase(log_normal(chance, 3 if part < 0.5 else 9, 0.3))


def finished(_chance: random.Random, _part: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    return 0.0, ((0.0, "COMPLETED"),)


def endless(_chance: random.Random, _part: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    return 0.0, ((0.0, "QUEUED"), (1e9, "COMPLETED"))


WORKLOADS = {
    "log-normal": Workload("200 tasks, log-normal, median 8 s", 200, 100, at_once),
    "finished": Workload("1,000 finished tasks at once", 1_000, 60, finished, is_learnt=False),
    "crowd": Workload("10,000 concurrent waits, log-normal, median 8 s", 10_000, 60, at_once, is_learnt=False),
    "arrivals": Workload("200 tasks arriving over 20 s", 200, 100, spread, is_about_pacing=True),
    "two-phase": Workload(
        "200 tasks queued 5 s (sigma 0.9), worked on 4 s (sigma 0.15)", 200, 100, two_phases, is_about_pacing=True
    ),
    "heavy": Workload("200 tasks, Pareto 1.2 from 2 s", 200, 100, heavy_tail, is_about_pacing=True),
    "drift": Workload("200 tasks over 30 s, median 3 s, then 9 s", 200, 100, drifting, is_about_pacing=True),
    "endless": Workload("tasks that don't end", 1_000, 60, endless),
}
