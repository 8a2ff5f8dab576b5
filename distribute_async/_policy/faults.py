"""The fault table: what each kind of fault means for a wait, and for the client as a whole. Pure.

One table, `RULES`, is what the code goes by, what the documentation's fault matrix shows, and what the tests run
through. A reply is classified once, as `Good` or `Fault`; whatever handles it later reads the rule in the fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import ClassVar, Generic, TypeVar

from attrs import frozen

from distribute_async._wire.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    DistributeError,
)

T_co = TypeVar("T_co", covariant=True)


class Action(Enum):
    """What a wait does about a fault."""

    RETRY_NOW = "ask again at once, uncounted, the first time while the client is healthy; else back off"
    BACK_OFF = "back off; end after `Retry.max_outage`"
    CONNECT = "back off; end after `Retry.first_contact` while the client has had no response yet, else as above"
    HOLD = "back off; `Retry-After` holds back all requests of the client"
    GRACE = "back off; end once it was the only response for `Retry.not_found_grace`"
    MALFORMED = "back off; three in a row end the wait"
    END = "end the wait at once"


class HealthSignal(Enum):
    """What an exchange says about the service as a whole; the client's circuit breaker goes by it."""

    UP = "the service responds"
    DOWN = "counts towards an outage: five in a row open the circuit breaker"
    UNCLEAR = "something responds, but not well"
    CUT = "the exchange was cut before it could tell"


@frozen
class Rule:
    """One row: which faults (reasons of an error without a status code, or status codes) and what follows."""

    fault: str
    action: Action
    signal: HealthSignal
    reasons: frozenset[str] = frozenset()
    codes: frozenset[int] = frozenset()


def _reason(fault: str, reason: str, action: Action, signal: HealthSignal) -> Rule:
    return Rule(fault, action, signal, reasons=frozenset({reason}))


def _codes(fault: str, codes: Iterable[int], action: Action, signal: HealthSignal = HealthSignal.UP) -> Rule:
    return Rule(fault, action, signal, codes=frozenset(codes))


_TRANSIENT_4XX = {408, 409, 425}
_GATEWAY_5XX = {502, 504}

RULES: tuple[Rule, ...] = (
    # No whole response came (APIConnectionError, APITimeoutError).
    _reason("a kept-alive connection turns out closed, or poisoned", "stale", Action.RETRY_NOW, HealthSignal.DOWN),
    _reason("refused, unreachable, reset while connecting", "connect", Action.CONNECT, HealthSignal.DOWN),
    _reason("no connection within `Limits.connect_timeout`", "connect_timeout", Action.CONNECT, HealthSignal.DOWN),
    _reason("the host name isn't found", "dns", Action.CONNECT, HealthSignal.DOWN),
    _reason("TLS handshake fails", "tls", Action.CONNECT, HealthSignal.DOWN),
    _reason("the certificate doesn't verify", "certificate", Action.END, HealthSignal.UNCLEAR),
    _reason("the proxy refuses or is unreachable", "proxy", Action.CONNECT, HealthSignal.DOWN),
    _reason("connection closed or reset before the response", "disconnected", Action.BACK_OFF, HealthSignal.DOWN),
    _reason("connection lost within the response, or a body that can't be read", "body", Action.BACK_OFF, HealthSignal.DOWN),  # noqa: E501
    _reason("the response is not HTTP, or its head is too large", "protocol", Action.BACK_OFF, HealthSignal.DOWN),
    _reason("no whole response within `Limits.exchange_timeout`", "timeout", Action.BACK_OFF, HealthSignal.DOWN),
    _reason("something else than the client cancels the exchange", "cancelled", Action.BACK_OFF, HealthSignal.UNCLEAR),
    _reason("anything else that breaks an exchange", "unexpected", Action.BACK_OFF, HealthSignal.UNCLEAR),
    # A response with a status code of its own.
    _codes("no such task (yet)", {404}, Action.GRACE),
    _codes("a request that came at a bad moment", _TRANSIENT_4XX, Action.BACK_OFF),
    _codes("too many requests", {429}, Action.HOLD),
    _codes("the service is overloaded or in maintenance", {503}, Action.HOLD, HealthSignal.DOWN),
    _codes("a gateway without a service behind it", _GATEWAY_5XX, Action.BACK_OFF, HealthSignal.DOWN),
    _codes("the service fails", {*range(500, 600)} - _GATEWAY_5XX - {503}, Action.BACK_OFF, HealthSignal.UNCLEAR),
    _codes("a redirect (never followed)", range(300, 400), Action.END),
    _codes("refused for good", {*range(400, 500)} - _TRANSIENT_4XX - {404, 429}, Action.END),
    # A response that the API does not promise (APIResponseValidationError).
    _reason("status code 1xx, 2xx but 200, or 600 and above", "code", Action.MALFORMED, HealthSignal.UNCLEAR),
    _reason("empty, HTML, no JSON", "not_json", Action.BACK_OFF, HealthSignal.UNCLEAR),
    _reason("JSON of the wrong shape, non-finite numbers, nested too deeply", "shape", Action.MALFORMED, HealthSignal.UNCLEAR),  # noqa: E501
    _reason("over `Limits.max_body_bytes`", "too_large", Action.END, HealthSignal.UNCLEAR),
    # Nothing was sent (ClientClosedError, ConfigurationError).
    UNUSABLE := Rule("the session is closed, or the address can't be used", Action.END, HealthSignal.CUT),
)  # fmt: skip

_BY_REASON = {reason: rule for rule in RULES for reason in rule.reasons}
_BY_CODE = {code: rule for rule in RULES for code in rule.codes}


def rule_for(error: DistributeError) -> Rule:
    """The row of the table for what an exchange came to."""
    if isinstance(error, APIStatusError):
        return _BY_CODE[error.status_code]
    if isinstance(error, APIConnectionError | APIResponseValidationError):
        return _BY_REASON[error.reason]
    return UNUSABLE


def pause_of(error: DistributeError) -> float:
    """Seconds for which the service asks to be left alone; 0 where it doesn't, or where that code can't ask."""
    if isinstance(error, APIStatusError) and rule_for(error).action is Action.HOLD:
        return error.retry_after or 0.0
    return 0.0


@frozen
class Good(Generic[T_co]):
    """An exchange brought a response that the API promises."""

    result: T_co
    signal: ClassVar[HealthSignal] = HealthSignal.UP


@frozen
class Fault:
    """An exchange brought anything else."""

    error: DistributeError
    #: The row of the fault table.
    rule: Rule
    #: Seconds for which the service asks to be left alone; 0 where it doesn't.
    pause: float
    #: Whether the service, or something in its place, responded at all.
    is_response: bool
    #: One word of few, fit for a label; nothing that the service said is in it.
    word: str

    @classmethod
    def of(cls, error: DistributeError) -> Fault:
        """Classify an error."""
        return cls(
            error,
            rule_for(error),
            pause_of(error),
            isinstance(error, APIStatusError | APIResponseValidationError),
            fault_word(error),
        )

    @property
    def signal(self) -> HealthSignal:
        """What it says about the service as a whole."""
        return self.rule.signal

    @property
    def surely_did_nothing(self) -> bool:
        """Whether the response means that the request had no effect: 3xx but 303, 4xx, and 503 (RFC 9110 §15)."""
        return isinstance(self.error, APIStatusError) and self.error.status_code in _WITHOUT_EFFECT

    @property
    def was_turned_away(self) -> bool:
        """Whether the service, or a proxy, turned the request away before it had any effect: 429 and 503."""
        return self.rule.action is Action.HOLD


#: What an exchange came to.
Reply = Good[T_co] | Fault

_WITHOUT_EFFECT = {503, *range(300, 500)} - {303}


def fault_word(error: DistributeError) -> str:
    """One word of few for what an exchange came to: the status code, the `reason`, or "unusable" (nothing was sent)."""
    if isinstance(error, APIStatusError):
        return str(error.status_code)
    return error.reason if isinstance(error, APIConnectionError | APIResponseValidationError) else "unusable"
