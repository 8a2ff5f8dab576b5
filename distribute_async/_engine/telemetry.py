"""What a poller counts, logs and tells an observer. It changes nothing. Used by `poller` alone."""

from __future__ import annotations

import logging
from typing import Any

from distribute_async._engine.observer import ObservedExchange, Telemetry, fault_word, log
from distribute_async._engine.subscription import Exchange, Track
from distribute_async._policy.task_state import Creation
from distribute_async._wire.errors import DistributeError
from distribute_async._wire.models import R, Transition


class Tally:
    """The account of one poller."""

    def __init__(self, telemetry: Telemetry | None) -> None:
        self._telemetry = telemetry
        #: Good answers to polls so far.
        self.polls = 0
        #: Creates that ended so far, by how they did.
        self.creates: dict[str, int] = {}
        #: HTTP exchanges so far, by what they came to.
        self.outcomes: dict[str, int] = {}

    def exchange_ended(
        self, exchange: Exchange[R], heard: R | DistributeError | None, now: float, *, was_probe: bool = False
    ) -> None:
        """An HTTP exchange ended; it was cut where nothing was heard."""
        track = exchange.track
        fault = "cut" if heard is None else fault_word(heard) if isinstance(heard, DistributeError) else None
        self.outcomes[fault or "200"] = self.outcomes.get(fault or "200", 0) + 1
        attempt = track.walk.attempts + 1
        if fault is None:
            self.polls += track.walk.is_read
        else:
            _debug("an exchange failed: %s", fault, track, fault=fault, attempt=attempt)
        if self._telemetry is None or track.trace is None:
            return
        answer = None if isinstance(heard, DistributeError) else heard
        interval = None if answer is None else track.trace.answered(now)
        told = ObservedExchange(
            kind=track.endpoint.name,
            task_id=track.walk.task_id or None,
            is_create=exchange.is_create,
            attempt=attempt,
            status_code=200 if answer is not None else getattr(heard, "status_code", None),
            fault=fault,
            seconds=now - track.trace.sent_at,
            is_probe=was_probe,
            is_last=answer is not None and answer.is_over and not track.walk.single,
            interval=interval,
        )
        self._telemetry.tell(self._telemetry.observer.exchange_ended, told)

    def create_ended(self, track: Track[Any], creation: Creation) -> None:
        """Nobody waits for a create any longer, however it ended."""
        ending = creation.ending
        self.creates[ending] = self.creates.get(ending, 0) + 1
        if ending == "uncertain":
            log.warning(
                "a create may have made a task, and nobody knows its id",
                extra={"distribute_kind": track.endpoint.name, "distribute_attempt": creation.attempts},
            )
        elif creation.result is not None:
            _debug("a create made the task %s", creation.result.id, track, task_id=creation.result.id)

    def moved(self, track: Track[R], transition: Transition[R]) -> None:
        """The task has a new status."""
        if not track.walk.is_read:
            return
        _debug("a task is %s", transition.status, track, status=str(transition.status))
        if self._telemetry is not None and track.trace is not None:
            for wait in list(track.trace.waits):
                self._telemetry.tell(self._telemetry.observer.wait_moved, wait, transition)

    def paused(self, asked: float, obeyed: float) -> None:
        """The service asks for a pause of so many seconds, of which so many will be obeyed."""
        log.info("the service asks for a pause of %.1f s", asked, extra={"distribute_pause": asked})
        if self._telemetry is not None:
            self._telemetry.tell(self._telemetry.observer.paused, obeyed)

    def outage_began(self) -> None:
        """The service counts as down."""
        log.warning("the service is down: one probe at a time from now on")
        if self._telemetry is not None:
            self._telemetry.tell(self._telemetry.observer.outage_began)

    def outage_ended(self, lasted: float) -> None:
        """A probe succeeded, so many seconds after the first failure."""
        log.info("the service is back after %.1f s", lasted, extra={"distribute_outage": lasted})
        if self._telemetry is not None:
            self._telemetry.tell(self._telemetry.observer.outage_ended, lasted)

    def broke(self, bug: BaseException) -> None:
        """A mistake in this library, logged with where it happened."""
        log.error("an exchange broke in an unexpected way", exc_info=bug)


def _debug(text: str, word: object, track: Track[Any], **more: object) -> None:
    """Log a record about a track, which costs nothing where nobody reads it."""
    if log.isEnabledFor(logging.DEBUG):
        about = {"task_id": track.walk.task_id or None, "kind": track.endpoint.name, **more}
        # Prefixed, because a name that an application's records have already is an error.
        log.debug(text, word, extra={f"distribute_{name}": value for name, value in about.items()}, stacklevel=2)
