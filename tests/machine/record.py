"""What happened in a run, put in order: polls, outages, and the times in which somebody waited. Used by the judges."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from attrs import define, field

from distribute_async import ChatResult, DistributeError
from distribute_async._faults import Evidence, pause_of, rule_for
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
    outcome: ChatResult | DistributeError | None

    @property
    def evidence(self) -> Evidence:
        """What it says about the service."""
        if self.outcome is None:
            return Evidence.CUT
        return rule_for(self.outcome).evidence if isinstance(self.outcome, DistributeError) else Evidence.UP


@define(eq=False)
class Outage:
    """A time in which the service counted as down: since its first failure, and known (`surely`) from some time on."""

    since: float
    maybe: float
    surely: float = math.inf
    surely_order: int = 0
    until: float = math.inf
    until_order: int = 0
    fault: DistributeError | None = None

    def covers(self, at: float) -> bool:
        """Whether it may have been known at this time."""
        return self.maybe - EPS <= at <= self.until + EPS


@define(eq=False)
class Spans:
    """Times that are merged to spans; two that only touch stay two."""

    spans: list[tuple[float, float]] = field(factory=list)

    @classmethod
    def of(cls, times: Iterable[tuple[float, float]]) -> Spans:
        """The union."""
        spans: list[tuple[float, float]] = []
        for start, end in sorted(times):
            if spans and start < spans[-1][1] - EPS:
                spans[-1] = spans[-1][0], max(spans[-1][1], end)
            else:
                spans.append((start, end))
        return cls(spans)

    def covers(self, at: float) -> bool:
        """Surely: not at an edge."""
        return any(start + EPS < at < end - EPS for start, end in self.spans)

    def touches(self, at: float) -> bool:
        """Perhaps: at an edge too."""
        return any(start - EPS <= at <= end + EPS for start, end in self.spans)

    def breaks(self, start: float, end: float) -> tuple[bool, bool]:
        """Whether there is surely, and perhaps, a moment outside of all spans between two times."""
        surely = perhaps = False
        for (_, one), (other, _) in pairwise([(-1.0, -1.0), *self.spans, (math.inf, math.inf)]):
            if one < end + EPS and other > start - EPS:
                perhaps = True
                surely = surely or (min(other, end) - max(one, start) > EPS)
        return surely, perhaps

    @property
    def joined(self) -> list[tuple[float, float]]:
        """With those that touch made one."""
        joined: list[tuple[float, float]] = []
        for start, end in self.spans:
            if joined and start <= joined[-1][1] + EPS:
                joined[-1] = joined[-1][0], max(joined[-1][1], end)
            else:
                joined.append((start, end))
        return joined


def polls_of(log: TrackLog) -> list[Poll]:
    """The polls of a track, in order."""
    polls: list[Poll] = []
    for post in log.posts:
        end = math.inf if post.end is None else post.end
        if post.again:
            polls[-1].end, polls[-1].end_order, polls[-1].outcome = end, post.end_order, post.outcome
        else:
            polls.append(Poll(log, post.start, post.order, end, post.end_order, post.outcome))
    return polls


def pause_in(outcome: ChatResult | DistributeError | None) -> float:
    """Seconds for which an answer asks for a pause; 0 where it doesn't."""
    return pause_of(outcome) if isinstance(outcome, DistributeError) else 0.0
