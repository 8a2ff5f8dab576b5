"""One case for each way to bring a row of the fault table about, and what the tests of faults share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import frozen

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    DistributeClient,
    DistributeError,
    InternalServerError,
    NotFoundError,
    Pacing,
    PermissionDeniedError,
    RateLimitError,
)
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, Greeting, MisbehavingServer
from tests.seams import RULES, Action, Rule

ID = "0b7dbd53-71f5-4d2b-9c0e-4dd3a2f7d6f1"
OTHER_ID = "4fd6b0a6-6b6c-4a3e-8f1e-0d8f6a1c2b3d"
KEY = "key-1f0c2d"


def half(span: float) -> float:
    return span / 2


def task(status: str = "COMPLETED", text: str = "the answer") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choices = [{"finish_reason": "stop", "index": 0, "message": message}] if status == "COMPLETED" else []
    return {"status": status, "created": 1_700_000_000, "model": "a-model", "choices": choices}


BODY = json.dumps(task()).encode()
GOOD = bad.good(task())
QUEUED = bad.good(task("QUEUED"))
#: Every wait of these tests is exact: the random half of each backoff is a quarter of it.
PACING = Pacing(initial=1.0, factor=1.0, max=1.0, jitter=half)


def new_client(url: str, **settings: Any) -> DistributeClient:
    return DistributeClient(KEY, **{"base_url": url, "pacing": PACING, **settings})


def now() -> float:
    return asyncio.get_running_loop().time()


async def caught(waiting: Any) -> DistributeError:
    with pytest.raises(DistributeError) as raised:
        await waiting
    return raised.value


# One case for each way to bring a row about: what happens to the first exchanges, and after those all is well.


@frozen
class Scene:
    """A service that misbehaves for so many exchanges (None: for ever), and what the client is told about it."""

    script: tuple[Behaviour, ...] = (GOOD,)
    on_connect: tuple[Greeting | None, ...] = (None,)
    uses_tls: bool = False
    #: The server starts this late, in seconds; None: never.
    starts_after: float | None = 0.0
    is_proxy: bool = False
    resolver_fault: BaseException | None = None


@frozen
class Case:
    """A name, the fault (a row's reason or a status code), and the scene in which it happens `times` times."""

    name: str
    fault: str | int
    scene: Callable[[int | None], Scene]
    error: type[DistributeError] = APIConnectionError
    # How long one such exchange takes, in seconds.
    lasts: float = 0.0


def answers(behaviour: Behaviour) -> Callable[[int | None], Scene]:
    """The service behaves so, and is well afterwards."""
    return lambda times: Scene((behaviour,) if times is None else (*[behaviour] * times, GOOD))


def greets(greeting: Greeting, *, uses_tls: bool) -> Callable[[int | None], Scene]:
    """The service treats so many connections like this, and is well afterwards."""
    return lambda times: Scene(
        on_connect=(greeting,) if times is None else (*[greeting] * times, None), uses_tls=uses_tls
    )


def late(**settings: Any) -> Callable[[int | None], Scene]:
    """Nobody listens, and later somebody does: waits of 0.375 s, 0.75 s, 1.5 s for up to three failures."""
    return lambda times: Scene(starts_after=None if times is None else 0.3 * (2**times - 1), **settings)


def unresolved(fault: BaseException) -> Callable[[int | None], Scene]:
    """The name resolves in the end."""
    return lambda times: Scene(resolver_fault=fault, starts_after=None if times is None else 0.0)


STRANGE_CODES = {code: f"code {code}" for code in (201, 202, 206, 226, 299, 600, 799, 999)}
HEAD = bad.head(200, {"Content-Length": "9"})
HTML = b"<html><body>Bad gateway</body></html>"

LATE_BAD_CHUNK = bad.in_turn(
    bad.raw(bad.head(200, {"Transfer-Encoding": "chunked"}) + b"2\r\n{ \r\n"),
    bad.pause(0.01),
    bad.raw_and_close(b"zz\r\n}"),
)

CASES = [
    Case("nobody listens", "connect", late()),
    Case("closes on connect", "disconnected", greets(bad.close_at_once, uses_tls=False)),
    Case("resets on connect", "disconnected", greets(bad.reset_at_once, uses_tls=False)),
    Case("the name is unknown", "dns", unresolved(socket.gaierror(socket.EAI_NONAME, "not known"))),
    Case("garbage for TLS", "tls", greets(bad.say(b"\x00\x01garbage" * 9), uses_tls=True)),
    Case("plain text behind https", "tls", greets(bad.say(bad.answer(task())), uses_tls=True)),
    Case("closes in the TLS handshake", "connect", greets(bad.close_at_once, uses_tls=True)),
    Case("silent in the TLS handshake", "connect_timeout", greets(bad.silent, uses_tls=True), APITimeoutError, 1.0),
    Case("the proxy isn't there", "proxy", late(is_proxy=True)),
    Case("closes without an answer", "disconnected", answers(bad.close)),
    Case("resets without an answer", "disconnected", answers(bad.reset)),
    Case("closes after a letter", "disconnected", answers(bad.raw_and_close(b"H"))),
    Case("closes within the head", "disconnected", answers(bad.raw_and_close(bad.head()[:-4]))),
    Case("resets within the head", "disconnected", answers(bad.raw_and_reset(bad.head()[:-4]))),
    Case("closes after 100 Continue", "disconnected", answers(bad.raw_and_close(bad.head(100)))),
    Case("cuts the body", "body", answers(bad.truncated(BODY))),
    Case("resets within the body", "body", answers(bad.raw_and_reset(bad.answer(task())[:-9]))),
    Case(
        "ends a chunked body early",
        "body",
        answers(bad.raw_and_close(bad.head(200, {"Transfer-Encoding": "chunked"}) + b"ff\r\n{")),
    ),
    # Here aiohttp drops the connection and leaves the reader waiting: the exchange's timeout is what ends it.
    Case("breaks the chunks", "timeout", answers(LATE_BAD_CHUNK), APITimeoutError, lasts=2.0),
    Case(
        "gzip that is none",
        "body",
        answers(bad.raw(bad.answer(task(), headers={"Content-Encoding": "gzip"}))),
    ),
    Case("bad status line", "protocol", answers(bad.raw(b"\x16\x03 nonsense\r\n\r\n"))),
    Case("another protocol", "protocol", answers(bad.raw(b"SSH-2.0-OpenSSH_9.6\r\n"))),
    Case("a head of one endless header", "protocol", answers(bad.endless_header)),
    Case("endless headers", "protocol", answers(bad.endless_headers)),
    Case("one huge header", "protocol", answers(bad.raw(bad.head(200, {"x": "y" * 100_000})))),
    Case("a length too short", "protocol", answers(bad.short_length(BODY))),
    Case("bad chunks", "protocol", answers(bad.raw(bad.head(200, {"Transfer-Encoding": "chunked"}) + b"zz\r\n"))),
    Case("two lengths", "protocol", answers(bad.raw(bad.head(200, {"Content-Length": "1", "content-length": "2"})))),
    Case("an answer and garbage", "protocol", answers(bad.raw_and_close(bad.answer(task()) + b"trailing garbage"))),
    Case("silence", "timeout", answers(bad.silence()), APITimeoutError, lasts=2.0),
    Case("a head and silence", "timeout", answers(bad.silence(HEAD)), APITimeoutError, 2.0),
    Case("a drip", "timeout", answers(bad.drip(bad.answer(task()))), APITimeoutError, lasts=2.0),
    Case("a storm of 100 Continue", "timeout", answers(bad.storm), APITimeoutError, lasts=2.0),
    Case("a body of drops", "timeout", answers(bad.endless(HEAD, lambda _: b" ", pause=0.5)), APITimeoutError, 2.0),
    Case("a resolver with a mistake in it", "unexpected", unresolved(RuntimeError("a mistake"))),
    Case("self-signed", "certificate", lambda _: Scene(uses_tls=True)),
    Case("404", 404, answers(bad.status(404, {"message": "Not found"})), NotFoundError),
    *(Case(str(code), code, answers(bad.status(code)), APIStatusError) for code in (408, 409, 425)),
    Case("429", 429, answers(bad.status(429)), RateLimitError),
    Case("503", 503, answers(bad.status(503)), InternalServerError),
    Case("502", 502, answers(bad.status(502, HTML)), InternalServerError),
    Case("504", 504, answers(bad.status(504, HTML)), InternalServerError),
    *(Case(str(code), code, answers(bad.status(code)), InternalServerError) for code in (500, 501, 520, 599)),
    *(
        Case(str(code), code, answers(bad.status(code, b"", Location="http://127.0.0.1:9/")), APIStatusError)
        for code in (300, 301, 302, 303, 304, 307, 308, 399)
    ),
    *(Case(str(code), code, answers(bad.status(code)), BadRequestError) for code in (400, 422)),
    Case("401", 401, answers(bad.status(401)), AuthenticationError),
    *(Case(str(code), code, answers(bad.status(code)), PermissionDeniedError) for code in (402, 403)),
    *(Case(str(code), code, answers(bad.status(code)), APIStatusError) for code in (405, 413, 451, 499)),
    Case("410", 410, answers(bad.status(410)), NotFoundError),
    *(
        Case(name, "code", answers(bad.status(code, task())), APIResponseValidationError)
        for code, name in STRANGE_CODES.items()
    ),
    *(Case(f"code {code}", "code", answers(bad.status(code, b"")), APIResponseValidationError) for code in (204, 205)),
    Case("code 101", "code", answers(bad.raw_and_close(bad.head(101))), APIResponseValidationError),
    Case("empty", "not_json", answers(bad.good(b"")), APIResponseValidationError),
    Case("HTML", "not_json", answers(bad.good(HTML)), APIResponseValidationError),
    Case("cut JSON", "not_json", answers(bad.good(BODY[:-1])), APIResponseValidationError),
    Case("HTTP/1.0 cut by its close", "not_json", answers(bad.http10(BODY[:-1])), APIResponseValidationError),
    Case("null", "shape", answers(bad.good(b"null")), APIResponseValidationError),
    Case("a list", "shape", answers(bad.good([task()])), APIResponseValidationError),
    Case("an empty object", "shape", answers(bad.good({})), APIResponseValidationError),
    Case("a number for a status", "shape", answers(bad.good({**task(), "status": 1})), APIResponseValidationError),
    Case("NaN", "shape", answers(bad.good({**task(), "created": float("nan")})), APIResponseValidationError),
    Case("deep", "shape", answers(bad.good(b"[" * 100_000)), APIResponseValidationError),
    Case("too large", "too_large", answers(bad.good(b" " * (1 << 20) + BODY)), APIResponseValidationError),
    Case("endless chunks", "too_large", answers(bad.endless_chunks), APIResponseValidationError),
]  # fmt: skip


def rule_of(fault: str | int) -> Rule:
    (rule,) = (rule for rule in RULES if fault in rule.reasons or fault in rule.codes)
    return rule


def cases(*actions: Action) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", [case for case in CASES if rule_of(case.fault).action in actions], ids=lambda case: case.name
    )


class BadResolver(AbstractResolver):
    """A caller's own resolver, which fails so many times (or as long as it is told to)."""

    def __init__(self, fault: BaseException, times: int | None) -> None:
        self.fault = fault
        self.left = times

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self.left is None or self.left > 0:
            self.left = None if self.left is None else self.left - 1
            try:
                raise self.fault
            finally:
                self.fault.__traceback__ = None
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0),
        ]

    async def close(self) -> None:
        pass


class Fixture:
    """A running scene: the server, and a client that goes to it."""

    def __init__(self, server: MisbehavingServer, client: DistributeClient) -> None:
        self.server = server
        self.client = client


Stage = Callable[..., contextlib.AbstractAsyncContextManager[Fixture]]


def assert_is_of(case: Case, error: DistributeError) -> None:
    assert isinstance(error, case.error)
    if isinstance(error, APIStatusError):
        assert error.status_code == case.fault
    else:
        assert isinstance(error, APIConnectionError | APIResponseValidationError)
        assert error.reason == case.fault
    assert error.task_id == ID
