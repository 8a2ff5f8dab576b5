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

from distribute_async._policy.hazard import EDGES, Ages
from distribute_async._policy.pacing import Pacing, drawn
from distribute_async._wire.models import TaskResult
from distribute_async._wire.status import TaskStatus

#: Kinds and models remembered, those heard of last: a service that invents models must not fill the memory.
MOST_MODELS = 64
#: Characters of a model's name that tell it from others.
LONGEST_NAME = 100
#: Tasks remembered, in effect: older ones fade, so that drift is followed.
MEMORY = 200
#: Ends of a phase after which it is trusted; up to there it is blended with plain backoff.
ENOUGH = 20
#: The conclusions are drawn anew when the evidence has grown by this part.
NEWS = 0.1
#: The random part of a learned gap: enough for tasks created together to drift apart, too little to cost delay.
RANDOM_PART = 1 / 8
#: Polls of one phase that a plan looks ahead.
MOST_PLANNED = 300


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
    """What was learned of one phase of one kind and model of tasks. Ages and gaps are seconds.

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


class Lives:
    """All that was seen of one kind and model of tasks, and the plan that follows from it."""

    def __init__(self, pacing: Pacing, asked: float) -> None:
        self._pacing = pacing
        self._asked = asked
        self._news = 0.0
        self._step = 0.0
        self.phases = {phase: Ages() for phase in Phase}

    def add(self, phase: Phase, earlier: float, age: float, *, left: bool) -> None:
        """Remember what a poll showed."""
        self.phases[phase].add(earlier, age, left=left)
        # A task brings one end and its polls: two pieces of news.
        self._news += 1 if left else 1 / self._asked

    def learn(self) -> None:
        """Draw the conclusions from what is new, once there is enough of it."""
        waiting, working = self.phases[Phase.WAITING], self.phases[Phase.WORKING]
        if self._news < max(1.0, NEWS * (waiting.ends + working.ends)):
            return
        for ages in self.phases.values():
            ages.fade((1 - 0.5 / MEMORY) ** self._news)
        self._news = 0.0
        # To see a task leave the queue late delays nothing by itself, but blurs the clock of the work by as much: about
        # 1/polls of it comes back as delay. Where a task ends without having been seen at work, all of it does.
        onward = min(1.0, working.passed[0] / waiting.ends) if waiting.ends else 1.0
        waiting.learn(1 - onward + onward / self._asked)
        working.learn(1.0)
        # The ideal step spends what was asked, if there were no bounds, no first poll and no last step to cut short.
        ideal = sum(self._share(phase) * ages.whole() for phase, ages in self.phases.items()) / self._asked
        self._step = self._step or ideal
        for _ in range(3):
            polls = 1 + sum(self._polls(phase) for phase in Phase)
            self._step = min(max(self._step * polls / self._asked, ideal / 4), ideal * 4)

    def _share(self, phase: Phase) -> float:
        """The part of the tasks that go through a phase: those that passed its first bin."""
        most = max(ages.passed[0] for ages in self.phases.values())
        return self.phases[phase].passed[0] / most if most else 1.0

    def _polls(self, phase: Phase) -> float:
        share = self._share(phase)
        return share * sum(still_on for _, still_on in self._plan(phase)) if share else 0.0

    def _plan(self, phase: Phase) -> Iterator[tuple[float, float]]:
        """The gaps of a phase, and the part of its tasks that are still on when each begins."""
        ages = self.phases[phase]
        # Work comes after the queue, where there is one.
        waited = self.phases[Phase.WAITING].quantile(0.5) * self._share(Phase.WAITING) * (phase is Phase.WORKING)
        age, still_on = 0.0, 1.0
        for _ in range(MOST_PLANNED):
            if still_on < 0.001 or age > EDGES[-1]:
                return
            gap = max(self._pacing.floor, self.gap(phase, age, waited + age) * (1 - RANDOM_PART / 2))
            yield gap, still_on
            age += gap
            still_on = ages.still_on(age)

    def longest(self, phase: Phase, waited: float) -> float:
        """No gap is longer: half of the time waited, and of the age that one task in `polls_per_task` doesn't reach."""
        early = self.phases[phase].quantile(1 / self._asked)
        return min(self._pacing.max, self._pacing.initial + (waited + early) / 2)

    def gap(self, phase: Phase, age: float, waited: float) -> float:
        """Seconds from this age of a phase to the next poll."""
        gap = self.phases[phase].after(age, self._step) - age
        return max(self._pacing.floor, min(gap, self.longest(phase, waited)))

    def report(self, kind: str, model: str) -> Iterator[LearnedPacing]:
        """What was learned of each phase that was seen to end."""
        self.learn()
        for phase, ages in self.phases.items():
            if ages.ends:
                gaps = [gap for gap, _ in self._plan(phase)]
                yield LearnedPacing(
                    kind=kind,
                    model=model,
                    phase=phase.value,
                    ends=ages.ends,
                    median_age=ages.quantile(0.5),
                    p90_age=ages.quantile(0.9),
                    polls=self._polls(phase),
                    shortest_gap=min(gaps),
                    longest_gap=max(gaps),
                )


class Learning:
    """The memory of one client. With a pacing that doesn't learn it remembers nothing, and is plain backoff."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._lives: dict[tuple[str, str], Lives] = {}

    def observed(self, kind: str, model: str, phase: Phase, earlier: float, age: float, *, left: bool) -> None:
        """A poll was answered: a task that was in `phase` at the age `earlier` still is at `age`, or has `left` it.

        Ages are seconds since the phase was first seen, however long it had gone on by then.
        """
        if self._pacing.polls_per_task is None:
            return
        key = kind, model[:LONGEST_NAME]
        lives = self._lives.pop(key, None) or Lives(self._pacing, self._pacing.polls_per_task)
        self._lives[key] = lives  # at the end: the first is the one not heard of for longest
        if len(self._lives) > MOST_MODELS:
            del self._lives[next(iter(self._lives))]
        lives.add(phase, earlier, age, left=left)

    def interval(
        self, kind: str, model: str, phase: Phase, age: float, polls_since_change: int, *, waited: float
    ) -> float:
        """Seconds to the next poll of a task that has been in `phase` for `age`, and was `waited` for in all."""
        plain = self._pacing.interval(polls_since_change)
        lives = self._lives.get((kind, model[:LONGEST_NAME]))
        if lives is None:
            return plain
        lives.learn()
        trust = min(1.0, lives.phases[phase].ends / ENOUGH)
        if not trust:
            return plain
        gap = math.pow(plain, 1 - trust) * math.pow(lives.gap(phase, age, waited), trust)
        gap = min(gap, lives.longest(phase, waited))
        return max(self._pacing.floor, gap - drawn(self._pacing.jitter, gap * RANDOM_PART))

    def report(self) -> tuple[LearnedPacing, ...]:
        """What was learned so far, by kind, model and phase."""
        return tuple(learned for (kind, model), lives in self._lives.items() for learned in lives.report(kind, model))


class Course:
    """One task's way through its phases: what its polls teach, and when the next one is due."""

    __slots__ = ("_answered_at", "_began", "_kind", "_learning", "_phase", "_since")

    def __init__(self, learning: Learning, kind: str, now: float) -> None:
        self._learning = learning
        self._kind = kind
        self._began = self._since = self._answered_at = now
        self._phase: Phase | None = None

    def interval(self, result: TaskResult, polls_since_change: int, now: float) -> float:
        """Seconds to the next poll, after a good answer."""
        phase = None if result.is_over else Phase.of(result.status, self._phase)
        kind, model = self._kind, result.model
        if self._phase is not None:
            earlier, age = self._answered_at - self._since, now - self._since
            self._learning.observed(kind, model, self._phase, earlier, age, left=phase is not self._phase)
        if phase is not self._phase:
            self._phase, self._since = phase, now
        self._answered_at = now
        if phase is None:
            return 0.0
        waited = now - self._began
        return self._learning.interval(kind, model, phase, now - self._since, polls_since_change, waited=waited)
