"""How each wait had to end, worked out from what its track was answered. Used by `check`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

from attrs import define

from distribute_async import (
    APIResponseValidationError,
    APIStatusError,
    ChatResult,
    ClientClosedError,
    DistributeError,
    Pacing,
    SubmitUncertainError,
    TaskFailedError,
    TaskStatus,
    WaitTimeoutError,
)
from distribute_async._policy.faults import Action, pause_of, rule_for
from distribute_async._wire.ids import is_task_id
from distribute_async._wire.models import Created
from tests.machine.plan import Settings
from tests.machine.record import EPS, Outage, Pause, Poll, Spans
from tests.machine.recorder import Quiet, Step, TrackLog, WatchLog

#: What a deadline may be missed by, in seconds. (The promise is 50 ms; on a virtual clock nothing takes time.)
LATE = 0.005


class Circumstances(Protocol):
    """What is known of the whole run."""

    settings: Settings
    pacing: Pacing
    closed_at: float
    cut_at: float
    steps: dict[TrackLog, list[Step]]
    waits: dict[TrackLog, Spans]
    polls: dict[TrackLog, list[Poll]]
    outages: list[Outage]
    pauses: list[Pause]

    def down_after(self, poll: Poll) -> set[bool]:
        """Whether the service counted as down once this poll had ended; both where it may have."""

    def patience(self, poll: Poll) -> tuple[float, int]:
        """For so many seconds, and failures, a wait outlives a fault."""

    def signs_of(self, outage: Outage) -> list[tuple[Poll, float]]:
        """The signs of an outage from when it may be known on, each with the time of the next one, or of the end."""

    def bounds_of_probes(self, outage: Outage) -> list[tuple[float, float]]:
        """(time from which on it surely holds, time before which no probe is sent)."""

    def next_probe(self, at: float) -> float:
        """When the next request left after this time, or may have left at the latest."""

    def statuses_known(self, log: TrackLog) -> tuple[set[TaskStatus], bool]:
        """The statuses that may have been known of a task as a fetch of it began, and whether one surely was."""


@define
class _State:
    """What a track remembers of its faults."""

    failures: int = 0
    missing_since: float = math.inf
    strikes: int = 0
    fault: DistributeError | None = None


@define
class Trouble:
    """What one wait has met since the last good response: at least, and at most."""

    seen: tuple[int, int]
    seconds: tuple[float, float]


class Life:
    """What one track showed, when it was over, and why."""

    def __init__(self, judge: Circumstances, log: TrackLog) -> None:
        self.judge = judge
        self.log = log
        self.shown: list[tuple[float, TaskStatus]] = []
        #: When the task's last word came, and what it was.
        self.over: tuple[float, ChatResult | Created] | None = None
        #: The error that an exchange ended it in, and when.
        self.error: tuple[float, DistributeError] | None = None
        self.answers: list[Poll] = []
        #: (time, fault that may be the newest then).
        self.faults: list[tuple[float, set[int]]] = []
        #: The faults since the last good response, by the poll that met the last of them.
        self.troubles: dict[int, list[Poll]] = {}
        #: (time, when the next poll is due by then).
        self._dues: list[tuple[float, float]] = []
        self._unchanged = 0
        self._by_id: dict[int, DistributeError] = {}
        self._follow()

    def _follow(self) -> None:
        polls = [poll for poll in self.judge.polls.get(self.log, []) if poll.outcome is not None and not poll.stands_in]
        waits = self.judge.waits[self.log]
        states = [_State()]
        trouble: list[Poll] = []
        for n, poll in enumerate(polls):
            self.answers.append(poll)
            if isinstance(poll.outcome, DistributeError):
                trouble = [*trouble, poll]
                self.troubles[poll.order] = trouble
                heard = [self._failed(state, poll.outcome, poll) for state in states]
                ends = {end for end, _ in heard}
                states = _distinct([*(state for _, state in heard), *([] if waits.covers(poll.end) else states)])
                surely = ends == {True} and waits.covers(poll.end)
                error = self.told(poll.outcome, poll)
                if surely or (True in ends and n == len(polls) - 1 and self._was_told(poll, error)):
                    self.error = poll.end, error
                elif self.log.creates and poll.end > self.judge.closed_at + EPS:
                    self.error = poll.end, ClientClosedError("while it was under way")
            elif poll.outcome is not None:
                states, trouble = [_State()], []
                self._answered(poll, poll.outcome)
            self._remember(poll.end, states)
            self._dues.append((poll.end, max(self._due(poll, state) for state in states)))
            if self.over is not None or self.error is not None:
                return

    def told(self, fault: DistributeError, poll: Poll | None) -> DistributeError:
        """What a wait ends in for a fault: for a creation it may be not to know."""
        if not self.log.creates or poll is None or not poll.sent or _has_done_nothing(fault):
            return fault
        return SubmitUncertainError(fault)

    def may_exist(self, at: float) -> set[bool]:
        """Whether the service may have got the request to create it, by a time at which it isn't over."""
        if not self.log.creates:
            return {False}
        posts = [post for post in self.log.posts if not post.stands_in]
        sent = [post for post in posts if post.sent is not None and post.sent <= at + EPS]
        if not sent:
            return {False}
        last = sent[-1]
        assert last.sent is not None
        is_refused = isinstance(last.outcome, DistributeError) and _has_done_nothing(last.outcome)
        end = math.inf if last.end is None else last.end
        may = {True} if not is_refused or end > at - EPS else set[bool]()
        return may | ({False} if last.sent > at - EPS or (is_refused and end < at + EPS) else set[bool]())

    def trouble_of(self, poll: Poll, started: float) -> Trouble:
        """What a wait that began then has met by this failed poll."""
        waits = self.judge.waits[self.log]
        faults = self.troubles[poll.order]
        sure = [fault for fault in faults if waits.covers(fault.end)]
        # Time in which nobody waited counts for nobody.
        seconds = [waits.within(max(some[0].end, started), poll.end) if some else 0.0 for some in (sure, faults)]
        return Trouble(
            (sum(fault.end > started + EPS for fault in sure), sum(fault.end > started - EPS for fault in faults)),
            (seconds[0], seconds[1]),
        )

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
        if self.judge.down_after(poll) == {True} and self.judge.waits[self.log].covers(poll.end):
            return poll.end
        waits = self.judge.waits[self.log]
        due = poll.end + min(0.5 * 2.0 ** (state.failures - 1), settings.retry.max)
        if state.missing_since < math.inf:
            due = min(due, poll.end + settings.not_found_grace - waits.within(state.missing_since, poll.end))
        seconds, least = self.judge.patience(poll)
        for step in self.judge.steps[self.log]:
            if not self.log.single and step.asked + EPS < poll.end < step.ended - EPS and poll.order in self.troubles:
                met = self.trouble_of(poll, step.watch.started)
                if met.seen[0] + 1 >= least:
                    due = min(due, poll.end + max(0.0, seconds - met.seconds[0]))
        return due

    def due(self, at: float) -> float:
        """When the next poll is due, by what was known at a time."""
        return max((due for when, due in self._dues if when <= at), default=-math.inf)

    def queued_from(self, at: float, until: float) -> float:
        """From when on, between two times, it surely queues for its turn; infinite where that isn't sure."""
        polls = self.judge.polls.get(self.log, [])
        for since in [at, *(poll.end for poll in polls if at < poll.end < until)]:
            when = max(since, self.due(since + EPS))
            if when < until and not any(poll.start - EPS <= when and poll.end > when + EPS for poll in polls):
                return when
        return math.inf

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
            return 0 in possible or not sure
        return any(_are_alike(fault, self._by_id[key]) for key in possible if key)

    def _was_told(self, poll: Poll, error: DistributeError) -> bool:
        """Where it may have ended the track: whether those who waited then, or else those who came later, were told."""
        steps = self.judge.steps[self.log]
        if self.judge.waits[self.log].covers(poll.end):
            steps = [step for step in steps if step.ended <= poll.end + LATE]
        return any(step.ended >= poll.end - EPS and _are_alike(step.ending, error) for step in steps)

    def _answered(self, poll: Poll, result: ChatResult | Created) -> None:
        if isinstance(result, Created):
            if is_task_id(result.id):
                self.over = poll.end, result
            else:
                self.error = poll.end, SubmitUncertainError(_NO_ID)
            return
        self._unchanged += 1
        if not self.shown or self.shown[-1][1] != result.status:
            self.shown.append((poll.end, result.status))
            self._unchanged = 0
        if self.log.single or result.is_over:
            self.over = poll.end, result

    def _failed(self, state: _State, fault: DistributeError, poll: Poll) -> tuple[bool, _State]:
        """Whether this fault ends the track, and what it remembers otherwise."""
        settings, action = self.judge.settings, rule_for(fault).action
        missing = min(state.missing_since, poll.end) if action is Action.GRACE else math.inf
        state = _State(
            state.failures + 1,
            missing,
            state.strikes + 1 if action is Action.MALFORMED else 0,
            fault,
        )
        if self.log.single:
            spent = action is Action.GRACE or state.failures >= settings.attempts
        else:
            away = self.judge.waits[self.log].within(missing, poll.end) if missing < math.inf else 0.0
            spent = action is Action.GRACE and away >= settings.not_found_grace - 1e-6
        if self.log.creates and poll.sent:  # it must not be sent twice
            spent = spent or not (isinstance(fault, APIStatusError) and fault.status_code in {429, 503})
        ends = action is Action.END or state.strikes >= 3 or spent or pause_of(fault) > settings.max_retry_after
        return ends, state


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
        yield from self._limits(step)
        yield from self._outages(step)
        yield from self._outlasted_by_pauses(step)
        yield from self._outlasted_by_outages(step)
        yield self.deadline, self._is_timeout(ending)
        yield from self._closing(step)

    def _is_last_word(self, step: Step, result: ChatResult | Created) -> bool:
        if isinstance(result, Created):
            return bool(step.ending == result.id)
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

    def _limits(self, step: Step) -> Iterator[tuple[float, bool]]:
        """Faults without a good response between them end a wait after a time, and after some of its own."""
        for poll in self.life.answers:
            if self.life.log.single or poll.order not in self.life.troubles:
                continue
            if not step.asked - EPS <= poll.end <= step.ended + EPS:
                continue
            down = self.judge.down_after(poll)
            seconds, least = self.judge.patience(poll)
            met = self.life.trouble_of(poll, self.watch.started)
            may = False in down and met.seen[1] >= least and met.seconds[1] >= seconds - EPS
            surely = down == {False} and met.seen[0] >= least and met.seconds[0] >= seconds - 1e-6
            surely = surely and step.asked + EPS < poll.end
            is_it = _are_alike(step.ending, poll.outcome)
            # Where it only may have ended it, a later fault that looks the same may have as well.
            if surely or (may and is_it and abs(max(poll.end, step.asked) - step.ended) <= LATE):
                yield poll.end, is_it

    def _outages(self, step: Step) -> Iterator[tuple[float, bool]]:
        """An outage that lasts too long ends all waits that queue."""
        for outage in self.judge.outages:
            if outage.maybe > step.ended + EPS or outage.until < step.asked - EPS:
                continue
            for sign, until in self.judge.signs_of(outage):
                limit = max(outage.since, self.watch.started) + self.judge.patience(sign)[0]
                is_it = _are_alike(step.ending, sign.outcome)
                since = max(outage.maybe, sign.end, limit, step.asked)
                if is_it and since - EPS <= step.ended <= until + EPS:
                    yield step.ended, True
                since = max(since, outage.surely)
                at = self.life.queued_from(since, min(until, outage.until) - EPS)
                if at < math.inf:
                    yield at, is_it

    def _outlasted_by_pauses(self, step: Step) -> Iterator[tuple[float, bool]]:
        """Who waits for an answer now is refused at once where it can't be asked for before the deadline."""
        for pause, following in pairwise([*self.judge.pauses, None]):
            assert pause is not None
            until = pause.until if following is None else min(pause.until, following.start)
            if pause.start > step.ended + EPS or until < step.asked - EPS:
                continue
            is_it = _is_rest(step.ending, pause, step.ended)
            if is_it and pause.start - EPS <= step.ended <= until + EPS and self._waits_for_an_answer(step.ended - EPS):
                probe = self.judge.next_probe(step.ended) if self._is_down(step.ended) else pause.until
                if self.deadline < max(pause.until, probe) + EPS:
                    yield step.ended, True
            at = self.life.queued_from(max(pause.start, step.asked), until - EPS)
            if at < math.inf and self.deadline < pause.until - EPS and self._waits_for_an_answer(at + EPS, pause.start):
                yield at, _is_rest(step.ending, pause, at)

    def _outlasted_by_outages(self, step: Step) -> Iterator[tuple[float, bool]]:
        """The same for an outage, whose next probe comes later."""
        for outage in self.judge.outages:
            if outage.maybe > step.ended + EPS or outage.until < step.asked - EPS:
                continue
            alike = [
                (sign, until) for sign, until in self.judge.signs_of(outage) if _are_alike(step.ending, sign.outcome)
            ]
            if any(sign.end - EPS <= step.ended <= until + EPS for sign, until in alike) and outage.covers(step.ended):
                is_new = self._waits_for_an_answer(step.ended - EPS)
                if is_new and self.deadline < self.judge.next_probe(step.ended) + EPS:
                    yield step.ended, True
            for since, bound in self.judge.bounds_of_probes(outage):
                at = self.life.queued_from(max(since, step.asked), min(bound, outage.until) - EPS)
                is_paused = any(pause.start - EPS <= at <= pause.until + EPS for pause in self.judge.pauses)
                if (
                    at < math.inf
                    and self.deadline < bound - EPS
                    and self._waits_for_an_answer(at + EPS, since)
                    and not is_paused
                ):
                    yield at, any(sign.end - EPS <= at <= until + EPS for sign, until in alike)

    def _is_down(self, at: float) -> bool:
        return any(outage.covers(at) for outage in self.judge.outages)

    def _waits_for_an_answer(self, at: float, since: float = -math.inf) -> bool:
        """Whether it is a call, or a wait that begins, for what was never asked for, after the obstacle did."""
        if self.watch.single:
            return True
        started = self.watch.started
        is_new = abs(at - started) <= 3 * EPS and since < started - EPS
        return is_new and not any(post.start <= at for post in self.life.log.posts)

    def _is_timeout(self, ending: Any) -> bool:
        if self._is_closed(ending, self.deadline) and self.deadline > self.judge.closed_at - EPS:
            return True  # a creation whose time was up before the grace was
        may_exist = self.life.may_exist(self.deadline)
        if isinstance(ending, SubmitUncertainError):
            return True in may_exist and ending.last_error is None
        return False in may_exist and isinstance(ending, WaitTimeoutError)

    def _closing(self, step: Step) -> Iterator[tuple[float, bool]]:
        """Closing ends all waits, creations under way after the grace that they have."""
        judge, ending = self.judge, step.ending
        at, cut_at = judge.closed_at, judge.cut_at
        under_way = [
            post.start < at - EPS and (post.end > at + EPS or post.outcome is None)
            for post in self.life.log.posts
            if post.start <= at + EPS and post.end is not None and post.end >= at - EPS
            if self.watch.creates and not post.stands_in
        ]
        has_grace = bool(under_way) and cut_at > at
        is_it = self._is_closed(ending, at)
        if not has_grace or (is_it and not all(under_way) and abs(step.ended - at) <= LATE):
            yield at, is_it
        if has_grace:
            yield cut_at, self._is_closed(ending, cut_at)

    def _is_closed(self, ending: Any, at: float) -> bool:
        may_exist = self.life.may_exist(at)
        if isinstance(ending, SubmitUncertainError):
            return True in may_exist and isinstance(ending.last_error, ClientClosedError)
        return False in may_exist and isinstance(ending, ClientClosedError)

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
        if self.watch.single and not self.watch.creates:
            before, surely = self.judge.statuses_known(self.life.log)
            statuses |= set(before)
            if surely:
                statuses -= {None}
        wrong = [
            name
            for name, is_right in {
                # In whatever case of letters: it is that of the one who came first.
                "task_id": (error.task_id or "").lower() == self.watch.task_id.lower(),
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
    return list({(s.failures, s.missing_since, s.strikes, id(s.fault)): s for s in states}.values())


#: What an id means that nobody could ask for.
_NO_ID = APIResponseValidationError("the id in the response is no version 4 UUID")


def _has_done_nothing(fault: DistributeError) -> bool:
    """Whether this says that the request had no effect: it was turned away."""
    return isinstance(fault, APIStatusError) and fault.status_code in {503, *range(300, 500)} - {303}


def _is_rest(ending: Any, pause: Pause, at: float) -> bool:
    """Whether somebody was told of a pause, and of what is left of it at a time."""
    fault = pause.fault
    return (
        type(ending) is type(fault)
        and (ending.status_code, ending.message, ending.request_id)
        == (fault.status_code, fault.message, fault.request_id)
        and ending.retry_after is not None
        and abs(ending.retry_after - (pause.until - at)) <= LATE
    )


def _are_alike(one: Any, other: Any) -> bool:
    if not isinstance(one, DistributeError) or type(one) is not type(other):
        return False
    if isinstance(one, SubmitUncertainError):
        return one.last_error is other.last_error is None or _are_alike(one.last_error, other.last_error)
    return isinstance(one, ClientClosedError) or str(one.args) == str(other.args)
