"""How each wait had to end, worked out from what its track was answered. Used by `check`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

from attrs import define, evolve

from distribute_async import (
    ChatResult,
    ClientClosedError,
    DistributeError,
    Pacing,
    TaskFailedError,
    TaskStatus,
    WaitTimeoutError,
)
from distribute_async._faults import Action, pause_of, rule_for
from tests.machine.plan import Settings
from tests.machine.record import EPS, Outage, Poll, Spans
from tests.machine.recorder import Quiet, Step, TrackLog, WatchLog

#: What a deadline may be missed by, in seconds. (The promise is 50 ms; on a virtual clock nothing takes time.)
LATE = 0.005


class Circumstances(Protocol):
    """What is known of the whole run."""

    settings: Settings
    pacing: Pacing
    closed_at: float
    steps: dict[TrackLog, list[Step]]
    waits: dict[TrackLog, Spans]
    polls: dict[TrackLog, list[Poll]]

    def outages_at(self, at: float) -> list[Outage | None]:
        """In which outage a time may be; None for none."""

    def last_fault(self, at: float) -> list[DistributeError]:
        """The newest sign of an outage at a time; several where they came at the same moment."""


@define
class _State:
    """What a track remembers of its faults."""

    failures: int = 0
    fault_since: float = math.inf
    missing_since: float = math.inf
    strikes: int = 0
    fault: DistributeError | None = None


class Life:
    """What one track showed, when it was over, and why."""

    def __init__(self, judge: Circumstances, log: TrackLog) -> None:
        self.judge = judge
        self.log = log
        self.shown: list[tuple[float, TaskStatus]] = []
        #: When the task's last word came, and what it was.
        self.over: tuple[float, ChatResult] | None = None
        #: The error that an exchange ended it in, and when.
        self.error: tuple[float, DistributeError] | None = None
        self.answers: list[Poll] = []
        #: (time, fault that may be the newest then).
        self.faults: list[tuple[float, set[int]]] = []
        #: (time, when the next poll is due by then).
        self._dues: list[tuple[float, float]] = []
        self._unchanged = 0
        self._by_id: dict[int, DistributeError] = {}
        self._follow()

    def _follow(self) -> None:
        polls = [poll for poll in self.judge.polls.get(self.log, []) if poll.outcome is not None]
        waits = self.judge.waits[self.log]
        states, before = [_State()], -1.0
        for n, poll in enumerate(polls):
            surely, perhaps = waits.breaks(before, poll.end)
            states = [*([] if surely and before >= 0 else states), *([_State()] if perhaps else [])]
            before = poll.end
            self.answers.append(poll)
            if isinstance(poll.outcome, ChatResult):
                states = [_State()]
                self._answered(poll, poll.outcome)
            elif isinstance(poll.outcome, DistributeError):
                if not waits.covers(poll.end):
                    states += [evolve(state) for state in states]  # perhaps nobody heard it
                heard = [
                    self._failed(state, poll.outcome, poll.end, outage)
                    for state in states
                    for outage in self.judge.outages_at(poll.end)
                ]
                ends = {end for end, _ in heard}
                states = _distinct([*(state for _, state in heard), *([] if waits.covers(poll.end) else states)])
                surely = ends == {True} and waits.covers(poll.end)
                if surely or (True in ends and n == len(polls) - 1 and self._was_told(poll)):
                    self.error = poll.end, poll.outcome
            self._remember(poll.end, states)
            self._dues.append((poll.end, max(self._due(poll, state) for state in states)))
            if self.over is not None or self.error is not None:
                return

    def _remember(self, at: float, states: list[_State]) -> None:
        self._by_id |= {id(state.fault): state.fault for state in states if state.fault is not None}
        self.faults.append((at, {id(state.fault) if state.fault is not None else 0 for state in states}))

    def _due(self, poll: Poll, state: _State) -> float:
        """The latest time for the next poll."""
        settings, pacing = self.judge.settings, self.judge.pacing
        if state.failures == 0 and settings.learns:
            return poll.end + pacing.max
        if state.failures == 0:
            return poll.end + max(pacing.floor, min(pacing.initial * pacing.factor**self._unchanged, pacing.max))
        due = poll.end + min(0.5 * 2.0 ** (state.failures - 1), settings.retry.max)
        due = min(due, state.missing_since + settings.not_found_grace)
        if state.failures >= 2 and not self.log.single:
            due = min(due, max(poll.end, state.fault_since + settings.max_outage))
        return due

    def due(self, at: float) -> float:
        """When the next poll is due, by what was known at a time."""
        return max((due for when, due in self._dues if when <= at), default=-math.inf)

    def goes_on(self, at: float) -> bool:
        """Whether it wasn't over before."""
        ends = [end[0] for end in (self.over, self.error) if end is not None]
        return all(end > at for end in ends)

    def may_be_last_fault(self, fault: DistributeError | None, at: float) -> bool:
        """Whether this may be the newest fault since the last good answer."""
        known = [faults for when, faults in self.faults if when <= at + EPS]
        sure = [faults for when, faults in self.faults if when < at - EPS]
        possible = set[int]().union(*known[max(0, len(sure) - 1) :])
        if fault is None:
            since = max((when for when, _ in self.faults if when < at - EPS), default=-1.0)
            return 0 in possible or not known or not sure or self.judge.waits[self.log].breaks(since, at)[1]
        return any(_are_alike(fault, self._by_id[key]) for key in possible if key)

    def _was_told(self, poll: Poll) -> bool:
        """Where it may have ended the track: whether those who waited then, or else those who came later, were told."""
        steps = self.judge.steps[self.log]
        if self.judge.waits[self.log].covers(poll.end):
            steps = [step for step in steps if step.ended <= poll.end + LATE]
        return any(step.ended >= poll.end - EPS and _are_alike(step.ending, poll.outcome) for step in steps)

    def _answered(self, poll: Poll, result: ChatResult) -> None:
        self._unchanged += 1
        if not self.shown or self.shown[-1][1] != result.status:
            self.shown.append((poll.end, result.status))
            self._unchanged = 0
        if self.log.single or result.is_over:
            self.over = poll.end, result

    def _failed(self, state: _State, fault: DistributeError, at: float, outage: Outage | None) -> tuple[bool, _State]:
        """Whether this fault ends the track, and what it remembers otherwise."""
        settings, action = self.judge.settings, rule_for(fault).action
        missing = min(state.missing_since, at) if action is Action.GRACE else math.inf
        state = _State(
            state.failures + 1,
            min(state.fault_since, at),
            missing,
            state.strikes + 1 if action is Action.STRIKE else 0,
            fault,
        )
        if self.log.single:
            spent = action is Action.GRACE or state.failures >= settings.attempts
        else:
            spent = at >= missing + settings.not_found_grace - 1e-6
        ends = action is Action.END or state.strikes >= 3 or spent or pause_of(fault) > settings.max_retry_after
        if outage is not None:
            ends = ends or at >= max(outage.since, self.log.created) + settings.max_outage - 1e-6
        elif state.failures >= 3:
            ends = ends or at >= state.fault_since + settings.max_outage - 1e-6
        return ends, state

    def error_of_outage(self, error: DistributeError, at: float) -> bool:
        """Whether an outage that lasts too long may have ended the track in this error at this time."""
        limit = self.judge.settings.max_outage
        return any(
            outage is not None
            and at >= max(outage.since, self.log.created) + limit - EPS
            and any(_are_alike(error, fault) for fault in self.judge.last_fault(at))
            for outage in self.judge.outages_at(at)
        )


class Reader:
    """One watch: how each of its steps had to end."""

    def __init__(self, judge: Circumstances, watch: WatchLog, life: Life) -> None:
        self.judge = judge
        self.watch = watch
        self.life = life
        self.deadline = watch.started + watch.timeout
        known = [sum(at < watch.started + eps for at, _ in life.shown) for eps in (-EPS, EPS)]
        #: Where its cursor may begin: at the newest status that was known.
        self.firsts = range(max(0, known[0] - 1), max(0, known[1] - 1) + 1)
        self.cursors = list(self.firsts)
        #: What it ended in before, and when.
        self.failure: tuple[float, DistributeError] | None = None

    def complaint(self, step: Step) -> str | None:
        """What was wrong with a step; None if nothing was."""
        if isinstance(step.ending, DistributeError):
            told = self._told_wrong(step, step.ending)
            if told:
                return told
        expected = list(self._possible(step))
        at = min(max(when, step.asked) for when, _ in expected) if expected else math.inf
        fitting = [when for when, fits in expected if fits and max(when, step.asked) <= step.ended + EPS]
        if step.ended > at + LATE:
            return f"it should have ended at {at}"
        if not any(abs(max(when, step.asked) - step.ended) <= LATE for when in fitting):
            return f"it shouldn't have ended like this at {step.ended}, but {[w for w, _ in expected]}"
        if min(max(when, step.asked) for when in fitting) > at + EPS and step.ended > at + EPS:
            return f"something else came first, at {at}"
        if isinstance(step.ending, TaskStatus):
            self.cursors = [cursor + 1 for cursor in self.cursors if self._shows(cursor, step)]
        if isinstance(step.ending, DistributeError) and not isinstance(step.ending, ClientClosedError):
            self.failure = self.failure or (step.ended, step.ending)
        return None

    def _shows(self, cursor: int, step: Step) -> bool:
        shown = self.life.shown
        return cursor < len(shown) and shown[cursor][1] == step.ending and shown[cursor][0] <= step.ended + EPS

    def _possible(self, step: Step) -> Iterator[tuple[float, bool]]:
        """The times at which something ends this step, and whether that is what happened."""
        ending, life = step.ending, self.life
        is_error = isinstance(ending, DistributeError)
        for at in step.quits:
            yield at, ending is Quiet.CANCELLED
        if step.op == "next":
            nexts = [life.shown[cursor] if cursor < len(life.shown) else None for cursor in self.cursors]
            for shown in nexts:
                if shown is not None:
                    yield shown[0], isinstance(ending, TaskStatus) and any(self._shows(c, step) for c in self.cursors)
            if any(shown is not None and shown[0] < step.asked - EPS for shown in nexts) and len(set(nexts)) == 1:
                return  # a change that is known already comes before all else
        if life.error is not None:
            yield life.error[0], is_error and _are_alike(ending, life.error[1])
        if self.failure is not None:
            yield self.failure[0], is_error and _are_alike(ending, self.failure[1])
        if life.over is not None:
            yield life.over[0], self._is_last_word(step, life.over[1])
            if life.over[0] < step.asked - EPS and self.failure is None:
                return  # and so does an end
        yield from self._refusals(step)
        yield self.deadline, isinstance(ending, WaitTimeoutError)
        yield self.judge.closed_at, isinstance(ending, ClientClosedError)
        if is_error and not isinstance(ending, WaitTimeoutError):
            # What ended it for those who waited then stands for all later; they may have left at that very moment.
            for other in self.judge.steps[life.log]:
                has_left = other.ending is Quiet.CANCELLED and other.ended <= step.asked + EPS
                is_it = (has_left and step.ended <= step.asked + EPS) or _are_alike(other.ending, ending)
                if is_it and life.error_of_outage(ending, other.ended):
                    yield other.ended, True

    def _is_last_word(self, step: Step, result: ChatResult) -> bool:
        if step.op == "next":
            return step.ending is Quiet.STOPPED
        if result.is_failed and not self.watch.single:
            return isinstance(step.ending, TaskFailedError) and step.ending.result == result
        return bool(step.ending == result)

    def _refusals(self, step: Step) -> Iterator[tuple[float, bool]]:
        """A pause that lasts past the deadline ends the wait at once."""
        for poll in self.life.answers:
            if not isinstance(poll.outcome, DistributeError) or not step.asked - EPS <= poll.end <= step.ended + EPS:
                continue
            if self.deadline < poll.end + pause_of(poll.outcome):
                is_it = isinstance(step.ending, DistributeError) and _are_alike(step.ending, poll.outcome)
                surely = step.asked + EPS < poll.end
                if is_it or surely:
                    yield poll.end, is_it

    def _told_wrong(self, step: Step, error: DistributeError) -> str | None:
        """What an error says about the wait."""
        polls = self.life.answers
        attempts = range(
            sum(poll.end < step.ended - EPS and self._was_heard(poll) for poll in polls),
            sum(poll.end <= step.ended + EPS for poll in polls) + 1,
        )
        statuses = {None, *(status for at, status in self.life.shown if at >= step.ended - EPS)}
        known = [status for at, status in self.life.shown if at < step.ended - EPS]
        statuses |= set(known[-1:])
        if known:
            statuses -= {None}
        wrong = [
            name
            for name, is_right in {
                "task_id": error.task_id == self.watch.task_id,
                "attempts": error.attempts in attempts,
                "elapsed": abs(error.elapsed - (step.ended - self.watch.started)) <= LATE,
                "last_status": error.last_status in statuses,
                "last_error": not isinstance(error, WaitTimeoutError)
                or self.failure is not None
                or self.life.may_be_last_fault(error.last_error, step.ended),
            }.items()
            if not is_right
        ]
        return f"its {wrong} is wrong" if wrong else None

    def _was_heard(self, poll: Poll) -> bool:
        return isinstance(poll.outcome, ChatResult) or self.judge.waits[poll.log].covers(poll.end)


def _distinct(states: list[_State]) -> list[_State]:
    return list({(s.failures, s.fault_since, s.missing_since, s.strikes, id(s.fault)): s for s in states}.values())


def _are_alike(one: Any, other: Any) -> bool:
    return isinstance(one, DistributeError) and type(one) is type(other) and str(one.args) == str(other.args)
