"""Leaving a wait, at any point and in any way, leaves nothing behind and disturbs nobody."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import field, frozen

from distribute_async import ClientClosedError, DistributeClient, DistributeError, Limits, WaitTimeoutError
from distribute_async.emulator import Emulator
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, Greeting, MisbehavingServer
from tests.waiting import (
    ID,
    OTHER_ID,
    assert_nothing_runs,
    assert_silence,
    body,
    connections_at,
    ids,
    listed,
    new_client,
    now,
    says,
    tasks,
    turns,
)

Wait = Callable[[DistributeClient], Awaitable[Any]]
WAITS: dict[str, Wait] = {
    "wait_for_result": lambda client: client.wait_for_result(ID),
    "iterate": lambda client: listed(client.watch(ID)),
    "fetch": lambda client: client.fetch(ID),
}


@frozen
class Scene:
    """A server for a wait that is left `after` so many seconds and any number of turns of the loop."""

    script: tuple[Behaviour, ...] = field(factory=lambda: (bad.silence(),))
    greeting: Greeting | None = None
    scheme: str = "http"
    after: float = 0.0
    limits: Limits = field(factory=Limits)
    is_up: bool = True


#: Turns of the loop within which every scene below has become still.
TURNS = 14
QUEUED = bad.good(body("QUEUED"))
SCENES = {
    "connecting, asking, waiting for the answer": Scene(),
    "connecting where nobody listens": Scene(is_up=False),
    "within the TLS handshake": Scene(greeting=bad.silent, scheme="https"),
    "within the head": Scene((bad.silence(bad.head()[:-4]),)),
    "within the body": Scene((bad.silence(bad.answer(body())[:-4]),)),
    "reading the answer, waiting for the next poll": Scene((QUEUED,)),
    "at the second poll, on a kept connection": Scene((QUEUED,), after=1.0),
    "at a poll on a stale connection": Scene((QUEUED, bad.close, bad.silence()), after=1.0),
    "backing off": Scene((bad.status(500),), after=0.4),
    "as the backoff ends": Scene((bad.status(500), bad.silence()), after=0.5),
    "in a pause": Scene((bad.status(429, Retry_After="50"),), after=10.0),
    "as a pause ends": Scene((bad.status(429, Retry_After="50"), bad.silence()), after=50.0),
    "in an outage": Scene((bad.status(503),), after=20.0),
    "held back by the rate": Scene((QUEUED,), after=1.5, limits=Limits(max_requests_per_second=0.1)),
    "as the exchange takes too long": Scene(limits=Limits(exchange_timeout=2.0), after=2.0),
    "as connecting takes too long": Scene(
        greeting=bad.silent, scheme="https", limits=Limits(connect_timeout=2.0), after=2.0
    ),
    "as the result comes": Scene((bad.in_turn(bad.pause(1.0), bad.good(body())),), after=1.0),
}


@asynccontextmanager
async def playing(scene: Scene, **settings: Any) -> AsyncIterator[tuple[MisbehavingServer, DistributeClient]]:
    server = MisbehavingServer(*scene.script, on_connect=[scene.greeting], port=bad.free_port())
    async with server if scene.is_up else contextlib.nullcontext():
        url = server.url.replace("http", scene.scheme)
        async with new_client(url, **{"limits": scene.limits, **settings}) as client:
            yield server, client


@pytest.mark.looptime
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_a_wait_may_be_cancelled_at_any_point(scene: Scene, wait: Wait) -> None:
    """A cancelled wait ends in no time, and leaves no asyncio task, timer, connection in use or later request."""
    for count in range(TURNS):
        async with playing(scene) as (server, client):
            waiting = asyncio.ensure_future(wait(client))
            await asyncio.sleep(scene.after)
            await turns(count)
            began = now()
            was_done = waiting.done()
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, DistributeError):
                await waiting
            assert waiting.cancelled() or was_done
            assert now() == began
            assert_nothing_runs(client)
            await assert_silence(server, 60.0)


@pytest.mark.looptime
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_a_wait_may_be_cancelled_twice(scene: Scene) -> None:
    """A second cancellation, while the first one is being carried out, leaves nothing either."""
    for count in range(0, TURNS, 2):
        for between in range(1, 4):
            async with playing(scene) as (server, client):
                waiting = asyncio.create_task(client.wait_for_result(ID))
                await asyncio.sleep(scene.after)
                await turns(count)
                waiting.cancel()
                await turns(between)
                waiting.cancel()
                await asyncio.wait([waiting])
                assert_nothing_runs(client)
                await assert_silence(server, 4.0)


@pytest.mark.looptime
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_a_sibling_is_not_disturbed(scene: Scene) -> None:
    """Whenever one wait is cancelled, another one on the same id goes on as if it had been alone."""

    async def play(cancel_after: int | None) -> tuple[list[float], int, str]:
        async with playing(scene) as (server, client):
            began = now()
            leaving = asyncio.create_task(client.wait_for_result(ID))
            staying = asyncio.create_task(client.wait_for_result(ID, timeout=scene.after + 9))
            await asyncio.sleep(scene.after)
            if cancel_after is not None:
                await turns(cancel_after)
                leaving.cancel()
            (ended,) = await asyncio.gather(staying, return_exceptions=True)
            leaving.cancel()
            return (
                [round(at - began, 3) for at in server.times],
                server.connections,
                str(ended).replace(server.url[7:], ""),
            )

    undisturbed = await play(None)
    for count in range(TURNS):
        assert await play(count) == undisturbed


@pytest.mark.looptime
async def test_a_wait_may_be_cancelled_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow look-up of the host's name holds no wait up; it fills the pool's cache, and ends with the client."""
    never = asyncio.Event()

    async def slow_look_up(*_: object, **__: object) -> None:
        await never.wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow_look_up)
    async with new_client("https://api.example") as client:
        waiting = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert now() == pytest.approx(1.0, abs=0.05)
        with pytest.raises(WaitTimeoutError):
            await client.wait_for_result(ID, timeout=1)
        assert now() == pytest.approx(2.0, abs=0.05)
        await turns(5)
        # aiohttp's own, one for all that ask for this name.
        assert tasks() == {"TCPConnector._resolve_host_with_throttle"}
    assert_nothing_runs(client)


@pytest.mark.looptime
async def test_cancelling_a_connected_wait_closes_its_connection() -> None:
    """An exchange that is cut takes its connection with it; one that waits between polls leaves it to the others."""
    async with MisbehavingServer(QUEUED, bad.silence()) as server, new_client(server.url) as client:
        for seconds, left in [(0.5, 1), (1.5, 0)]:
            waiting = asyncio.create_task(client.wait_for_result(ID))
            await asyncio.sleep(seconds)
            waiting.cancel()
            await turns(10)
            assert connections_at(server) == left


@pytest.mark.looptime
async def test_two_hundred_cancellations_in_a_row(emulator: Emulator, client: DistributeClient) -> None:
    """Cancelling two hundred waits one after the other, each within a poll or between two, leaves a working client."""
    task_id = emulator.add_task([(0, "QUEUED"), (300, "COMPLETED")])
    for n in range(200):
        waiting = asyncio.create_task(client.wait_for_result(task_id))
        await asyncio.sleep(n / 200)
        await turns(n % 12)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert_nothing_runs(client)
    asked = len(emulator.requests)
    await asyncio.sleep(60)
    assert len(emulator.requests) == asked
    await asyncio.sleep(300)
    assert (await client.wait_for_result(task_id)).text


@pytest.mark.looptime
async def test_two_hundred_waits_are_cancelled_at_once() -> None:
    """Two hundred waits on two hundred ids, cancelled together, all end in no time and leave nothing."""
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(200)]
        await asyncio.sleep(1)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        assert now() == 1.0
        assert all(wait.cancelled() for wait in waits)
        assert_nothing_runs(client)
        assert len(server.requests) == 100  # the others were held back by `max_in_flight`
        await assert_silence(server)


# Ways to leave.


@pytest.mark.looptime
async def test_asyncio_timeout_around_a_wait() -> None:
    """`asyncio.timeout` and `asyncio.wait_for` around a wait raise their own TimeoutError, and leave nothing."""
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url) as client:
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(1.0):
                await client.wait_for_result(ID)
        assert not isinstance(raised.value, DistributeError)
        with pytest.raises(TimeoutError) as raised:
            await asyncio.wait_for(client.watch(ID), 1.0)
        assert not isinstance(raised.value, DistributeError)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(client.watch(ID)), 1.0)
        assert now() == pytest.approx(3.0, abs=0.001)
        assert_nothing_runs(client)
        await assert_silence(server)


@pytest.mark.looptime
@pytest.mark.parametrize("leaves_by", ["break", "an error"])
async def test_leaving_a_loop_early_needs_no_cleaning_up(leaves_by: str) -> None:
    """After `break`, or an error of the reader's own, nothing runs, though the watch is still held."""
    async with MisbehavingServer(QUEUED) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        with contextlib.suppress(ZeroDivisionError):
            async for _ in watch:
                if leaves_by == "break":
                    break
                raise ZeroDivisionError
        assert_nothing_runs(client)
        await assert_silence(server)
        assert watch.status == "QUEUED"


@pytest.mark.looptime
async def test_a_cancelled_watch_goes_on_when_asked_again() -> None:
    """Cancellation ends no watch: iterating or awaiting it again goes on where it was, within its own deadline."""
    script = [*says("CREATED"), bad.in_turn(bad.pause(0.7), QUEUED), *says("QUEUED", "COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        watch = client.watch(ID, timeout=100)
        assert await anext(watch) == "CREATED"
        for _ in range(10):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.05)
        assert await listed(watch) == ["QUEUED", "COMPLETED"]
        assert (await watch).text == "the answer"


@pytest.mark.looptime
async def test_a_wait_that_is_never_begun_leaves_nothing() -> None:
    """A watch that nobody uses costs nothing, and goes as any object goes."""
    async with MisbehavingServer(QUEUED) as server, new_client(server.url) as client:
        for task_id in ids(100):
            client.watch(task_id)
        gc.collect()
        assert_nothing_runs(client)
        await assert_silence(server)
        assert server.connections == 0


# At the gate.


@pytest.mark.looptime
async def test_waits_that_queue_for_a_slot_may_be_cancelled() -> None:
    """A wait that is cancelled while `max_in_flight` holds it back never asks, and gives its turn to the next."""
    script = [bad.in_turn(bad.pause(5.0), bad.good(body()))]
    limits = Limits(max_in_flight=1)
    async with MisbehavingServer(*script) as server, new_client(server.url, limits=limits) as client:
        asking = asyncio.create_task(client.wait_for_result(ID))
        queued = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(20)]
        last = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(1)
        for wait in queued:
            wait.cancel()
            await turns(1)
        assert all(wait.cancelled() for wait in queued)
        await asyncio.gather(asking, last)
        assert [request.task_id for request in server.requests] == [ID, OTHER_ID]
        assert now() == pytest.approx(10.0, abs=0.001)


@pytest.mark.looptime
async def test_cancelling_the_one_that_has_the_slot_gives_it_on() -> None:
    """The slot of an exchange that is cut goes to the next in the queue at once."""
    limits = Limits(max_in_flight=1)
    async with (
        MisbehavingServer(bad.silence(), *says("COMPLETED")) as server,
        new_client(server.url, limits=limits) as client,
    ):
        asking = asyncio.create_task(client.wait_for_result(ID))
        await turns(1)
        queued = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(1)
        asking.cancel()
        assert (await queued).text == "the answer"
        assert now() == 1.0


@pytest.mark.looptime
async def test_cancelling_the_probe_of_an_outage_leaves_it_to_another() -> None:
    """In an outage the wait whose probe is under way may leave: another wait's id is probed, and brings the return."""
    script = [*[bad.status(503)] * 6, bad.silence(), *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        waits = {task_id: asyncio.create_task(client.wait_for_result(task_id)) for task_id in (ID, OTHER_ID)}
        await asyncio.sleep(30)
        assert len(server.requests) == 7  # the last one is the probe that is not answered
        probing = server.requests[6].task_id
        waits.pop(probing).cancel()
        (other,) = waits.values()
        assert (await other).text == "the answer"
        assert server.times[7] <= 30 + 5


# Closing.


@pytest.mark.looptime
async def test_close_may_be_cancelled_at_any_point() -> None:
    """A cancelled `close()` has ended the waits all the same; closing again closes what is left."""
    for count in range(TURNS):
        async with MisbehavingServer(bad.silence()) as server:
            client = new_client(server.url)
            waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(3)]
            await asyncio.sleep(1)
            closing = asyncio.create_task(client.close())
            await turns(count)
            closing.cancel()
            ended = await asyncio.gather(*waits, return_exceptions=True)
            if count:  # else it was cancelled before it began
                assert {type(end) for end in ended} <= {ClientClosedError}
            await client.close()
            await asyncio.wait([closing])
            assert_nothing_runs(client, but=[closing])
            await turns(5)  # the server's own, to see that its connections are closed
            assert connections_at(server) == 0
            await assert_silence(server, 4.0)


@pytest.mark.looptime
async def test_waits_may_be_cancelled_while_the_client_closes() -> None:
    """Waits that are cancelled in the same moment as their client is closed end in one way or the other."""
    for count in range(TURNS):
        async with MisbehavingServer(bad.silence()) as server:
            client = new_client(server.url)
            waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(3)]
            await asyncio.sleep(1)
            closing = asyncio.create_task(client.close())
            await turns(count)
            for wait in waits:
                wait.cancel()
            ended = await asyncio.gather(*waits, return_exceptions=True)
            assert {type(end) for end in ended} <= {ClientClosedError, asyncio.CancelledError}
            await closing
            assert_nothing_runs(client)
            await turns(5)
            assert connections_at(server) == 0
