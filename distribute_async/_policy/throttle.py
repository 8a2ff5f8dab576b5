"""What all requests of one client share: slots, the rate, the pause, the circuit breaker and slow start. Pure.

Driven by `_engine/poller`, which reads `opens_at` before each exchange, calls `enter` and `leave` around it, and
`repeat` within. `now` is always the event loop's time, in seconds.

One mechanism serves pause, outage and return: `allowed`, the number of exchanges that may be under way. A pause and
an outage set it to 1. Each good response after them adds 1 until it is `Limits.max_in_flight` again. During
an outage the one exchange is the probe, and waits for its own backoff. After both, slow start bounds the request rate.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from attrs import frozen

from distribute_async._policy.faults import HealthSignal
from distribute_async._policy.pacing import Jitter, Steps
from distribute_async._policy.settings import Limits

#: Failed exchanges in a row that open the circuit breaker.
OUTAGE_FAILURES = 5
#: The probe's waits: 0.5 s, doubling up to 5 s.
PROBE_STEPS = Steps.exponential(0.5, 2.0, 5.0)
#: Requests in the first second after an outage or a pause; each further second twice as many.
RESUME_REQUESTS = 10
#: Seconds for which slow start lasts; after them 10,000 requests have had their turn.
RESUME_SECONDS = 10.0


@frozen
class OutageBegan:
    """The circuit breaker opened: one probe at a time from now on."""


@frozen
class OutageEnded:
    """A probe succeeded."""

    #: Seconds since the first failure of the outage.
    seconds: float


class Throttle:
    """Whether and when the next exchange of a client may start."""

    def __init__(self, limits: Limits, jitter: Jitter) -> None:
        self._limits = limits
        self._jitter = jitter
        self._allowed = limits.max_in_flight
        self._running = 0
        self._paused_until = -math.inf
        self._next_slot = -math.inf
        self._failures = 0
        self._failing: set[Hashable] = set()
        self._failing_since = 0.0
        self._probe_at = -math.inf
        self._probes = 0
        self._resumed_at = -math.inf
        #: Loop time of the outage's first failure; None while there is no outage.
        self.down_since: float | None = None

    @property
    def running(self) -> int:
        """Exchanges under way."""
        return self._running

    def paused_for(self, now: float) -> float:
        """Seconds for which everything is still held back; 0 without a pause."""
        return max(0.0, self._paused_until - now)

    def closed_until(self, now: float) -> float:
        """No exchange starts before this time: the end of the pause, or the next probe unless one is under way."""
        at = max(now, self._paused_until)
        return at if self.down_since is None or self._running else max(at, self._probe_at)

    def opens_at(self, now: float) -> float:
        """The earliest time for the next exchange; infinite where only the end of another one can bring it."""
        if self._running >= self._allowed:
            return math.inf
        return max(self.closed_until(now), self._next_slot)

    def enter(self, now: float) -> bool:
        """An exchange starts; tells whether it is the probe of an outage (to be handed back to `leave`)."""
        is_probe = self.down_since is not None
        if is_probe:
            self._probe_at = now + PROBE_STEPS.wait(self._probes, self._jitter)
        self._running += 1
        self._count_request(now)
        return is_probe

    def repeat(self, now: float) -> bool:
        """Whether an exchange under way may send its request again at once; if so, that counts like any request.

        It may while the newest signal of the service is good, and nothing holds requests back.
        """
        if self._failures or self.down_since is not None:
            return False
        self._running -= 1  # it has its place already
        may = self.opens_at(now) <= now
        self._running += 1
        if may:
            self._count_request(now)
        return may

    def leave(
        self, key: Hashable, signal: HealthSignal, now: float, *, was_probe: bool, is_crowd: bool
    ) -> OutageBegan | OutageEnded | None:
        """The exchange for `key` ended. `is_crowd`: two or more tasks are followed now. Returns what that changed."""
        self._running -= 1
        if signal is HealthSignal.UP:
            return self._recover(now)
        if signal is HealthSignal.DOWN and self.down_since is None:
            return self._count_failure(key, now, is_crowd=is_crowd)
        if was_probe and signal is not HealthSignal.CUT:
            self._probes += 1
            self._probe_at = now + PROBE_STEPS.wait(self._probes, self._jitter)
        return None

    def pause(self, until: float) -> None:
        """Hold everything back until this time; slow start follows."""
        self._paused_until = max(self._paused_until, until)
        self._resumed_at = max(self._resumed_at, until)
        self._allowed = 1

    def _count_request(self, now: float) -> None:
        # A reservation of the next request's time: fair, and known ahead. What isn't used is not saved up.
        self._next_slot = self._slot_after(max(self._next_slot, now))

    def _slot_after(self, at: float) -> float:
        """When the next request may leave after one at this time, by the rate and by slow start."""
        slot = at if self._limits.max_requests_per_second is None else at + 1 / self._limits.max_requests_per_second
        since_resume = at - self._resumed_at
        if since_resume >= RESUME_SECONDS:
            return slot
        # Up to t seconds there is room for `RESUME_REQUESTS` · (2^t - 1): as many in the first second, twice as many in
        # each further one, and no burst at the turn of a second. (What rounding takes off is put back.)
        return max(slot, self._resumed_at + math.log2(2**since_resume + 1 / RESUME_REQUESTS) + 1e-9)

    def _recover(self, now: float) -> OutageEnded | None:
        ended = None
        self._failures = 0
        self._failing.clear()
        if self.down_since is not None:
            ended = OutageEnded(now - self.down_since)
            self.down_since = None
            self._resumed_at = max(now, self._paused_until)
        if now >= self._paused_until:  # a response to what was under way as the pause began does not end it
            self._allowed = min(self._allowed + 1, self._limits.max_in_flight)
        return ended

    def _count_failure(self, key: Hashable, now: float, *, is_crowd: bool) -> OutageBegan | None:
        if self._failures == 0:
            self._failing_since = now
        self._failures += 1
        self._failing.add(key)
        if self._failures < OUTAGE_FAILURES or (is_crowd and len(self._failing) == 1):
            return None
        self.down_since = self._failing_since
        self._allowed = 1
        self._probes = 0
        self._probe_at = now + PROBE_STEPS.wait(0, self._jitter)
        return OutageBegan()
