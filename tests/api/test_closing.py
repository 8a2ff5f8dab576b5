"""Closing with grace: creates under way may come to their own end, because to cut one is not to know about its task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distribute_async import (
    ClientClosedError,
    ConfigurationError,
    Limits,
    Observer,
    RateLimitError,
    SubmitUncertainError,
)
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.waiting import ID, OTHER_ID, assert_nothing_runs, assert_silence, body, caught, new_client, now

CHAT: dict[str, Any] = {"model": "a-model", "messages": [{"role": "user", "content": "Hello!"}]}


def created(after: float) -> bad.Behaviour:
    return bad.in_turn(bad.pause(after), bad.good({**body("QUEUED"), "id": ID}))


@pytest.mark.looptime
async def test_creates_under_way_come_to_their_end() -> None:
    """With a grace, a create whose request is under way gives its task; waits end at once, and nothing new is sent."""
    async with MisbehavingServer(created(2.0)) as server:
        client = new_client(server.url, limits=Limits(max_in_flight=2))
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(0.1)
        queued = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(0.8)
        began = now()
        closing = asyncio.create_task(client.close(grace=5))
        await caught(waiting, ClientClosedError)
        await caught(queued, ClientClosedError)
        assert now() == began
        await caught(client.submit(**CHAT), ClientClosedError)
        await closing
        assert now() - began == pytest.approx(1.0, abs=0.05)
        assert (await submitting).task_id == ID
        assert_nothing_runs(client)
        await assert_silence(server)
        assert sum(b"messages" in request.body for request in server.requests) == 1


@pytest.mark.looptime
async def test_the_grace_is_bounded() -> None:
    """What takes longer than the grace is cut then, and uncertain."""
    async with MisbehavingServer(bad.silence()) as server:
        client = new_client(server.url)
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(1)
        began = now()
        await client.close(grace=5)
        assert now() - began == pytest.approx(5, abs=0.05)
        assert isinstance((await caught(submitting, SubmitUncertainError)).last_error, ClientClosedError)
        assert_nothing_runs(client)


@pytest.mark.looptime
@pytest.mark.parametrize("code", [429, 503])
async def test_what_is_turned_away_in_the_grace_is_not_sent_again(code: int) -> None:
    """A create that is refused while the client closes surely made no task, and ends as closed."""
    async with MisbehavingServer(bad.in_turn(bad.pause(1), bad.status(code, {}))) as server:
        client = new_client(server.url)
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(0.5)
        await client.close(grace=5)
        await caught(submitting, ClientClosedError)
        assert_nothing_runs(client)
        await assert_silence(server)
        assert len(server.requests) == 1


@pytest.mark.looptime
async def test_a_second_close_ends_the_grace() -> None:
    """Closing again without a grace, or cancelling the first close, cuts what is under way at once."""
    for again in (True, False):
        async with MisbehavingServer(bad.silence()) as server:
            client = new_client(server.url)
            submitting = asyncio.create_task(client.submit(**CHAT))
            await asyncio.sleep(1)
            began = now()
            closing = asyncio.create_task(client.close(grace=60))
            await asyncio.sleep(1)
            if again:
                await client.close()
                await closing
            else:
                closing.cancel()
                await asyncio.wait([closing])
                await client.close()
            assert now() - began == pytest.approx(1, abs=0.05)
            await caught(submitting, SubmitUncertainError)
            assert_nothing_runs(client)


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), "5", None, True])
async def test_a_grace_that_is_no_number_of_seconds_is_refused(grace: Any) -> None:
    """A bad grace is a `ConfigurationError`, and closes nothing."""
    async with MisbehavingServer(created(0.0)) as server, new_client(server.url) as client:
        await caught(client.close(grace=grace), ConfigurationError)
        assert (await client.submit(**CHAT)).task_id == ID


@pytest.mark.looptime
async def test_a_wait_that_was_refused_stays_refused() -> None:
    """A wait that a pause has outlasted ends in that each time, though the client closes meanwhile."""
    closing: list[asyncio.Task[None]] = []

    class ClosesInAPause(Observer):
        def paused(self, seconds: float) -> None:
            closing.append(asyncio.create_task(client.close()))

    async with MisbehavingServer(bad.status(429, **{"retry-after": "60"})) as server:
        client = new_client(server.url, observer=ClosesInAPause())
        watch = client.watch(ID, timeout=10)
        await caught(watch, RateLimitError)
        await caught(watch, RateLimitError)
        await asyncio.gather(*closing)
