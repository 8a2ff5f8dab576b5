"""What is cancelled by something else than the library, and functions of users that raise: no wait hangs or storms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from distribute_async import (
    APIConnectionError,
    ConfigurationError,
    ObservedExchange,
    Observer,
    Pacing,
    Retry,
    SubmitUncertainError,
)
from tests import misbehaving as bad
from tests.faults.matrix import shows
from tests.misbehaving import MisbehavingServer
from tests.seams import RULES
from tests.waiting import ID, assert_nothing_runs, assert_silence, body, caught, new_client, now, says

CHAT: dict[str, Any] = {"model": "a-model", "messages": [{"role": "user", "content": "Hello!"}]}
CREATED = bad.good({"id": ID})


async def await_what_is_cancelled() -> None:
    """What a middleware does that shares an asyncio task with others, one of whom cancels it."""
    shared = asyncio.ensure_future(asyncio.sleep(60))
    shared.cancel()
    await shared


async def before(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    await await_what_is_cancelled()
    return await handler(request)


async def after(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    await handler(request)
    await await_what_is_cancelled()
    raise AssertionError


def hooked(name: str) -> aiohttp.TraceConfig:
    async def hook(*_: Any) -> None:
        raise asyncio.CancelledError

    trace = aiohttp.TraceConfig()
    getattr(trace, name).append(hook)
    return trace


#: Sessions in which an exchange ends in a cancellation, by when it does.
UNSENT: dict[str, Callable[[], aiohttp.ClientSession]] = {
    "a middleware, before": lambda: aiohttp.ClientSession(middlewares=[before]),
    "a hook at the start": lambda: aiohttp.ClientSession(trace_configs=[hooked("on_request_start")]),
    "a hook while connecting": lambda: aiohttp.ClientSession(trace_configs=[hooked("on_connection_create_start")]),
}
SENT: dict[str, Callable[[], aiohttp.ClientSession]] = {
    "a middleware, after": lambda: aiohttp.ClientSession(middlewares=[after]),
    "a hook at the end": lambda: aiohttp.ClientSession(trace_configs=[hooked("on_request_end")]),
}


@pytest.mark.looptime
@pytest.mark.parametrize("new_session", SENT.values(), ids=SENT)
async def test_a_create_that_was_sent_is_uncertain_and_not_sent_again(
    new_session: Callable[[], aiohttp.ClientSession],
) -> None:
    """A cancellation from elsewhere after a create was sent is a fault like any: nobody knows what became of it."""
    async with (
        MisbehavingServer(CREATED) as server,
        new_session() as session,
        new_client(server.url, session=session) as client,
    ):
        error = await caught(asyncio.wait_for(client.submit(**CHAT), 60), SubmitUncertainError)
        assert isinstance(error.last_error, APIConnectionError)
        assert error.last_error.reason == "cancelled"
        await assert_silence(server)
        assert len(server.requests) == 1


@pytest.mark.looptime
@pytest.mark.parametrize("new_session", UNSENT.values(), ids=UNSENT)
async def test_a_create_that_was_not_sent_is_tried_so_many_times(
    new_session: Callable[[], aiohttp.ClientSession],
) -> None:
    """Where the cancellation came before anything was sent, `Retry.attempts` attempts are made, with backoff."""
    async with (
        MisbehavingServer(CREATED) as server,
        new_session() as session,
        new_client(server.url, session=session, retry=Retry(attempts=2)) as client,
    ):
        began = now()
        error = await caught(asyncio.wait_for(client.submit(**CHAT), 60), APIConnectionError)
        assert (error.reason, error.attempts) == ("cancelled", 2)
        assert now() - began >= 0.25
        assert server.requests == []


@shows(next(rule for rule in RULES if "cancelled" in rule.reasons), APIConnectionError)
@pytest.mark.looptime
@pytest.mark.parametrize("new_session", [*UNSENT.values(), *SENT.values()], ids=[*UNSENT, *SENT])
async def test_a_poll_that_something_else_cancels_backs_off(
    new_session: Callable[[], aiohttp.ClientSession],
) -> None:
    """Polls that are cancelled from elsewhere are a fault: backed off, and given up after `Retry.max_outage`."""
    async with (
        MisbehavingServer(*says("QUEUED")) as server,
        new_session() as session,
        new_client(server.url, session=session, retry=Retry(max_outage=30.0)) as client,
    ):
        began = now()
        error = await caught(asyncio.wait_for(client.wait_for_result(ID), 60), APIConnectionError)
        assert error.reason == "cancelled"
        assert now() - began == pytest.approx(30, abs=0.1)
        assert error.attempts <= 10
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_a_wait_outlives_the_cancellation_of_everything_around_it() -> None:
    """Whoever cancels all asyncio tasks but the caller's own costs the wait an attempt and nothing else."""
    async with MisbehavingServer(bad.silence(), *says("COMPLETED")) as server, new_client(server.url) as client:
        waiting = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(0.5)
        for task in asyncio.all_tasks() - {asyncio.current_task(), waiting} - server.tasks:
            task.cancel()
        assert (await waiting).text == "the answer"
        assert len(server.requests) == 2
        assert server.times[1] - server.times[0] >= 0.7
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_an_observer_that_raises_a_cancellation_breaks_no_wait(caplog: pytest.LogCaptureFixture) -> None:
    """`CancelledError` out of an observer is a mistake like any other: logged, and without effect."""

    class Broken(Observer):
        def exchange_ended(self, exchange: ObservedExchange) -> None:
            raise asyncio.CancelledError

        wait_started = wait_moved = wait_ended = request_headers = exchange_ended  # type: ignore[assignment]

    async with MisbehavingServer(*says("QUEUED", "COMPLETED")) as server:
        async with new_client(server.url, observer=Broken()) as client:
            assert (await asyncio.wait_for(client.wait_for_result(ID), 60)).text == "the answer"
            assert_nothing_runs(client)
        assert len(server.requests) == 2
    assert "the observer broke in exchange_ended" in caplog.text


def breaking(times: int, fault: object) -> Callable[[float], float]:
    """A jitter that does its work so many times, and then raises or gives `fault`."""
    left = [times]

    def jitter(span: float) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            return span / 2
        if isinstance(fault, BaseException):
            raise fault
        return fault

    return jitter


FAULTS = [ZeroDivisionError("mine"), asyncio.CancelledError(), float("nan"), float("inf"), -1.0, 1e9, "1", None, True]


@pytest.mark.looptime
@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("fault", FAULTS, ids=repr)
async def test_a_jitter_that_fails_ends_the_wait(fault: object, times: int) -> None:
    """A `jitter` that raises, or gives no number within its span, ends the wait in an error that names it."""
    pacing = Pacing(jitter=breaking(times, fault))
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, pacing=pacing) as client:
        watch = client.watch(ID)
        error = await caught(asyncio.wait_for(watch, 60), ConfigurationError)
        assert "Pacing.jitter" in str(error)
        assert (type(fault).__name__ if isinstance(fault, BaseException) else repr(fault)) in str(error)
        assert watch.status == "QUEUED"
        assert_nothing_runs(client)


@pytest.mark.looptime
@pytest.mark.parametrize("behaviour", [bad.status(500), bad.status(502), bad.close])
async def test_a_jitter_that_fails_after_a_fault_ends_each_wait(behaviour: bad.Behaviour) -> None:
    """So it does where backoff or an outage's probe draws from it, whichever of several waits that is."""
    pacing = Pacing(jitter=breaking(9, ZeroDivisionError()))
    async with MisbehavingServer(behaviour) as server, new_client(server.url, pacing=pacing) as client:
        waits = [client.wait_for_result(f"{n:08x}-0000-4000-8000-000000000000") for n in range(4)]
        async with asyncio.timeout(600):
            ended = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(end) for end in ended} == {ConfigurationError}
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_a_result_is_not_lost_to_a_jitter_that_fails() -> None:
    """Nothing is drawn for a task that is over, and a create that succeeded gives its task."""
    pacing = Pacing(jitter=breaking(0, ZeroDivisionError()))
    script = [CREATED, bad.good(body("COMPLETED"))]
    async with MisbehavingServer(*script) as server, new_client(server.url, pacing=pacing) as client:
        assert (await client.submit_and_wait(**CHAT)).text == "the answer"
