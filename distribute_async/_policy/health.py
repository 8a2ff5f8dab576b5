"""What the newest exchanges of a client say about the service as a whole. Pure; used by `_engine/poller`."""

from __future__ import annotations

from distribute_async._policy.attempts import Patience, RequestPolicy
from distribute_async._policy.faults import Action, Fault, HealthSignal, Reply
from distribute_async._wire.errors import APIConnectionError, APIStatusError, DistributeError

#: The last poll before a deadline starts at least so many seconds ahead of it.
LEAST_LEAD = 0.05
#: The part of a new exchange's time in the moving average of what an exchange usually takes.
NEWEST_PART = 0.2


class ServiceHealth:
    """What waits end in while the service is down or asks for a pause, and how long an exchange usually takes."""

    def __init__(self, policy: RequestPolicy) -> None:
        self._policy = policy
        #: Seconds that an exchange usually takes: a moving average.
        self.usual_exchange = 0.0
        #: Whether there was any response so far: until then the address may be wrong.
        self._had_response = False
        #: The newest fault that counts towards an outage.
        self.last_fault: DistributeError = APIConnectionError("the service is down")
        #: For how long the waits of an outage outlive that.
        self.patience = policy.patience(Action.CONNECT, had_response=True)
        #: The response that asked for the longest pause.
        self._pause_fault: APIStatusError | None = None

    @property
    def lead(self) -> float:
        """So many seconds before a deadline the last poll starts: twice the usual exchange's time, with a minimum."""
        return max(LEAST_LEAD, 2 * self.usual_exchange)

    def note(self, reply: Reply[object], took: float) -> bool:
        """Take what an exchange came to; returns whether the waits of an outage have another limit now."""
        fault = reply if isinstance(reply, Fault) else None
        self._had_response = self._had_response or fault is None or fault.is_response
        if reply.signal is HealthSignal.UP:
            self.usual_exchange += (took - self.usual_exchange) * (NEWEST_PART if self.usual_exchange else 1)
        if fault is None or fault.signal is not HealthSignal.DOWN:
            return False
        self.last_fault = fault.error
        before, self.patience = self.patience, self.patience_for(fault)
        return self.patience != before

    def patience_for(self, fault: Fault) -> Patience:
        """For how long a wait outlives such a fault."""
        return self._policy.patience(fault.rule.action, had_response=self._had_response)

    def paused_by(self, fault: Fault) -> None:
        """The service asked for the pause that holds now."""
        assert isinstance(fault.error, APIStatusError)  # noqa: S101 - nothing else asks for a pause
        self._pause_fault = fault.error

    def why_closed(self, paused_for: float) -> DistributeError:
        """What ends a wait that can't be served in time: the pause with its rest, or the outage's newest fault."""
        fault = self._pause_fault
        if not paused_for or fault is None:
            return self.last_fault
        return type(fault)(fault.status_code, fault.message, fault.request_id, paused_for)
