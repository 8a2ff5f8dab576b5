"""What a client has learned of when tasks end, and when to ask next by it. Pure: no clock, no socket; for the walk.

Let tasks end at age t with hazard h(t); S(t) of them are still on. Polled at rate r(t), a task costs ∫ S·r dt polls,
and its end is noticed 1 / 2r(t) late, ∫ S·h / 2r dt on average. At equal polls that is least for r ∝ √h: polls at
equal steps of ∫ √h dt, the shorter the more polls there are to spend. Queueing and working are two such phases, each
with a clock and a hazard of its own; one length of step serves both, so the polls divide themselves between them.
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

#: Kinds and models remembered, those heard of last: a service that invents models must not fill the memory.
MAX_MODELS = 64
#: Characters of a model's name that tell it from others.
MAX_NAME = 100
#: Tasks remembered, in effect: older ones fade, so that drift is followed.
MEMORY_TASKS = 200
#: Ends of a phase after which it is trusted; up to there it is blended with plain backoff.
TRUSTED_ENDS = 20
#: The conclusions are drawn anew when the evidence has grown by this part.
UPDATE_PART = 0.1
#: The random part of a learned interval: enough for tasks created together to drift apart, too little to cost delay.
JITTER_PART = 1 / 8
#: Polls of one phase that a plan looks ahead.
MAX_PLANNED_POLLS = 300


class Phase(StrEnum):
    """The two parts of a task's life."""

    WAITING = "waiting"
    WORKING = "working"

    @classmethod
    def of(cls, status: TaskStatus, before: Phase | None = None) -> Phase:
        """The phase of a status that isn't terminal. A status that nobody knows goes on with the phase `before`."""
        if status in {TaskStatus.ASSIGNED_CONNECTIONS, TaskStatus.PROCESSING}:
            return cls.WORKING
        return cls.WAITING if status.is_known or before is None else before


@frozen(kw_only=True)
class LearnedPacing:
    """What was learned of one phase of one kind and model of tasks. Ages and intervals are seconds.

    `ends`: how many were seen, older ones counting less. `median_age`, `p90_age`: how long the phase lasts for half
    and for nine in ten. `polls`: expected in this phase, for each task. `shortest_gap`, `longest_gap`: between them.
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
    """All that was seen of one kind and model of tasks, and the plan that follows from it."""

    def __init__(self, pacing: Pacing, polls_per_task: float) -> None:
        self._pacing = pacing
        self._polls_per_task = polls_per_task
        self._unlearned = 0.0
        self._step = 0.0
        self.phases = {phase: HazardEstimate() for phase in Phase}

    def add(self, phase: Phase, earlier: float, age: float, *, left: bool) -> None:
        """Remember what a poll showed."""
        self.phases[phase].add(earlier, age, left=left)
        # A task brings one end and its polls: two pieces of news.
        self._unlearned += 1 if left else 1 / self._polls_per_task

    def update(self) -> None:
        """Draw the conclusions from what is new, once there is enough of it."""
        waiting, working = self.phases[Phase.WAITING], self.phases[Phase.WORKING]
        if self._unlearned < max(1.0, UPDATE_PART * (waiting.ends + working.ends)):
            return
        for estimate in self.phases.values():
            estimate.fade((1 - 0.5 / MEMORY_TASKS) ** self._unlearned)
        self._unlearned = 0.0
        # To see a task leave the queue late delays nothing by itself, but blurs the clock of the work by as much: about
        # 1/polls of it comes back as delay. Where a task ends without having been seen at work, all of it does.
        onward = min(1.0, working.exposure[0] / waiting.ends) if waiting.ends else 1.0
        waiting.update(1 - onward + onward / self._polls_per_task)
        working.update(1.0)
        # The ideal step spends what was asked, if there were no bounds, no first poll and no last step to cut short.
        ideal = (
            sum(self._share(phase) * estimate.mean_cumulative_rate() for phase, estimate in self.phases.items())
            / self._polls_per_task
        )
        self._step = self._step or ideal
        for _ in range(3):
            polls = 1 + sum(self._expected_polls(phase) for phase in Phase)
            self._step = min(max(self._step * polls / self._polls_per_task, ideal / 4), ideal * 4)

    def _share(self, phase: Phase) -> float:
        """The part of the tasks that go through a phase: those that passed its first bin."""
        most = max(estimate.exposure[0] for estimate in self.phases.values())
        return self.phases[phase].exposure[0] / most if most else 1.0

    def _expected_polls(self, phase: Phase) -> float:
        share = self._share(phase)
        return share * sum(still_on for _, still_on in self._plan(phase)) if share else 0.0

    def _plan(self, phase: Phase) -> Iterator[tuple[float, float]]:
        """The intervals of a phase, and the part of its tasks that are still on when each begins."""
        estimate = self.phases[phase]
        # Work comes after the queue, where there is one.
        waited = self.phases[Phase.WAITING].quantile(0.5) * self._share(Phase.WAITING) * (phase is Phase.WORKING)
        age, still_on = 0.0, 1.0
        for _ in range(MAX_PLANNED_POLLS):
            if still_on < 0.001 or age > EDGES[-1]:
                return
            interval = max(self._pacing.floor, self.interval(phase, age, waited + age) * (1 - JITTER_PART / 2))
            yield interval, still_on
            age += interval
            still_on = estimate.survival(age)

    def longest_interval(self, phase: Phase, waited: float) -> float:
        """The longest interval that is allowed after `waited` seconds: see `Pacing.learned`."""
        early = self.phases[phase].quantile(1 / self._polls_per_task)
        return min(self._pacing.max, self._pacing.initial + (waited + early) / 2)

    def interval(self, phase: Phase, age: float, waited: float) -> float:
        """Seconds from this age of a phase to the next poll."""
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
    """The memory of one client. With a pacing that doesn't learn it remembers nothing, and is plain backoff."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._statistics: dict[tuple[str, str], TaskStatistics] = {}

    def record(self, kind: str, model: str, phase: Phase, earlier: float, age: float, *, left: bool) -> None:
        """A poll was answered: a task that was in `phase` at the age `earlier` still is at `age`, or has `left` it.

        Ages are seconds since the phase was first seen, however long it had gone on by then.
        """
        if self._pacing.polls_per_task is None:
            return
        key = kind, model[:MAX_NAME]
        statistics = self._statistics.pop(key, None) or TaskStatistics(self._pacing, self._pacing.polls_per_task)
        self._statistics[key] = statistics  # at the end: the first is the one not heard of for longest
        if len(self._statistics) > MAX_MODELS:
            del self._statistics[next(iter(self._statistics))]
        statistics.add(phase, earlier, age, left=left)

    def interval(
        self, kind: str, model: str, phase: Phase, age: float, polls_since_change: int, *, waited: float
    ) -> float:
        """Seconds to the next poll of a task that has been in `phase` for `age`, and was `waited` for in all."""
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
    """One task's way through its phases: what its polls teach, and when the next one is due."""

    __slots__ = ("_answered_at", "_began", "_kind", "_memory", "_phase", "_since")

    def __init__(self, memory: PacingMemory, kind: str, now: float) -> None:
        self._memory = memory
        self._kind = kind
        self._began = self._since = self._answered_at = now
        self._phase: Phase | None = None

    def interval(self, result: TaskResult, polls_since_change: int, now: float) -> float:
        """Seconds to the next poll, after a good answer."""
        phase = None if result.is_over else Phase.of(result.status, self._phase)
        kind, model = self._kind, result.model
        if self._phase is not None:
            earlier, age = self._answered_at - self._since, now - self._since
            self._memory.record(kind, model, self._phase, earlier, age, left=phase is not self._phase)
        if phase is not self._phase:
            self._phase, self._since = phase, now
        self._answered_at = now
        if phase is None:
            return 0.0
        waited = now - self._began
        return self._memory.interval(kind, model, phase, now - self._since, polls_since_change, waited=waited)
