"""The poller: drives the walks of one client through its gate and session. One walk for all who wait on an id.

Used by `watch`, `stream`, `client`. Whoever waits hangs a `Waiter` on a `Track`, and nothing else keeps a poll going:
with no waiter a track has no timer, no exchange and no place in the queue, and it vanishes with the last who knows it.

One `Schedule` serves all tracks, for next polls, deadlines and exchanges that take too long. Asyncio tasks exist only
while HTTP exchanges are under way: each is a worker, which makes one after the other as long as there is one to start.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

from distribute_async._engine.http import Answer, Session
from distribute_async._engine.kinds import Endpoint
from distribute_async._engine.observer import Stats, Telemetry, Trace
from distribute_async._engine.schedule import Schedule
from distribute_async._engine.subscription import Exchange, Track, Waiter, closed
from distribute_async._engine.telemetry import Tally
from distribute_async._policy.fair_queue import FairQueue
from distribute_async._policy.faults import Action, Evidence, Rule, pause_of, rule_for
from distribute_async._policy.task_state import Creation, Pace, Walk
from distribute_async._policy.throttle import Gate
from distribute_async._wire.codec import decode
from distribute_async._wire.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    DistributeError,
)
from distribute_async._wire.models import Created, R

#: The last poll before a deadline starts twice the usual exchange's time ahead of it, and at least this much.
LEAST_LEAD = 0.05
#: Asked for where only creates wait for an outage's end: they must not be its probe. No task has this id.
PROBE_ID = "ffffffff-ffff-4fff-bfff-ffffffffffff"


class Poller:
    """All that one client follows, on one event loop."""

    def __init__(
        self, session: Session, gate: Gate, pace: Pace, *, closes_when_idle: bool, telemetry: Telemetry | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._gate = gate
        self._pace = pace
        self._closes_when_idle = closes_when_idle
        self.telemetry = telemetry
        self.tally = Tally(telemetry)
        self.is_closed = False
        #: Callers that are suspended now: each in a wait of its own, or in a step of a stream.
        self.callers = 0
        #: All ids that somebody knows, in lower case, by kind of task. The active ones have waiters, the ready ones
        #: queue at the gate.
        self._known: dict[Endpoint[Any], WeakValueDictionary[str, Track[Any]]] = {}
        self._active: dict[Track[Any], None] = {}  # a set of ten thousand is four times as large
        self._ready: FairQueue[Track[Any]] = FairQueue()
        self._schedule = Schedule(self._loop)
        #: The asyncio tasks that run, each with the exchange that it makes.
        self._workers: dict[asyncio.Task[None], Exchange[Any]] = {}
        #: Those of them that may still use a connection, and then settle what is left.
        self._unsettled: set[asyncio.Task[None]] = set()
        self._usual_exchange = 0.0
        #: Whether any response has come from the service so far: until then its address may be wrong.
        self._had_response = False
        #: What an outage's waits end in if it lasts too long, and how long that is.
        self._last_fault: DistributeError = APIConnectionError("the service is down")
        self._patience = pace.patience(rule_for(self._last_fault), had_response=True)
        #: The response that asked for the newest pause.
        self._pause_fault: APIStatusError | None = None
        # A worker serves many waiters: it must not carry the context variables of the one who came first.
        self._context = contextvars.Context()

    def time(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def check_loop(self) -> None:
        """Raises `ConfigurationError` where the running event loop is not this poller's."""
        if self._loop is not asyncio.get_running_loop():
            raise ConfigurationError("a client belongs to the event loop on which it was first used: make another one")

    def track(self, endpoint: Endpoint[R], task_id: str, *, single: bool = False) -> Track[R]:
        """The track for an id: the one that others follow already, else a new one; for a fetch always a new one."""
        self.check_loop()
        others = self._known.setdefault(endpoint, WeakValueDictionary())
        key = task_id.lower()
        key = task_id if key == task_id else key  # mostly it is, and one text for both saves 85 bytes
        known = others.get(key)
        if known is not None and known.walk.error is None and not single:
            return known
        now = self.time()
        course = None if single else self._pace.course(endpoint.name, now)
        walk = Walk[R](task_id, self._pace, now, single=single, course=course)
        track = Track(endpoint, walk, None if self.telemetry is None else Trace())
        if single:
            track.known_status = None if known is None else known.walk.status
        else:
            others[key] = track
        return track

    def creation(self, endpoint: Endpoint[Created], body: bytes) -> Track[Created]:
        """A track for the one request that creates a task."""
        self.check_loop()
        trace = None if self.telemetry is None else Trace()
        return Track(endpoint, Creation(body, self._pace, self.time()), trace)

    def join(self, track: Track[Any], waiter: Waiter, *, is_new: bool) -> None:
        """From now on `waiter` waits on `track`; `is_new`: its wait has just begun."""
        now = self.time()
        if track not in self._active:
            self._active[track] = None
            track.deadline = math.inf
            track.walk.resume(now)
        track.enter(waiter)
        closed_until = self._gate.closed_until(now)
        if is_new and track.polled_at == -math.inf and closed_until > now and waiter.deadline < closed_until:
            self._refuse(track, waiter, self._why_closed(now))
        self.attend([track])

    def attend(self, tracks: Iterable[Track[Any]]) -> None:
        """Start what is due of these: somebody who was away when it came due is back."""
        now = self.time()
        for track in tracks:
            if track in self._active:
                self._attend(track, now)
        self._pump()

    def drop(self, track: Track[Any], waiter: Waiter) -> asyncio.Task[None] | None:
        """`waiter` waits no longer. The last one to leave cuts the exchange; its worker is given to see it ended."""
        track.leave(waiter)
        if track.waiters or track not in self._active:
            return None
        del self._active[track]
        track.walk.leave(self.time())
        if isinstance(track.walk, Creation):
            self.tally.create_ended(track, track.walk)
        self._ready.discard(track)
        self._schedule.remove(track)
        if not self._active:
            self._schedule.disarm()
        if track.exchange is None:
            return None
        track.exchange.cut()
        return track.exchange.worker

    async def leave(self, track: Track[Any], waiter: Waiter) -> None:
        """What `drop` does, until the exchange has ended and what should be closed is closed."""
        cut = self.drop(track, waiter)
        try:
            if cut is not None:
                await asyncio.wait([cut])
        finally:
            await self.settle()

    async def settle(self) -> None:
        """Close the session if nobody is suspended and nothing is under way, where the client wants that.

        The connections are closed at once, even if this is cancelled; it returns when their sockets are gone.
        """
        if self._closes_when_idle and not self.callers and not self._unsettled:
            await self._session.close()

    async def close(self, grace: float = 0.0) -> None:
        """End all waits with `ClientClosedError`, and close the session where it was made here.

        Creates whose request is under way have `grace` seconds to come to their own end.
        """
        self.is_closed = True
        creates = [exchange.worker for exchange in self._workers.values() if exchange.is_create]
        for track in list(self._active):
            if not (grace and track.exchange is not None and track.exchange.is_create):
                self._end(track, closed())
        try:
            if grace and creates:
                await asyncio.wait(creates, timeout=grace)
        finally:
            for track in list(self._active):
                self._end(track, closed())
            for exchange in self._workers.values():
                exchange.cut()
        if self._workers:
            await asyncio.wait(list(self._workers))
        self._schedule.disarm()
        await self._session.close()

    def stats(self) -> Stats:
        """What is going on, and what has been."""
        now = self.time()
        down_since = self._gate.down_since
        return Stats(
            waiting=self.callers,
            tasks=len(self._active),
            exchanges=self._gate.running,
            paused_for=self._gate.paused_for(now),
            outage_for=None if down_since is None else now - down_since,
            polls=self.tally.polls,
            creates=dict(self.tally.creates),
            outcomes=dict(self.tally.outcomes),
        )

    # What to do about one track now, and when to look at it again.

    def _attend(self, track: Track[Any], now: float) -> None:
        walk = track.walk
        if track.deadline <= now:
            for waiter in [waiter for waiter in track.waiters if waiter.deadline <= now]:
                track.leave(waiter)
                waiter.wake()
            track.deadline = min((waiter.deadline for waiter in track.waiters), default=math.inf)
        if walk.is_over or not track.waiters:
            self._schedule.remove(track)
            return
        if track.exchange is not None:
            if track.exchange.cut_at <= now:
                self._cut(track.exchange)
        elif track not in self._ready and self._is_due(track, now):
            self._ready.add(track, track.priority)
        if track in self._ready:
            self._refuse_hopeless(track, now)
        if track.waiters:
            self._plan(track)

    def _refuse_hopeless(self, track: Track[Any], now: float) -> None:
        """End the waits on a track in the queue that an outage has outlasted, and the calls that it surely will."""
        down_since = self._gate.down_since
        if down_since is not None:
            for waiter in list(track.waiters):
                if max(down_since, waiter.since) + self._patience.seconds <= now:
                    self._refuse(track, waiter, self._last_fault)
        closed_until = self._gate.closed_until(now)
        if closed_until > now and track.walk.single:
            for waiter in [waiter for waiter in track.waiters if waiter.deadline < closed_until]:
                self._refuse(track, waiter, self._why_closed(now))

    def _why_closed(self, now: float) -> DistributeError:
        rest, fault = self._gate.paused_for(now), self._pause_fault
        if not rest or fault is None:
            return self._last_fault
        return type(fault)(fault.status_code, fault.message, fault.request_id, rest)

    def _refuse(self, track: Track[Any], waiter: Waiter, error: DistributeError) -> None:
        track.leave(waiter)
        waiter.refuse(track.walk.refusal(error))

    def _cut(self, exchange: Exchange[Any]) -> None:
        """It takes too long."""
        if exchange.has_connection:
            exchange.cut(APITimeoutError("no whole response in time (Limits.exchange_timeout)"))
        else:
            exchange.cut(
                APITimeoutError(
                    f"no connection to {self._session.address} in time (Limits.connect_timeout): check base_url, the "
                    "network and firewalls",
                    "connect_timeout",
                )
            )

    def _is_due(self, track: Track[Any], now: float) -> bool:
        if now < track.walk.next_poll and self._next_poll(track) <= now:
            # Ahead of schedule, for a deadline: but perhaps its waiter has left meanwhile.
            track.deadline = min((waiter.deadline for waiter in track.waiters), default=math.inf)
        return self._next_poll(track) <= now

    def _next_poll(self, track: Track[Any]) -> float:
        """The regular next poll, or one just ahead of the earliest deadline; of the latter one for each interval."""
        lead = track.deadline - max(LEAST_LEAD, 2 * self._usual_exchange)
        if track.has_led or lead <= track.polled_at or not track.walk.is_read:
            return track.walk.next_poll
        return min(track.walk.next_poll, lead)

    def _plan(self, track: Track[Any]) -> None:
        when = track.deadline
        if track.exchange is not None:
            when = min(when, track.exchange.cut_at)
        elif track in self._ready:
            if (down_since := self._gate.down_since) is not None:
                since = max(down_since, min(waiter.since for waiter in track.waiters))
                when = min(when, since + self._patience.seconds)
        else:
            when = min(when, self._next_poll(track))
        self._schedule.put(track, when)

    def _end(self, track: Track[Any], error: DistributeError) -> None:
        if track.walk.is_over:
            return
        track.walk.end(error)
        self._ready.discard(track)
        self._schedule.remove(track)
        self._tell(track)

    def _tell(self, track: Track[Any]) -> None:
        for waiter in list(track.waiters):
            if waiter.wants_all or track.walk.is_over:
                waiter.wake()

    # The exchanges that are due, and those who make them.

    def _look(self) -> None:
        now = self.time()
        for track in self._schedule.due(now):
            try:
                self._attend(track, now)
            except Exception as bug:
                self._break(track, bug)
        self._pump()

    def _pump(self, worker: asyncio.Task[None] | None = None) -> None:
        """Start what is due and may start. `worker` has just ended an exchange, and goes on with the first."""
        now = self.time()
        gate_opens = math.inf
        while self._ready:
            gate_opens = self._gate.opens_at(now)
            if gate_opens > now:
                break
            track = self._next_in_line()
            gate_opens = math.inf
            if not self._is_due(track, now):  # what queued for a deadline may have come too late
                self._plan(track)
            elif track.is_attended:
                try:
                    self._start(track, now, worker)
                except Exception as bug:
                    self._break(track, bug)
                else:
                    worker = None
            else:
                for waiter in list(track.waiters):
                    waiter.missed()
        self._schedule.arm(self._look, gate_opens)

    def _next_in_line(self) -> Track[Any]:
        """Whose turn it is, taken out of the queue: in an outage a read, if there is any, for it is the probe."""
        probe = None if self._gate.down_since is None else self._ready.take_evenly(_is_read)
        return probe or self._ready.take()

    def _start(self, track: Track[Any], now: float, worker: asyncio.Task[None] | None) -> None:
        was_probe, cut_at = self._gate.enter(now), now + self._session.connect_timeout
        track.has_led = now < track.walk.next_poll
        track.polled_at = now
        worker = worker or self._new_worker()
        track.exchange = self._workers[worker] = Exchange(track, worker, was_probe=was_probe, cut_at=cut_at)
        self._plan(track)

    def _new_worker(self) -> asyncio.Task[None]:
        # Not by way of the loop's task factory: an eager one (Python 3.12) would run it before it is in the books.
        worker = asyncio.Task(self._work(), loop=self._loop, context=self._context)
        # The end of one that was cancelled hangs on this: before its first step it would run no `finally`.
        worker.add_done_callback(self._worker_ended)
        self._unsettled.add(worker)
        return worker

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - this runs as one
        try:
            while (exchange := self._workers.get(worker)) is not None:
                heard = await self._poll(exchange)
                del self._workers[worker]
                self._finish(exchange, heard, None if worker.cancelling() else worker)
        finally:
            # The last one out closes the door: whoever left it under way may be gone, and the loop about to end.
            self._unsettled.discard(worker)
            await self.settle()

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._unsettled.discard(worker)
        exchange = self._workers.pop(worker, None)
        bug = None if worker.cancelled() else worker.exception()
        if bug is not None:
            self.tally.broke(bug)
        if exchange is None:
            return
        fault = exchange.fault
        if bug is not None:  # nobody may hang for a mistake in this library: it counts as a fault
            fault = APIConnectionError(f"the exchange broke with {type(bug).__name__}", "unexpected")
        elif not exchange.is_cut:
            fault = APIConnectionError(
                "the exchange was cancelled by something else than this client, such as a middleware or a trace hook "
                "of the aiohttp session",
                "cancelled",
            )
        self._finish(exchange, fault)

    async def _poll(self, exchange: Exchange[R]) -> R | DistributeError:
        """One poll: an exchange, and what its answer means."""
        track = exchange.track
        heard = await self._exchange(exchange)
        if isinstance(heard, DistributeError):
            if track.walk.rule_for(heard).action is not Action.RETRY_NOW or not self._gate.repeat(self.time()):
                return heard
            self.tally.exchange_ended(exchange, heard, self.time())
            exchange.has_connection = False
            self._allow(exchange, self._session.connect_timeout)
            heard = await self._exchange(exchange)
        if isinstance(heard, DistributeError):
            return heard
        if exchange.stands_in and heard.status_code == 200:
            heard = Answer(200, {}, _probe())  # whatever it says, the service is back
        digest = hash(heard.body) if heard.status_code == 200 else None
        if digest is not None and digest == track.digest and track.walk.result is not None:
            return track.walk.result
        result = decode(
            heard.status_code, heard.headers, heard.body, track.endpoint.result_type, is_local=heard.is_local
        )
        if not isinstance(result, DistributeError):
            track.digest = digest
        return result

    async def _exchange(self, exchange: Exchange[Any]) -> Answer | DistributeError:
        track, extra = exchange.track, None
        if self.telemetry is not None and track.trace is not None:
            extra = self.telemetry.request_headers(track.trace)
            track.trace.sent_at = self.time()
        path, request = track.endpoint.path, track.walk.request
        if exchange.stands_in:
            path, request = track.endpoint.probe_path, _probe
        heard = await self._session.post(path, request(), extra, lambda: self._may_send(exchange))
        if isinstance(heard, Answer | APIStatusError | APIResponseValidationError):
            self._had_response = True
        return heard

    def _may_send(self, exchange: Exchange[Any]) -> bool:
        """There is a connection now, and time for the answer; whether the request is still wanted."""
        if exchange.is_cut:
            return False
        exchange.has_connection = True
        self._allow(exchange, self._session.exchange_timeout)
        return exchange.stands_in or exchange.track.walk.may_send()

    def _allow(self, exchange: Exchange[Any], seconds: float) -> None:
        """From now on an exchange has so much time."""
        track = exchange.track
        exchange.cut_at = self.time() + seconds
        # Where a look is planned for an earlier time, that one plans the next.
        if track in self._active and (track.entry is None or exchange.cut_at < track.entry[0]):
            self._plan(track)
            self._schedule.arm(self._look, math.inf)

    def _finish(
        self, exchange: Exchange[R], heard: R | DistributeError | None, worker: asyncio.Task[None] | None = None
    ) -> None:
        """What an exchange came to, None where it was cut because nobody waits for it. Its `worker` may go on."""
        exchange.track.exchange = None
        try:
            self._conclude(exchange, heard, self.time())
        except Exception as bug:
            self._break(exchange.track, bug)
        self._pump(worker)

    def _break(self, track: Track[Any], bug: Exception) -> None:
        """Something raised that must not: a function that was given to this library, or the library itself.

        The waits end in an error that names the cause, because no later event would end them.
        """
        self.tally.broke(bug)
        if track.walk.is_over:
            self._tell(track)
        elif isinstance(bug, DistributeError):
            self._end(track, bug)
        else:
            self._end(track, DistributeError(f"following the task broke with {type(bug).__name__}: see the log"))

    def _conclude(self, exchange: Exchange[R], heard: R | DistributeError | None, now: float) -> None:
        track = exchange.track
        evidence = Evidence.CUT if heard is None else Evidence.UP
        if isinstance(heard, DistributeError):
            evidence = rule_for(heard).evidence
        down_since = self._gate.down_since
        key = track.walk.task_id.lower() or hex(id(track))  # a create has no id yet
        key = PROBE_ID if exchange.stands_in else key
        self._gate.leave(key, evidence, now, was_probe=exchange.was_probe, is_crowd=len(self._active) > 1)
        if down_since is None and self._gate.down_since is not None:
            self.tally.outage_began()
        elif down_since is not None and self._gate.down_since is None:
            self.tally.outage_ended(now - down_since)
        self.tally.exchange_ended(exchange, heard, now, was_probe=exchange.was_probe)
        if evidence is Evidence.UP:
            took = now - track.polled_at
            self._usual_exchange += (took - self._usual_exchange) * (0.2 if self._usual_exchange else 1)
        is_wanted = not exchange.stands_in and not track.walk.is_over
        if isinstance(heard, DistributeError):
            if is_wanted and track in self._active:
                self._fail(track, heard, now)
            self._note(track, heard, rule_for(heard), now)
        elif heard is not None and is_wanted:
            self._answer(track, heard, now)
        if self.is_closed:
            self._end(track, closed())
        if track in self._active:
            self._attend(track, now)
        if self._gate.down_since is not None and down_since is None:
            self._attend_queued(now)
        elif exchange.was_probe:  # the next one comes later: for some that may be too late
            self._attend_queued(now, before=self._gate.closed_until(now))

    def _attend_queued(self, now: float, before: float = math.inf) -> None:
        """See to those in the queue again, or to those of them whose deadline comes before a time."""
        for track in [track for track in self._ready if track.deadline <= before]:
            self._attend(track, now)

    def _answer(self, track: Track[R], result: R, now: float) -> None:
        transition = track.walk.answered(result, now)
        if transition is not None:
            track.add(transition)
            self.tally.moved(track, transition)
        if transition is not None or track.walk.is_over:
            self._tell(track)
        track.walk.pace_after(result, now)

    def _note(self, track: Track[Any], error: DistributeError, rule: Rule, now: float) -> None:
        """What a fault means for all that the client follows."""
        if rule.evidence is Evidence.DOWN:
            self._last_fault = error
            before, self._patience = self._patience, self._pace.patience(rule, had_response=self._had_response)
            if before != self._patience and self._gate.down_since is not None:
                self._attend_queued(now)
        if isinstance(error, APIStatusError) and pause_of(error):
            self._hold(track, error, now)

    def _fail(self, track: Track[Any], error: DistributeError, now: float) -> None:
        """What a fault means for its task, and for those who wait for it."""
        walk = track.walk
        rule = walk.rule_for(error)
        walk.failed(error, rule, now)
        if walk.is_over:
            self._tell(track)
            return
        if self._gate.down_since is not None:
            walk.next_poll = now  # queue for the probe: in an outage the gate does the backing off
            return
        patience = self._pace.patience(rule, had_response=self._had_response)
        for waiter in walk.given_up(list(track.waiters), patience, now):
            self._refuse(track, waiter, error)

    def _hold(self, track: Track[Any], error: APIStatusError, now: float) -> None:
        pause = pause_of(error)
        was_paused = self._gate.paused_for(now)
        obeyed = min(pause, self._pace.retry.max_retry_after)
        self._gate.pause(now + obeyed)
        if not was_paused:
            self.tally.paused(pause, obeyed)
        for waiter in [waiter for waiter in track.waiters if waiter.deadline < now + pause]:
            self._refuse(track, waiter, error)
        if obeyed > was_paused:
            self._pause_fault = error
            self._attend_queued(now)


def _is_read(track: Track[Any]) -> bool:
    return track.walk.is_read


def _probe() -> bytes:
    return f'{{"id": "{PROBE_ID}"}}'.encode()
