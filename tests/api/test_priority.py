"""Somebody waits for an answer now: creates, fetches and first polls go before background polls, and none starves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from distribute_async import (
    APIConnectionError,
    DistributeClient,
    InternalServerError,
    Limits,
    RateLimitError,
    Retry,
    WaitTimeoutError,
)
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.waiting import ID, OTHER_ID, assert_nothing_runs, body, caught, ids, new_client, now

CHAT: dict[str, Any] = {"model": "a-model", "messages": [{"role": "user", "content": "Hello!"}]}
ANSWER = bad.good({**body("QUEUED"), "id": ID})
#: Ten requests a second.
TEN = Limits(max_requests_per_second=10)


@asynccontextmanager
async def busy(waits: int, **settings: Any) -> AsyncIterator[tuple[MisbehavingServer, DistributeClient]]:
    """A service that is well, and a client with so many waits that each want a poll a second."""
    async with MisbehavingServer(ANSWER) as server, new_client(server.url, **settings) as client:
        waiting = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(waits)]
        yield server, client
        for wait in waiting:
            wait.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.looptime
@pytest.mark.parametrize("after", [0.05, 5.0, 40.0])
async def test_a_call_does_not_stand_behind_polls(after: float) -> None:
    """With a limit of ten requests a second and 200 waits, a create and a fetch are sent with the next few requests."""
    async with busy(200, limits=TEN) as (server, client):
        await asyncio.sleep(after)
        for call in (client.submit(**CHAT, timeout=10), client.fetch(OTHER_ID, timeout=10)):
            began = now()
            await call
            assert now() - began <= 0.2 + 0.05
        gaps = [later - earlier for earlier, later in pairwise(server.times)]
        assert min(gaps) >= 0.1 - 1e-6


@pytest.mark.looptime
async def test_a_new_wait_does_not_stand_behind_polls() -> None:
    """The first poll of a wait goes before the further polls of others."""
    async with busy(200, limits=TEN) as (_, client):
        await asyncio.sleep(40)
        watch = client.watch(OTHER_ID)
        began = now()
        assert await anext(watch) == "QUEUED"
        assert now() - began <= 0.3


@pytest.mark.looptime
async def test_polls_get_their_share_of_a_flood_of_calls() -> None:
    """However many creates and fetches queue, polls go on: one request in thirteen at least is theirs."""
    async with busy(20, limits=TEN) as (server, client):
        await asyncio.sleep(10)
        began, calls = now(), []
        for _ in range(300):
            calls += [asyncio.create_task(client.submit(**CHAT)), asyncio.create_task(client.fetch(OTHER_ID))]
        await asyncio.sleep(50)
        asked = [request for request in server.requests if request.at > began]
        polls = [request.at for request in asked if b"messages" not in request.body and request.task_id != OTHER_ID]
        assert len(asked) == pytest.approx(500, abs=5)
        assert len(polls) >= 500 / 13 - 1
        assert max(later - earlier for earlier, later in pairwise(polls)) <= 1.5
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.looptime
async def test_calls_get_their_share_of_a_flood_of_waits() -> None:
    """A create that comes after a thousand new waits is sent at once, not after their first polls."""
    async with busy(1000, limits=TEN) as (_, client):
        await asyncio.sleep(0.5)
        began = now()
        await client.submit(**CHAT)
        assert now() - began <= 0.3


# A pause or an outage that outlasts a call.


@pytest.mark.looptime
@pytest.mark.parametrize(("code", "kind"), [(429, RateLimitError), (503, InternalServerError)])
async def test_a_pause_that_outlasts_a_call_refuses_it_at_once(code: int, kind: type[RateLimitError]) -> None:
    """A create, a fetch or a wait that begins in a pause past its deadline is told the rest of it at once."""
    script = [ANSWER, bad.status(code, {"message": "slow down"}, Retry_After="60", x_request_id="r1")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        known = client.watch(ID)
        assert await anext(known) == "QUEUED"
        other = asyncio.create_task(client.wait_for_result(OTHER_ID, timeout=100))
        await asyncio.sleep(20)
        began = now()
        for call in (
            client.submit(**CHAT, timeout=10),
            client.fetch(ID, timeout=10),
            client.wait_for_result("4fd6b0a6-6b6c-4a3e-8f1e-0d8f6a1c2b3e", timeout=10),
        ):
            error = await caught(call, kind)
            assert (error.status_code, error.message, error.request_id) == (code, "slow down", "r1")
            assert error.retry_after == pytest.approx(40, abs=0.1)
            assert (error.attempts, error.elapsed) == (0, 0)
        assert now() == began
        assert len(server.requests) == 2
        error = await caught(client.fetch(ID, timeout=10), kind)
        assert error.last_status == "QUEUED"
        other.cancel()


@pytest.mark.looptime
async def test_a_pause_that_begins_refuses_the_calls_that_queue() -> None:
    """Calls that wait for their turn as a pause begins are refused then, where it outlasts them; others are sent."""
    script = [bad.in_turn(bad.pause(1.0), bad.status(429, {}, Retry_After="30")), ANSWER]
    async with (
        MisbehavingServer(*script) as server,
        new_client(server.url, limits=Limits(max_in_flight=1)) as client,
    ):
        first = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(0.5)
        hasty = [asyncio.create_task(caught(client.fetch(ID, timeout=20), RateLimitError)) for _ in range(3)]
        patient = asyncio.create_task(client.fetch(ID, timeout=50))
        for error in await asyncio.gather(*hasty):
            assert error.elapsed == pytest.approx(0.5, abs=0.01)
            assert error.retry_after == 30
        assert (await patient).status == "QUEUED"
        first.cancel()


@pytest.mark.looptime
async def test_who_has_polled_before_goes_on_to_its_own_deadline() -> None:
    """A wait that knows its task's status already isn't ended by a pause: it has been told, and may be told more."""
    script = [ANSWER, bad.status(429, {}, Retry_After="60")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        waiting = asyncio.create_task(caught(client.wait_for_result(ID, timeout=20), WaitTimeoutError))
        await asyncio.sleep(0.5)
        other = asyncio.create_task(client.wait_for_result(OTHER_ID))
        assert (await waiting).elapsed == pytest.approx(20)
        other.cancel()


@pytest.mark.looptime
async def test_an_outage_that_outlasts_a_call_refuses_it_at_once() -> None:
    """A call whose deadline comes before the next probe is told what is wrong, and how the task stood last."""
    async with MisbehavingServer(ANSWER) as server:
        client = new_client(server.url)
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in (ID, OTHER_ID)]
        await asyncio.sleep(0.5)
    async with client:
        await asyncio.sleep(30)
        assert client.stats().outage_for is not None
        began = now()
        error = await caught(client.fetch(ID, timeout=0.01), APIConnectionError)
        assert (error.reason, error.last_status, error.attempts) == ("connect", "QUEUED", 0)
        await caught(client.submit(**CHAT, timeout=0.01), APIConnectionError)
        assert now() == began
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_a_probe_that_fails_refuses_what_the_next_one_is_too_late_for() -> None:
    """While a probe is under way it may bring the service back; what it fails for is told then, not at its deadline."""
    slow = bad.in_turn(bad.pause(1.0), bad.status(502))
    async with MisbehavingServer(slow) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(6)]
        await asyncio.sleep(30)
        assert client.stats().outage_for is not None
        for under_way in (1, 0, 1):  # until the next probe begins
            while client.stats().exchanges != under_way:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        asked, began = len(server.requests), now()
        calls = [client.submit(**CHAT, timeout=2.0), client.fetch(OTHER_ID, timeout=2.0)]
        for error in await asyncio.gather(*(caught(call, InternalServerError) for call in calls)):
            assert error.elapsed == pytest.approx(1.0, abs=0.05)
        assert now() - began == pytest.approx(1.0, abs=0.05)
        assert len(server.requests) <= asked + 1  # the probe itself
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


@pytest.mark.looptime
async def test_a_fetch_is_among_the_next_probes_of_an_outage() -> None:
    """In an outage a fetch doesn't stand behind the polls of two hundred waits: its attempts are every other probe."""
    async with busy(200) as (server, client):
        await asyncio.sleep(0.5)
        server.script = (bad.status(502),)
        await asyncio.sleep(60)
        assert client.stats().outage_for is not None
        began, before = now(), len(server.requests)
        error = await caught(client.fetch(OTHER_ID), InternalServerError)
        assert (error.attempts, error.status_code) == (3, 502)
        assert now() - began <= 6 * 5 + 1
        assert len(server.requests) - before <= 6


@pytest.mark.looptime
async def test_no_create_is_ever_a_probe() -> None:
    """Where only creates wait for the end of an outage it is found out by a request that creates nothing."""

    async def back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        await (bad.good({"id": ID}) if b"/create" in request else bad.status(404, {}))(reader, writer, request)

    script = bad.status(502)
    async with MisbehavingServer(script) as server, new_client(server.url, retry=Retry(attempts=1)) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(6)]
        await asyncio.sleep(2)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert client.stats().outage_for is not None
        before = len(server.requests)
        creating = [asyncio.create_task(client.submit(**CHAT)) for _ in range(3)]
        await asyncio.sleep(30)
        probes = server.requests[before:]
        assert 6 <= len(probes) <= 15
        assert {request.path for request in probes} == {"/async/chat/result"}
        assert len({request.task_id for request in probes} - set(ids(6))) == 1
        server.script = (back,)
        assert [task.task_id for task in await asyncio.gather(*creating)] == [ID] * 3
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_a_create_that_leaves_takes_its_probe_along() -> None:
    """A probe that stands in for a create is cut with it: nobody else waits for it."""
    async with MisbehavingServer(bad.status(502)) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(6)]
        await asyncio.sleep(2)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        server.script = (bad.silence(),)
        before = len(server.requests)
        error = await caught(client.submit(**CHAT, timeout=9), WaitTimeoutError)
        assert error.elapsed == pytest.approx(9)
        assert len(server.requests) == before + 1
        assert_nothing_runs(client)
