"""What happened in a run, put in order: polls, outages, and the times in which somebody waited. Used by the judges."""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import define, field

from distribute_async import APIStatusError, ChatResult, DistributeError
from distribute_async._policy.faults import HealthSignal, pause_of, rule_for
from distribute_async._wire.models import Created
from tests.machine.plan import PROBE_ID
from tests.machine.recorder import TrackLog

#: Of the virtual clock, in seconds: what counts as the same moment.
EPS = 1e-4


@define(eq=False)
class Poll:
    """One poll: an exchange, or two where the first found a stale connection. `outcome` None: it was cut."""

    log: TrackLog
    start: float
    order: int
    end: float
    end_order: int
    outcome: ChatResult | Created | DistributeError | None
    #: The request left.
    sent: bool = False
    stands_in: bool = False

    @property
    def key(self) -> str:
        """What it asks for."""
        return PROBE_ID if self.stands_in else self.log.task_id

    @property
    def evidence(self) -> HealthSignal:
        """What it says about the service."""
        if self.outcome is None:
            return HealthSignal.CUT
        return rule_for(self.outcome).signal if isinstance(self.outcome, DistributeError) else HealthSignal.UP


@define(eq=False)
class Outage:
    """A time in which the service counted as down: since its first failure, and known (`surely`) from some time on."""

    since: float
    maybe: float
    maybe_order: int
    surely: float = math.inf
    surely_order: int = 0
    until: float = math.inf
    until_order: int = 0
    fault: DistributeError | None = None

    def covers(self, at: float) -> bool:
        """Whether it may have been known at this time."""
        return self.maybe - EPS <= at <= self.until + EPS

    def surely_covers(self, at: float) -> bool:
        """Whether it surely was."""
        return self.surely + EPS < at < self.until - EPS


@define(eq=False)
class Pause:
    """A time for which the service asked to be left alone. `until`: with the pauses that were there already."""

    start: float
    order: int
    until: float
    fault: APIStatusError


@define(eq=False)
class Spans:
    """Times that are merged to spans; two that only touch stay two."""

    spans: list[tuple[float, float]] = field(factory=list)
    #: With those that touch made one.
    joined: list[tuple[float, float]] = field(factory=list)

    @classmethod
    def of(cls, times: Iterable[tuple[float, float]]) -> Spans:
        """The union."""
        spans: list[tuple[float, float]] = []
        joined: list[tuple[float, float]] = []
        for start, end in sorted(times):
            for known, apart in ((spans, -EPS), (joined, EPS)):
                if known and start < known[-1][1] + apart:
                    known[-1] = known[-1][0], max(known[-1][1], end)
                else:
                    known.append((start, end))
        return cls(spans, joined)

    def covers(self, at: float) -> bool:
        """Surely: not at an edge."""
        return any(start + EPS < at < end - EPS for start, end in self.spans)

    def touches(self, at: float) -> bool:
        """Perhaps: at an edge too."""
        return any(start - EPS <= at <= end + EPS for start, end in self.spans)

    def within(self, start: float, end: float) -> float:
        """Seconds of the time between two moments that these spans cover."""
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until in self.joined)


def polls_of(log: TrackLog) -> list[Poll]:
    """The polls of a track, in order."""
    polls: list[Poll] = []
    for post in log.posts:
        end = math.inf if post.end is None else post.end
        if post.again:
            polls[-1].end, polls[-1].end_order, polls[-1].outcome = end, post.end_order, post.outcome
            polls[-1].sent = polls[-1].sent or post.sent is not None
        else:
            sent = post.sent is not None
            polls.append(
                Poll(log, post.start, post.order, end, post.end_order, post.outcome, sent, stands_in=post.stands_in)
            )
    return polls


def pause_in(outcome: ChatResult | Created | DistributeError | None) -> float:
    """Seconds for which an answer asks for a pause; 0 where it doesn't."""
    return pause_of(outcome) if isinstance(outcome, DistributeError) else 0.0
