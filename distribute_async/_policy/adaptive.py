"""Adaptive pacing: statistics of when tasks end, and the poll intervals that follow. Pure; used by `task_state`.

Let tasks end at age t with hazard h(t), and let S(t) be the share of them that is still running. Polls at a rate r(t)
cost ∫ S·r dt polls a task. An end is noticed 1 / 2r(t) late, which is ∫ S·h / 2r dt on average. For a given number of
polls this delay is least when r is proportional to √h, that is, with polls at equal steps of ∫ √h dt. More polls make
the step shorter. Queueing and working are two phases, each with its own clock and hazard. Both use the same step, which
divides the polls between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum

from attrs import frozen

from distribute_async._policy.hazard import EDGES, HazardEstimate
from distribute_async._policy.pacing import Pacing, draw
from distribute_async._wire.models import TaskResult
from distribute_async._wire.status import TaskStatus

#: Pairs of kind and model that are kept, those used last: a service that invents models must not fill the memory.
MAX_MODELS = 64
#: Characters of a model's name that distinguish it from others.
MAX_NAME = 100
#: Tasks that count, in effect. Older ones fade, so that drift is followed.
MEMORY_TASKS = 200
#: Ends of a phase from which its statistics are fully trusted. With fewer, intervals are blended with plain backoff.
TRUSTED_ENDS = 20
#: Estimates are computed anew when the observations have grown by this part.
UPDATE_PART = 0.1
#: The random part of a learned interval. Tasks created together drift apart with it, and it costs little delay.
JITTER_PART = 1 / 8
#: Polls of one phase that a plan covers.
MAX_PLANNED_POLLS = 300


class Phase(StrEnum):
    """The two phases of a task: before it is assigned, and from then on."""

    WAITING = "waiting"
    WORKING = "working"

    @classmethod
    def of(cls, status: TaskStatus, before: Phase | None = None) -> Phase:
        """The phase of a status that isn't terminal. An unknown status belongs to the phase `before` it."""
        if status in {TaskStatus.ASSIGNED_CONNECTIONS, TaskStatus.PROCESSING}:
            return cls.WORKING
        return cls.WAITING if status.is_known or before is None else before


@frozen(kw_only=True)
class LearnedPacing:
    """What a client has learned about one phase of the tasks of one kind and model. Ages and intervals are seconds.

    - `phase`: "waiting" (queued) or "working" (assigned or processing).
    - `ends`: the ends of this phase that were seen. Older ones count less, so it is not a whole number.
    - `median_age`, `p90_age`: how long the phase lasts for half of the tasks, and for nine in ten.
    - `polls`: the expected number of polls in this phase, for each task.
    - `shortest_gap`, `longest_gap`: the shortest and the longest interval between these polls.
    """

    kind: str
    model: str
    phase: str
    ends: float
    median_age: float
    p90_age: float
    polls: float
    shortest_gap: float
    longest_gap: float


class TaskStatistics:
    """The statistics of the tasks of one kind and model, and the intervals that follow from them."""

    def __init__(self, pacing: Pacing, polls_per_task: float) -> None:
        self._pacing = pacing
        self._polls_per_task = polls_per_task
        #: Observations since the last update.
        self._new = 0.0
        #: The growth of `HazardEstimate.cumulative_rate` between two polls.
        self._step = 0.0
        self.phases = {phase: HazardEstimate() for phase in Phase}

    def add(self, phase: Phase, earlier: float, age: float, *, left: bool) -> None:
        """Count what a poll showed; see `PacingMemory.record`."""
        self.phases[phase].add(earlier, age, left=left)
        # A whole task counts as two observations: its end is one, and all of its polls together are the other.
        self._new += 1 if left else 1 / self._polls_per_task

    def update(self) -> None:
        """Compute the estimates anew, if there are enough new observations."""
        waiting, working = self.phases[Phase.WAITING], self.phases[Phase.WORKING]
        if self._new < max(1.0, UPDATE_PART * (waiting.ends + working.ends)):
            return
        for estimate in self.phases.values():
            estimate.fade((1 - 0.5 / MEMORY_TASKS) ** self._new)
        self._new = 0.0
        # Seeing late that a task left the queue delays no result, but the clock of its work then starts late by as
        # much. About 1/polls of that returns as delay. Where a task ends without a poll having seen it at work, the
        # whole of it is delay.
        seen_working = min(1.0, working.exposure[0] / waiting.ends) if waiting.ends else 1.0
        waiting.update(1 - seen_working + seen_working / self._polls_per_task)
        working.update(1.0)
        # The ideal step would spend `polls_per_task` if intervals had no bounds, if there were no first poll, and if
        # the last interval weren't cut short. The fixed-point iteration corrects for these.
        mean_rate = sum(self._share(phase) * estimate.mean_cumulative_rate() for phase, estimate in self.phases.items())
        ideal = mean_rate / self._polls_per_task
        self._step = self._step or ideal
        for _ in range(3):
            polls = 1 + sum(self._expected_polls(phase) for phase in Phase)
            self._step = min(max(self._step * polls / self._polls_per_task, ideal / 4), ideal * 4)

    def _share(self, phase: Phase) -> float:
        """The share of the tasks that go through a phase, by the tasks at risk in its first bin."""
        most = max(estimate.exposure[0] for estimate in self.phases.values())
        return self.phases[phase].exposure[0] / most if most else 1.0

    def _expected_polls(self, phase: Phase) -> float:
        share = self._share(phase)
        return share * sum(survival for _, survival in self._plan(phase)) if share else 0.0

    def _plan(self, phase: Phase) -> Iterator[tuple[float, float]]:
        """The intervals of a phase, each with the share of the tasks that are still in it when it begins."""
        estimate = self.phases[phase]
        # The median time in the queue comes before the work of those tasks that have a queue.
        waited = self.phases[Phase.WAITING].quantile(0.5) * self._share(Phase.WAITING) * (phase is Phase.WORKING)
        age, survival = 0.0, 1.0
        for _ in range(MAX_PLANNED_POLLS):
            if survival < 0.001 or age > EDGES[-1]:
                return
            interval = max(self._pacing.floor, self.interval(phase, age, waited + age) * (1 - JITTER_PART / 2))
            yield interval, survival
            age += interval
            survival = estimate.survival(age)

    def longest_interval(self, phase: Phase, waited: float) -> float:
        """The upper bound of an interval, `waited` seconds after the first poll; see `Pacing.learned`.

        The first interval has no time waited to go by. It may be half of the age that all but one in `polls_per_task`
        of the tasks outlive.
        """
        early_end = self.phases[phase].quantile(1 / self._polls_per_task)
        return min(self._pacing.max, self._pacing.initial + (waited + early_end) / 2)

    def interval(self, phase: Phase, age: float, waited: float) -> float:
        """Seconds from `age` in this phase to the next poll."""
        interval = self.phases[phase].age_after(age, self._step) - age
        return max(self._pacing.floor, min(interval, self.longest_interval(phase, waited)))

    def report(self, kind: str, model: str) -> Iterator[LearnedPacing]:
        """What was learned of each phase that was seen to end."""
        self.update()
        for phase, estimate in self.phases.items():
            if estimate.ends:
                intervals = [interval for interval, _ in self._plan(phase)]
                yield LearnedPacing(
                    kind=kind,
                    model=model,
                    phase=phase.value,
                    ends=estimate.ends,
                    median_age=estimate.quantile(0.5),
                    p90_age=estimate.quantile(0.9),
                    polls=self._expected_polls(phase),
                    shortest_gap=min(intervals),
                    longest_gap=max(intervals),
                )


class PacingMemory:
    """What one client has learned, by kind and model. Without `Pacing.polls_per_task` it stays empty."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        #: The least recently used first.
        self._statistics: dict[tuple[str, str], TaskStatistics] = {}

    def record(self, kind: str, model: str, phase: Phase, earlier: float, age: float, *, left: bool) -> None:
        """Record what a poll showed of a task that was in `phase` at the age `earlier`.

        It is still in the phase at `age`, or has `left` it. Ages are seconds since a poll first saw the phase, however
        long the phase had lasted by then.
        """
        if self._pacing.polls_per_task is None:
            return
        key = kind, model[:MAX_NAME]
        statistics = self._statistics.pop(key, None) or TaskStatistics(self._pacing, self._pacing.polls_per_task)
        self._statistics[key] = statistics
        if len(self._statistics) > MAX_MODELS:
            del self._statistics[next(iter(self._statistics))]
        statistics.add(phase, earlier, age, left=left)

    def interval(
        self, kind: str, model: str, phase: Phase, age: float, polls_since_change: int, *, waited: float
    ) -> float:
        """Seconds to the next poll of a task that has been in `phase` for `age` and was first polled `waited` ago."""
        plain = self._pacing.interval(polls_since_change)
        statistics = self._statistics.get((kind, model[:MAX_NAME]))
        if statistics is None:
            return plain
        statistics.update()
        trust = min(1.0, statistics.phases[phase].ends / TRUSTED_ENDS)
        if not trust:
            return plain
        interval = math.pow(plain, 1 - trust) * math.pow(statistics.interval(phase, age, waited), trust)
        interval = min(interval, statistics.longest_interval(phase, waited))
        return max(self._pacing.floor, interval - draw(self._pacing.jitter, interval * JITTER_PART))

    def report(self) -> tuple[LearnedPacing, ...]:
        """What was learned so far, by kind, model and phase."""
        return tuple(
            learned
            for (kind, model), statistics in self._statistics.items()
            for learned in statistics.report(kind, model)
        )


class AdaptivePacer:
    """The pacing of one task: records what its polls show, and says when the next one is due."""

    __slots__ = ("_began", "_kind", "_last_poll", "_memory", "_phase", "_phase_began")

    def __init__(self, memory: PacingMemory, kind: str, now: float) -> None:
        self._memory = memory
        self._kind = kind
        self._began = self._phase_began = self._last_poll = now
        self._phase: Phase | None = None

    def interval(self, result: TaskResult, polls_since_change: int, now: float) -> float:
        """Seconds to the next poll, given the result of one that succeeded at `now`; 0 for a task that is over."""
        phase = None if result.is_over else Phase.of(result.status, self._phase)
        kind, model = self._kind, result.model
        if self._phase is not None:
            earlier, age = self._last_poll - self._phase_began, now - self._phase_began
            self._memory.record(kind, model, self._phase, earlier, age, left=phase is not self._phase)
        if phase is not self._phase:
            self._phase, self._phase_began = phase, now
        self._last_poll = now
        if phase is None:
            return 0.0
        waited = now - self._began
        return self._memory.interval(kind, model, phase, now - self._phase_began, polls_since_change, waited=waited)
