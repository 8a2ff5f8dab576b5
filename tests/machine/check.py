"""The judge: holds what happened in a run to what the library promises, whatever its inside. Used by the tests.

From the exchanges alone it works out what each track showed and when, and when the service counted as down; from that,
how and when each wait had to end (`endings`), and which requests were allowed. Where two things happened at the same
moment of the virtual clock, either order is right.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

from distribute_async import (
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    ChatResult,
    ClientClosedError,
    DistributeError,
    TaskStatus,
)
from distribute_async._policy.faults import Action, HealthSignal, rule_for
from distribute_async._wire.models import Created
from tests.machine.endings import LATE, Life, Reader
from tests.machine.record import EPS, Outage, Pause, Poll, Spans, pause_in, polls_of
from tests.machine.recorder import Post, Quiet, Run, Step, TrackLog, WatchLog
from tests.waiting import KEY


def complaints(run: Run) -> list[str]:
    """All that was not as promised."""
    return [*run.complaints, *_Judge(run).verdict()]


class _Judge:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.plan = run.plan
        self.settings = run.plan.settings
        self.pacing = run.plan.settings.pacing
        self.closed_at = math.inf if run.closed_at is None else run.closed_at
        self.cut_at = math.inf if run.cut_at is None else run.cut_at
        self.logs = list({post.log: None for post in run.posts})
        self.polls = {log: polls_of(log) for log in self.logs}
        self.all_polls = sorted((poll for polls in self.polls.values() for poll in polls), key=lambda poll: poll.order)
        self.orders = [post.order for post in run.posts]
        self.starts = [post.start for post in run.posts]
        self.ends = sorted(math.inf if post.end is None else post.end for post in run.posts)
        self.ups = sorted(poll.end for poll in self.all_polls if poll.evidence is HealthSignal.UP)
        self.steps: dict[TrackLog, list[Step]] = {log: [] for log in self.logs}
        self.watches: dict[WatchLog, list[Step]] = {}
        for step in run.steps:
            self.watches.setdefault(step.watch, []).append(step)
            if step.watch.log is not None:
                self.steps.setdefault(step.watch.log, []).append(step)
        self.waits = {log: Spans.of((step.asked, step.ended) for step in steps) for log, steps in self.steps.items()}
        self.concluded = sorted(self.all_polls, key=lambda poll: poll.end_order)
        self.responses = [poll.end_order for poll in self.concluded if _is_response(poll.outcome)]
        self.outages = list(self._outages())
        self.pauses = list(self._all_pauses())
        self.lives = {log: Life(self, log) for log in self.steps}

    def verdict(self) -> Iterator[str]:
        """Everything."""
        if any(KEY in text for text in self.run.texts):
            yield f"the key is in a text: {next(text for text in self.run.texts if KEY in text)}"
        for post in self.run.posts:
            if post.end is None:
                yield f"an exchange never ended: {post}"
        for watch, steps in self.watches.items():
            yield from self._watch(watch, sorted(steps, key=lambda step: step.ended))
        yield from self._sharing()
        yield from self._belongs()
        yield from self._limits()
        yield from self._slots()
        yield from self._pauses()
        for outage in self.outages:
            yield from self._probes(outage)
            yield from self._return(outage)
        for log in self.logs:
            yield from self._spacing(log)
            if log.creates:
                yield from self._creation(log)
        yield from self._turns()
        yield from self._liveness()

    # When the service was down.

    def _outages(self) -> Iterator[Outage]:
        failures, failing, since = 0, set[str](), 0.0
        outage: Outage | None = None
        for poll in self.concluded:
            if poll.evidence is HealthSignal.UP:
                if outage is not None:
                    outage.until, outage.until_order = poll.end, poll.end_order
                    yield outage
                failures, outage = 0, None
                failing.clear()
            elif poll.evidence is HealthSignal.DOWN:
                assert isinstance(poll.outcome, DistributeError)
                since = poll.end if failures == 0 else since
                failures += 1
                failing.add(poll.key)
                if failures < 5:
                    continue
                alone = sum(waits.touches(poll.end) for waits in self.waits.values()) <= 1
                crowd = sum(waits.covers(poll.end) for waits in self.waits.values()) > 1
                if outage is None and (len(failing) > 1 or not crowd):
                    outage = Outage(since, poll.end, poll.end_order)
                if outage is not None:
                    outage.fault = poll.outcome
                    if outage.surely == math.inf and (len(failing) > 1 or alone):
                        outage.surely, outage.surely_order = poll.end, poll.end_order
        if outage is not None:
            yield outage

    def _all_pauses(self) -> Iterator[Pause]:
        """Those that hold requests back longer than any before."""
        until = -math.inf
        for poll in self.concluded:
            pause = pause_in(poll.outcome)
            if pause > 0 and poll.end + min(pause, self.settings.max_retry_after) > until:
                assert isinstance(poll.outcome, APIStatusError)
                until = poll.end + min(pause, self.settings.max_retry_after)
                yield Pause(poll.end, poll.end_order, until, poll.outcome)

    def down_after(self, poll: Poll) -> set[bool]:
        """Whether the service counted as down once this poll had ended; both where it may have."""
        for outage in self.outages:
            if outage.maybe_order <= poll.end_order and (
                outage.until == math.inf or poll.end_order < outage.until_order
            ):
                is_known = outage.surely < math.inf and outage.surely_order <= poll.end_order
                return {True} if is_known else {True, False}
        return {False}

    def patience(self, poll: Poll) -> tuple[float, int]:
        """For so many seconds, and failures, a wait outlives a fault."""
        assert isinstance(poll.outcome, DistributeError)
        had_response = bool(self.responses) and self.responses[0] <= poll.end_order
        if rule_for(poll.outcome).action is Action.CONNECT and not had_response:
            return self.settings.first_contact, self.settings.attempts
        return self.settings.max_outage, 3

    def signs_of(self, outage: Outage) -> list[tuple[Poll, float]]:
        """The signs of an outage from when it may be known on, each with the time of the next one, or of the end."""
        downs = [
            poll for poll in self.concluded if poll.evidence is HealthSignal.DOWN and poll.end <= outage.until + EPS
        ]
        known = [poll for poll in downs if poll.end_order >= outage.maybe_order]
        ends = [*(poll.end for poll in known[1:]), outage.until]
        return list(zip(known, ends, strict=True))

    def bounds_of_probes(self, outage: Outage) -> list[tuple[float, float]]:
        """(time from which on it surely holds, time before which no probe is sent)."""
        if outage.surely == math.inf:
            return []
        bounds, failed = [(outage.surely, outage.surely + 0.25)], 0
        for probe in self._probing(outage):
            failed += probe.outcome is not None
            if probe.outcome is not None and probe.end is not None:
                bounds.append((probe.end, probe.end + min(0.5 * 2**failed, 5.0) / 2))
        return bounds

    def next_probe(self, at: float) -> float:
        """When the next request left after this time, or may have left at the latest."""
        following = bisect_right(self.starts, at + EPS)
        return min(self.starts[following] if following < len(self.starts) else math.inf, at + 5.0 + EPS)

    def statuses_known(self, log: TrackLog) -> tuple[set[TaskStatus], bool]:
        """The statuses that may have been known of a task as a fetch of it began, and whether one surely was."""
        known, surely = set[TaskStatus](), False
        for other, life in self.lives.items():
            if other.task_id == log.task_id and not other.single:
                shown = [(at, status) for at, status in life.shown if at <= log.created + EPS]
                sure = [at for at, _ in shown if at < log.created - EPS]
                known |= {status for _, status in shown[max(0, len(sure) - 1) :]}
                surely = surely or (bool(sure) and self.waits[other].covers(log.created) and life.goes_on(log.created))
        return known, surely

    # How each wait ended.

    def _watch(self, watch: WatchLog, steps: list[Step]) -> Iterator[str]:
        if watch.log is None:
            for step in steps:
                # Nothing was followed: the client was closed already, or it was cancelled before its first step.
                if isinstance(step.ending, ClientClosedError) and step.ended >= self.closed_at - EPS:
                    continue
                if step.ending is Quiet.CANCELLED:
                    continue
                yield f"{_told(step)}: it followed nothing"
            return
        reader = Reader(self, watch, self.lives[watch.log])
        if watch.single and not (watch.log.single and abs(watch.log.created - watch.started) <= EPS):
            yield f"a fetch of {watch.task_id} at {watch.started} followed what was there already"
        error = reader.life.error
        if error is not None and error[0] < watch.started - EPS:
            yield f"the watch of {watch.task_id} at {watch.started} followed what had ended in {error}"
        for step in steps:
            complaint = reader.complaint(step)
            if complaint:
                yield f"{_told(step)}: {complaint}"
                return
        seen = [status for _, status in self.lives[watch.log].shown]
        told = list(watch.history)
        if told and not any(told == seen[first : first + len(told)] for first in reader.firsts):
            yield f"the history {told} isn't what was shown: {seen}"

    # Which requests there were.

    def _sharing(self) -> Iterator[str]:
        """All who wait for a task share what is asked."""
        for log in self.lives:
            for other, life in self.lives.items():
                if other is log or other.single or log.single or other.task_id != log.task_id:
                    continue
                if self.waits[other].covers(log.created) and life.goes_on(log.created + EPS):
                    yield f"{log.task_id} was followed anew at {log.created}, though somebody waited for it"

    def _belongs(self) -> Iterator[str]:
        for post in self.run.posts:
            waits = self.waits.get(post.log)
            end = math.inf if post.end is None else post.end
            if waits is None or not any(a - EPS <= post.start and end <= b + EPS for a, b in waits.joined):
                yield f"a request from {post.start} to {post.end} for {post.log.task_id} for nobody"
            if post.start > self.closed_at + EPS and not post.again:
                yield f"a request at {post.start}, after the client was closed at {self.closed_at}"
            is_closing = min(abs(end - self.closed_at), abs(end - self.cut_at)) <= EPS
            if post.outcome is None and waits is not None and waits.covers(end) and not is_closing:
                yield f"the request from {post.start} was cut at {end}, though somebody waits for {post.log.task_id}"
        for log, polls in self.polls.items():
            for one, other in pairwise(polls):
                if other.order < one.end_order:
                    yield f"two requests at once for {log.task_id}: {one.start}…{one.end}, {other.start}"

    def _limits(self) -> Iterator[str]:
        for post in self.run.posts:
            if isinstance(post.outcome, APITimeoutError) and post.end is not None:
                is_connected = post.outcome.reason == "timeout"
                most = self.settings.exchange_timeout if is_connected else self.settings.connect_timeout
                if abs(post.end - post.start - most) > EPS:
                    yield f"the request from {post.start} was cut at {post.end}: {post.outcome}"

    def _slots(self) -> Iterator[str]:
        for post in self.run.posts:
            running = self._running(post)
            if running > self.settings.max_in_flight:
                yield f"{running} requests at once at {post.start}"
        rate = self.settings.max_requests_per_second
        for one, other in pairwise(self.run.posts):
            if rate is not None and other.start - one.start < 1 / rate - EPS:
                yield f"over the rate: requests at {one.start} and {other.start}"

    def _running(self, post: Post) -> int:
        """The requests under way once this one has begun, without those that end at the same moment."""
        begun = bisect_right(self.orders, post.order)
        return begun - bisect_right(self.ends, post.start + EPS)

    def _pauses(self) -> Iterator[str]:
        """Nothing is sent in a pause, and only what good responses allow for after it."""
        held = [(pause.start, pause.order, pause.until) for pause in self.pauses]
        for poll in self.concluded:
            if pause_in(poll.outcome) <= 0:
                continue
            until = max(end for _, order, end in held if order <= poll.end_order)
            goods = bisect_left(self.ups, max(until, poll.end) - EPS)
            for n in range(bisect_right(self.starts, poll.end + EPS), len(self.starts)):
                post = self.run.posts[n]
                if post.start < until - EPS:
                    yield f"a request at {post.start}, within the pause from {poll.end} to {until}"
                    continue
                room = 1 + bisect_right(self.ups, post.start + EPS) - goods
                if room > self.settings.max_in_flight:
                    break
                running = self._running(post)
                if running > room and not post.again:
                    yield f"{running} requests at once at {post.start}, {room - 1} good answers after a pause"
        for pause in self.pauses:
            following = min((other.start for other in self.pauses if other.start > pause.start), default=math.inf)
            if following > pause.until:
                yield from self._ration(pause.until, pause.order, following, "pause")

    def _probes(self, outage: Outage) -> Iterator[str]:
        probes = self._probing(outage)
        for one, other in pairwise(probes):
            if other.order < one.end_order:
                yield f"two probes at once: {one.start}…{one.end}, {other.start}"
        failed, earliest, latest = 0, outage.surely + 0.25, math.inf
        for probe in probes:
            if probe.start < earliest - EPS:
                yield f"a probe at {probe.start}, before {earliest}"
            if probe.start > latest + EPS and self._queued(outage, latest, probe.start):
                yield f"a probe at {probe.start}, though it was due at {latest}"
            failed += probe.outcome is not None
            span = min(0.5 * 2**failed, 5.0)
            end = probe.start if probe.end is None else probe.end
            since = probe.start if probe.outcome is None else end
            earliest, latest = since + span / 2, max(since + span, end)
        for one, other in pairwise(probes):
            others = {log for log in self._queued(outage, one.start - EPS, other.start) if not log.creates}
            if other.log is one.log and others - {one.log}:
                yield f"two probes in a row for {one.log.task_id}, {one.start} and {other.start}"
        for probe in probes:
            reads = {log for log in self._queued(outage, probe.start - 2 * EPS, probe.start) if not log.creates}
            if probe.log.creates and (not probe.stands_in or reads):
                yield f"{probe.log.task_id} as the probe at {probe.start}"

    def _probing(self, outage: Outage) -> list[Post]:
        return [
            post
            for post in self.run.posts
            if post.start > outage.surely + EPS and post.start < outage.until - EPS and post.order < outage.until_order
        ] or [post for post in self.run.posts if post.start > outage.surely + EPS and outage.until == math.inf]

    def _queued(self, outage: Outage, since: float, until: float) -> set[TrackLog]:
        """The tracks that surely waited for their turn as probes all this time, held back by nothing else."""
        is_paused = any(poll.end < until and poll.end + pause_in(poll.outcome) > since for poll in self.all_polls)
        is_busy = any(poll.start < since - EPS and poll.end > since + EPS for poll in self.all_polls)
        if is_paused or is_busy or self.settings.max_requests_per_second:
            return set()
        return {
            poll.log
            for poll in self.all_polls
            if poll.evidence is HealthSignal.DOWN and outage.surely + EPS < poll.end < since
            if any(start < since and end > until + EPS for start, end in self.waits[poll.log].spans)
            if self.lives[poll.log].goes_on(until + EPS)
        }

    def _return(self, outage: Outage) -> Iterator[str]:
        if math.inf not in {outage.until, outage.surely}:
            yield from self._ration(outage.until, outage.until_order, math.inf, "outage")

    def _ration(self, since: float, order: int, until: float, what: str) -> Iterator[str]:
        """In the first second after an outage or a pause there are ten requests, in each further one twice as many."""
        until = min([until, *(other.since for other in self.outages if other.since > since)])
        after = [
            post.start - since for post in self.run.posts if post.order > order and since - EPS <= post.start < until
        ]
        for second in range(10):
            count = bisect_left(after, second + 1.0 - EPS) - bisect_left(after, second - EPS if second else -1.0)
            if count > 10 * 2**second:
                yield f"{count} requests in second {second} after the {what} that ended at {since}"

    def _creation(self, log: TrackLog) -> Iterator[str]:
        """What may have created a task isn't sent again, and nothing that could is sent while the service is down."""
        polls = [poll for poll in self.polls[log] if not poll.stands_in]
        for poll, _ in pairwise(polls):
            refused = isinstance(poll.outcome, APIStatusError) and poll.outcome.status_code in {429, 503}
            if poll.sent and not refused:
                yield f"{log.task_id} was sent again after {poll.end}"
        sent = [post for post in log.posts if post.sent is not None and not post.stands_in]
        for one, _ in pairwise(sent):
            if not (isinstance(one.outcome, APIStatusError) and one.outcome.status_code in {429, 503}):
                yield f"{log.task_id} was sent again after {one.start}"
        for poll in self.polls[log]:
            at = poll.start
            if poll.stands_in and not any(outage.covers(at) for outage in self.outages):
                yield f"something else stood in for {log.task_id} at {at}, without an outage"

    # Whose turn it was.

    def _turns(self) -> Iterator[str]:
        """Where requests must wait for their turn, each class gets its share of them."""
        turns = [(poll.start, poll.log, self._share(poll)) for poll in self.all_polls]
        starts = [start for start, _, _ in turns]
        held = [(outage.maybe, outage.until) for outage in self.outages]
        for poll in self.all_polls:
            since = self._queued_since(poll)
            if since is None or any(start < poll.start + EPS and end > since - EPS for start, end in held):
                continue
            ahead = turns[bisect_right(starts, since + EPS) : bisect_left(starts, poll.start - EPS)]
            own = self._share(poll)
            turn = sum(share == own for _, _, share in ahead) + 1
            for share in {8, 4, 1} - {own}:
                before = sum(other == share for _, _, other in ahead)
                if before > turn * share / own + 1:
                    yield (
                        f"{poll.key} queued from {since} to {poll.start} behind {before} requests of share {share}, "
                        f"as the {turn}. of share {own}"
                    )

    def _share(self, poll: Poll) -> int:
        if poll.log.single:
            return 8
        return 4 if poll is self.polls[poll.log][0] else 1

    def _queued_since(self, poll: Poll) -> float | None:
        """Since when a request surely waited for its turn; None where that isn't known."""
        if poll is not self.polls[poll.log][0]:
            return None
        spans = self.waits[poll.log].spans
        return max((start for start, end in spans if start - EPS <= poll.start <= end + EPS), default=None)

    def _spacing(self, log: TrackLog) -> Iterator[str]:
        """No request before its time: after an answer that showed nothing new, after a fault, ahead of a deadline."""
        polls = [poll for poll in self.polls[log] if poll.outcome is not None]
        steps = self.steps.get(log, [])
        longest = max((poll.end - poll.start for poll in self.all_polls), default=0.0)
        unchanged, early, status = 0, False, None
        for poll, following in pairwise(polls):
            result = poll.outcome
            start = next(other.start for other in self.polls[log] if other.order > poll.end_order)
            if not isinstance(result, ChatResult) or poll.stands_in:
                early = False
                continue
            unchanged = unchanged + 1 if result.status == status else 0
            status = result.status
            span = min(self.pacing.initial * self.pacing.factor**unchanged, self.pacing.max)
            if self.settings.learns:
                span = 0.0  # what was learned may bring it down to the floor
            if start < poll.end + max(self.pacing.floor, span / 2) - EPS:
                lead = max(0.05, 2 * longest)
                deadlines = [step.watch.started + step.watch.timeout for step in steps]
                if early or not any(start - EPS <= at <= start + lead + EPS for at in deadlines):
                    yield f"{log.task_id} was asked at {start}, too early after {poll.end} (to {following.end})"
                early = True
            else:
                early = False

    def _liveness(self) -> Iterator[str]:
        """Where somebody waits, something happens."""
        longest = max(self.pacing.max, self.settings.retry.max, 5.0) + 0.01
        longest += 1 / (self.settings.max_requests_per_second or math.inf) * (len(self.logs) + 1)
        moments = sorted({0.0, *(post.start for post in self.run.posts), *(post.end or 0.0 for post in self.run.posts)})
        pauses = [(pause.start, pause.until) for pause in self.pauses]
        for one, other in pairwise([*moments, math.inf]):
            since = max([one, *(end for start, end in pauses if start < other and end > one)])
            busy = any(post.start <= one and (post.end or 0.0) >= other for post in self.run.posts)
            if busy:
                continue
            for step in self.run.steps:
                start, end = max(since, step.asked), min(other, step.ended)
                if end - start > longest:
                    yield f"{_told(step)}: nothing happened from {start} to {end}"
        yield from self._diligence()

    def _diligence(self) -> Iterator[str]:
        """Where nothing holds it back, each track is asked as soon as it is due."""
        enough = len(self.steps)
        if self.settings.max_requests_per_second or enough > self.settings.max_in_flight:
            return
        held = [(outage.maybe, outage.until + 10.0) for outage in self.outages]
        held += [(pause.start, pause.until + 10.0) for pause in self.pauses]
        # Until so many good answers came after it that there is room for all.
        held = [
            (start, max(end, (self.ups[bisect_left(self.ups, end) :] + [math.inf] * enough)[enough - 1]))
            for start, end in held
        ]
        for log, polls in self.polls.items():
            life = self.lives[log]
            for start, end in self.waits[log].joined:
                inside = [poll for poll in polls if start - EPS <= poll.start <= end + EPS]
                edges = [start, *(edge for poll in inside for edge in (poll.start, poll.end)), end]
                for one, other in zip(edges[::2], edges[1::2], strict=True):
                    due = max(one, life.due(one + EPS))
                    is_late = other > due + LATE and life.goes_on(due + LATE) and self.closed_at > due
                    if is_late and not any(since < other + EPS and until > one - EPS for since, until in held):
                        yield f"{log.task_id} wasn't asked until {other}, though it was due at {due}"


def _told(step: Step) -> str:
    return f"actor {step.actor}, {step.op} of {step.watch.task_id[:8]}, {step.asked}…{step.ended}, {step.ending!r:.200}"


def _is_response(outcome: ChatResult | Created | DistributeError | None) -> bool:
    return isinstance(outcome, ChatResult | Created | APIStatusError | APIResponseValidationError)
