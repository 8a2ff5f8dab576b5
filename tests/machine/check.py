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

from distribute_async import APITimeoutError, ChatResult, ClientClosedError, DistributeError
from distribute_async._faults import Evidence
from tests.machine.endings import LATE, Life, Reader
from tests.machine.record import EPS, Outage, Spans, pause_in, polls_of
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
        self.logs = list({post.log: None for post in run.posts})
        self.polls = {log: polls_of(log) for log in self.logs}
        self.all_polls = sorted((poll for polls in self.polls.values() for poll in polls), key=lambda poll: poll.order)
        self.orders = [post.order for post in run.posts]
        self.ends = sorted(math.inf if post.end is None else post.end for post in run.posts)
        self.ups = sorted(poll.end for poll in self.all_polls if poll.evidence is Evidence.UP)
        self.steps: dict[TrackLog, list[Step]] = {log: [] for log in self.logs}
        self.watches: dict[WatchLog, list[Step]] = {}
        for step in run.steps:
            self.watches.setdefault(step.watch, []).append(step)
            if step.watch.log is not None:
                self.steps.setdefault(step.watch.log, []).append(step)
        self.waits = {log: Spans.of((step.asked, step.ended) for step in steps) for log, steps in self.steps.items()}
        self.outages = list(self._outages())
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
        yield from self._belongs()
        yield from self._limits()
        yield from self._slots()
        yield from self._pauses()
        for outage in self.outages:
            yield from self._probes(outage)
            yield from self._return(outage)
        for log in self.logs:
            yield from self._spacing(log)
        yield from self._liveness()

    # When the service was down.

    def _outages(self) -> Iterator[Outage]:
        failures, failing, since = 0, set[str](), 0.0
        outage: Outage | None = None
        for poll in sorted(self.all_polls, key=lambda poll: poll.end_order):
            if poll.evidence is Evidence.UP:
                if outage is not None:
                    outage.until, outage.until_order = poll.end, poll.end_order
                    yield outage
                failures, outage = 0, None
                failing.clear()
            elif poll.evidence is Evidence.DOWN:
                assert isinstance(poll.outcome, DistributeError)
                since = poll.end if failures == 0 else since
                failures += 1
                failing.add(poll.log.task_id)
                if failures < 5:
                    continue
                alone = sum(waits.touches(poll.end) for waits in self.waits.values()) <= 1
                crowd = sum(waits.covers(poll.end) for waits in self.waits.values()) > 1
                if outage is None and (len(failing) > 1 or not crowd):
                    outage = Outage(since, poll.end)
                if outage is not None:
                    outage.fault = poll.outcome
                    if outage.surely == math.inf and (len(failing) > 1 or alone):
                        outage.surely, outage.surely_order = poll.end, poll.end_order
        if outage is not None:
            yield outage

    def outages_at(self, at: float) -> list[Outage | None]:
        """In which outage a time may be; None for none."""
        found: list[Outage | None] = [outage for outage in self.outages if outage.covers(at)]
        surely = any(outage.surely + EPS < at < outage.until - EPS for outage in self.outages)
        return found if surely else [*found, None]

    def last_fault(self, at: float) -> list[DistributeError]:
        """The newest sign of an outage at a time; several where they came at the same moment."""
        downs = [poll for poll in self.all_polls if poll.evidence is Evidence.DOWN and poll.end <= at + EPS]
        newest = max((poll.end for poll in downs if poll.end < at - EPS), default=-math.inf)
        return [
            poll.outcome for poll in downs if poll.end >= newest - EPS and isinstance(poll.outcome, DistributeError)
        ]

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

    def _belongs(self) -> Iterator[str]:
        for post in self.run.posts:
            waits = self.waits.get(post.log)
            end = math.inf if post.end is None else post.end
            if waits is None or not any(a - EPS <= post.start and end <= b + EPS for a, b in waits.joined):
                yield f"a request from {post.start} to {post.end} for {post.log.task_id} for nobody"
            if post.outcome is None and waits is not None and waits.covers(end) and abs(end - self.closed_at) > EPS:
                yield f"the request from {post.start} was cut at {end}, though somebody waits for {post.log.task_id}"
        for log, polls in self.polls.items():
            for one, other in pairwise(polls):
                if other.order < one.end_order:
                    yield f"two requests at once for {log.task_id}: {one.start}…{one.end}, {other.start}"

    def _limits(self) -> Iterator[str]:
        for post in self.run.posts:
            if isinstance(post.outcome, APITimeoutError) and post.end is not None:
                is_connected = "answer" in str(post.outcome)
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
        for poll in self.all_polls:
            pause = pause_in(poll.outcome)
            if pause <= 0 or not self.waits[poll.log].covers(poll.end):
                continue
            until = poll.end + min(pause, self.settings.max_retry_after)
            for post in self.run.posts:
                if poll.end + EPS < post.start < until - EPS:
                    yield f"a request at {post.start}, within the pause from {poll.end} to {until}"
                if post.start >= until - EPS:
                    goods = bisect_right(self.ups, post.start + EPS) - bisect_right(self.ups, poll.end - EPS)
                    running = self._running(post)
                    if running > 1 + goods:
                        yield f"{running} requests at once at {post.start}, {goods} good answers after a pause"

    def _probes(self, outage: Outage) -> Iterator[str]:
        probes = [
            post
            for post in self.run.posts
            if post.start > outage.surely + EPS and post.start < outage.until - EPS and post.order < outage.until_order
        ] or [post for post in self.run.posts if post.start > outage.surely + EPS and outage.until == math.inf]
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
            if other.log is one.log and self._queued(outage, one.start - EPS, other.start) - {one.log}:
                yield f"two probes in a row for {one.log.task_id}, {one.start} and {other.start}"

    def _queued(self, outage: Outage, since: float, until: float) -> set[TrackLog]:
        """The tracks that surely waited for their turn as probes all this time, held back by nothing else."""
        is_paused = any(poll.end < until and poll.end + pause_in(poll.outcome) > since for poll in self.all_polls)
        is_busy = any(poll.start < since - EPS and poll.end > since + EPS for poll in self.all_polls)
        if is_paused or is_busy or self.settings.max_requests_per_second:
            return set()
        return {
            poll.log
            for poll in self.all_polls
            if poll.evidence is Evidence.DOWN and outage.surely + EPS < poll.end < since
            if any(start < since and end > until + EPS for start, end in self.waits[poll.log].spans)
            if self.lives[poll.log].goes_on(until + EPS)
        }

    def _return(self, outage: Outage) -> Iterator[str]:
        if math.inf in {outage.until, outage.surely}:
            return
        following = min((other.since for other in self.outages if other.since > outage.until), default=math.inf)
        after = [
            post.start - outage.until
            for post in self.run.posts
            if post.order > outage.until_order and post.start < following
        ]
        for second in range(10):
            count = bisect_left(after, second + 1.0 - EPS) - bisect_left(after, second - EPS if second else -1.0)
            if count > 10 * 2**second:
                yield f"{count} requests in second {second} after the outage that ended at {outage.until}"

    def _spacing(self, log: TrackLog) -> Iterator[str]:
        """No request before its time: after an answer that showed nothing new, after a fault, ahead of a deadline."""
        polls = [poll for poll in self.polls[log] if poll.outcome is not None]
        steps = self.steps.get(log, [])
        longest = max((poll.end - poll.start for poll in self.all_polls), default=0.0)
        unchanged, early, status = 0, False, None
        for poll, following in pairwise(polls):
            result = poll.outcome
            start = next(other.start for other in self.polls[log] if other.order > poll.end_order)
            if not isinstance(result, ChatResult):
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
        pauses = [
            (poll.end, poll.end + min(pause_in(poll.outcome), self.settings.max_retry_after)) for poll in self.all_polls
        ]
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
        held += [(poll.end, poll.end + pause_in(poll.outcome)) for poll in self.all_polls if pause_in(poll.outcome) > 0]
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
