"""What the integrations keep, and what they leave behind: bounded, and nothing. On both frameworks."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import FrameType
from typing import Any

import pytest
from fastapi import FastAPI

from distribute_async import ChatResult, DistributeClient
from distribute_async.emulator import Emulator, fault
from distribute_async.integrations import _feeds
from distribute_async.integrations import fastapi as on_fastapi
from tests.integrations.sites import MakeSite, Site, aiohttp_site, asgi_scope, ignored, nobody_leaves, serve_fastapi
from tests.integrations.test_streams import LIFE, STORY, assert_silence
from tests.waiting import now, timers

MakeClient = Callable[[], DistributeClient]


async def story(site: Site, task_id: str) -> list[str]:
    """What a browser that comes for the first time is told."""
    async with site.events(task_id) as source:
        return await source.all()


@pytest.mark.looptime
async def test_only_the_newest_events_are_kept(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a task that goes back and forth for ever the newest events are kept, and who is there is told them all."""
    monkeypatch.setattr(_feeds, "KEPT_EVENTS", 10)
    path = ["QUEUED", "POSTPONED"] * 12
    task_id = emulator.add_task([(12.0 * n, status) for n, status in enumerate([*path, "COMPLETED"])])
    async with make_site(make_client) as site, asyncio.timeout(4000):
        assert await story(site, task_id) == [*path, "COMPLETED", "result", "done"]
        assert await story(site, task_id) == [*path[-7:], "COMPLETED", "result", "done"]


@pytest.mark.looptime
async def test_a_create_under_way_may_end_as_the_application_stops(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite
) -> None:
    """The client of an application that stops lets a create that was sent tell its task."""
    clients: list[DistributeClient] = []

    def new_client() -> DistributeClient:
        clients.append(make_client())
        return clients[0]

    emulator.faults.append(fault.delay(2.0))
    async with make_site(new_client):
        submitting = asyncio.create_task(clients[0].submit(model="m", messages=[{"role": "user", "content": "Hello!"}]))
        await asyncio.sleep(0.5)
    assert (await submitting).task_id
    assert len(emulator.requests) == 1


@pytest.mark.looptime
async def test_feeds_that_were_used_last_are_kept(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the tasks that nobody follows now those are kept that somebody looked at last."""
    monkeypatch.setattr(_feeds, "KEPT_FEEDS", 2)
    one, two, three = (emulator.add_task([(0, "COMPLETED")]) for _ in range(3))
    async with make_site(make_client) as site:
        for task_id in (one, two, one, three):
            await story(site, task_id)
        asked = len(emulator.requests)
        assert asked == 3
        await story(site, one)
        assert len(emulator.requests) == asked
        await story(site, two)
        assert len(emulator.requests) == asked + 1


@pytest.mark.looptime
async def test_a_feed_is_kept_from_when_it_was_left(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a browser was told for long is kept when it leaves, though others came and went meanwhile."""
    monkeypatch.setattr(_feeds, "KEPT_FEEDS", 2)
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site:
        async with site.events(task_id) as source:
            await source.until("CREATED")
            for _ in range(3):
                await story(site, emulator.add_task([(0, "COMPLETED")]))
            await source.until("QUEUED")
        await asyncio.sleep(0.2)
        assert await story(site, task_id) == STORY


@pytest.mark.looptime
async def test_an_answer_is_kept_once(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """Of a task that is over the events alone are kept, not the answer that they were made from as well."""
    text = "Once, and in bytes."
    task_id = emulator.add_task(LIFE, text=text)
    async with make_site(make_client) as site:
        await story(site, task_id)
        gc.collect()
        assert [answer for answer in gc.get_objects() if type(answer) is ChatResult and answer.text == text] == []
        asked = len(emulator.requests)
        assert await story(site, task_id) == STORY
        assert len(emulator.requests) == asked


@pytest.mark.looptime
async def test_long_answers_are_kept_within_bounds(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is bounded in bytes, too: of long answers fewer are kept than of short ones."""
    monkeypatch.setattr(_feeds, "KEPT_BYTES", 100_000, raising=False)
    tasks = [emulator.add_task([(0, "COMPLETED")], text="x" * 30_000) for _ in range(5)]
    async with make_site(make_client) as site:
        for task_id in tasks:
            await story(site, task_id)
        assert len(emulator.requests) == 5
        for task_id in reversed(tasks[2:]):
            await story(site, task_id)
        assert len(emulator.requests) == 5
        await story(site, tasks[0])
        assert len(emulator.requests) == 6


@pytest.mark.looptime
async def test_who_is_there_is_told_what_is_not_kept(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is longer than all that may be kept reaches those who are there, by one poll sequence."""
    monkeypatch.setattr(_feeds, "KEPT_BYTES", 10_000, raising=False)
    task_id = emulator.add_task(LIFE, text="x" * 30_000)
    async with make_site(make_client) as site, AsyncExitStack() as stack:
        sources = [await stack.enter_async_context(site.events(task_id)) for _ in range(3)]
        assert await asyncio.gather(*(source.all() for source in sources)) == [STORY] * 3


@pytest.mark.looptime
async def test_no_timer_is_left(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """With the browsers go the timers of heartbeats and of looks whether they are there."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site:
        async with site.events(task_id) as source:
            await source.until("POSTPONED")
        async with site.events(task_id) as source:
            await source.all()
        await asyncio.sleep(0.2)
        rooms = [str(timer._callback.__module__) for timer in timers()]  # type: ignore[attr-defined]  # noqa: SLF001
        assert [room for room in rooms if room.startswith("distribute_async.integrations")] == []


@pytest.mark.looptime
@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("a mistake of the server")])
@pytest.mark.parametrize("part", [b"retry", b"QUEUED"])
async def test_a_browser_that_cannot_be_sent_anything(
    emulator: Emulator, make_client: MakeClient, part: bytes, error: Exception
) -> None:
    """Where sending fails the stream is closed, and nothing is polled for it any more, whatever the failure."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client))
    app.get("/{task_id}")(on_fastapi.task_events(authorize=on_fastapi.anyone))

    async def send(message: Any) -> None:
        if part in message.get("body", b""):
            raise error

    async with on_fastapi.lifespan(make_client)(app):
        serving = asyncio.create_task(app(asgi_scope(f"/{emulator.add_task(LIFE)}"), nobody_leaves, send))
        [ended] = await asyncio.gather(serving, return_exceptions=True)
        assert ended is (None if isinstance(error, OSError) else error)
        await assert_silence(emulator)


@pytest.mark.looptime
async def test_a_server_that_breaks_off_listening(emulator: Emulator, make_client: MakeClient) -> None:
    """Where a server can't say any more whether the browser is there, the stream ends."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client))
    app.get("/{task_id}")(on_fastapi.task_events(authorize=on_fastapi.anyone))

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(10)
        raise asyncio.CancelledError

    async with on_fastapi.lifespan(make_client)(app), asyncio.timeout(1000):
        await app(asgi_scope(f"/{emulator.add_task([(0, 'QUEUED')])}"), receive, ignored)
        await assert_silence(emulator)


@pytest.mark.looptime
async def test_the_signal_handlers_are_put_back(emulator: Emulator, make_client: MakeClient) -> None:
    """A signal ends the streams and reaches who minded it before; afterwards that one minds it alone again."""
    told: list[int] = []

    def mine(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.signal(number, mine) for number in (signal.SIGINT, signal.SIGTERM)}
    app = FastAPI()
    app.get("/{task_id}")(on_fastapi.task_events(authorize=on_fastapi.anyone))
    try:
        async with on_fastapi.lifespan(make_client)(app):
            assert signal.getsignal(signal.SIGTERM) is not mine
            serving = asyncio.create_task(app(asgi_scope(f"/{emulator.add_task(LIFE)}"), nobody_leaves, ignored))
            await asyncio.sleep(3)
            assert not serving.done()
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            assert serving.done()
        assert [signal.getsignal(number) for number in before] == [mine, mine]
        assert told == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@asynccontextmanager
async def unread(site: Site, path: str) -> AsyncIterator[socket.socket]:
    """A browser that asks for a stream and reads nothing of it."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        host, _, port = site.url.removeprefix("http://").rpartition(":")
        await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nX-User: owner\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(connection, request.encode())
        yield connection


@asynccontextmanager
async def bounded_fastapi_site(make_client: MakeClient) -> AsyncIterator[Site]:
    """With the option that uvicorn needs."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client))
    app.get("/tasks/{task_id}/events")(on_fastapi.task_events(authorize=on_fastapi.anyone))
    async with serve_fastapi(app, shutdown_timeout=3) as site:
        yield site


@pytest.mark.looptime
@pytest.mark.parametrize("make_site", [aiohttp_site, bounded_fastapi_site])
async def test_a_browser_that_never_reads(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """A browser that takes nothing of what it asked for doesn't keep the server from stopping."""
    task_id = emulator.add_task([(0, "QUEUED"), (3, "COMPLETED")], text="x" * 900_000)
    async with AsyncExitStack() as browsers:
        async with make_site(make_client) as site:
            await browsers.enter_async_context(unread(site, f"/tasks/{task_id}/events"))
            async with site.events(task_id) as source:
                assert await source.all() == ["QUEUED", "COMPLETED", "result", "done"]
            await asyncio.sleep(1)
            began = now()
        assert now() - began < 4
    await assert_silence(emulator)


@pytest.mark.looptime
async def test_the_connection_of_who_never_reads(emulator: Emulator, make_client: MakeClient) -> None:
    """On aiohttp.web what a browser hasn't taken when the application stops is not kept for it any longer."""
    length = 900_000
    task_id = emulator.add_task([(0, "COMPLETED")], text="x" * length)
    async with AsyncExitStack() as browsers:
        async with aiohttp_site(make_client) as site:
            browser = await browsers.enter_async_context(unread(site, f"/tasks/{task_id}/events"))
            await asyncio.sleep(3)
        taken = 0
        with suppress(ConnectionResetError):
            while part := await asyncio.get_running_loop().sock_recv(browser, 65_536):
                taken += len(part)
        assert taken < length


@pytest.mark.looptime
@pytest.mark.parametrize(
    "is_stuck",
    [lambda message: b"QUEUED" in message.get("body", b""), lambda message: message.get("body") == b""],
    ids=["an event", "the end"],
)
async def test_a_stream_that_cannot_be_written(
    emulator: Emulator, make_client: MakeClient, is_stuck: Callable[[Any], bool]
) -> None:
    """A stream that waits for its browser to read ends within a second or so of the application's stop."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client))
    app.get("/{task_id}")(on_fastapi.task_events(authorize=on_fastapi.anyone))

    async def send(message: Any) -> None:
        if is_stuck(message):
            await asyncio.get_running_loop().create_future()

    async with on_fastapi.lifespan(make_client)(app):
        serving = asyncio.create_task(app(asgi_scope(f"/{emulator.add_task([(0, 'QUEUED')])}"), nobody_leaves, send))
        await asyncio.sleep(50)
        app.state.distribute_feeds.stop()
        await asyncio.sleep(0.5)
        app.state.distribute_feeds.stop()  # a signal, and then another
        await asyncio.sleep(0.6)
        assert serving.done()
        await assert_silence(emulator)


@pytest.mark.looptime
async def test_a_slow_browser_gets_the_rest_as_all_stops(emulator: Emulator, make_client: MakeClient) -> None:
    """What is being written as the application stops is written, where the browser takes it."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client))
    app.get("/{task_id}")(on_fastapi.task_events(authorize=on_fastapi.anyone))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0.7)
        sent.append(message)

    async with on_fastapi.lifespan(make_client)(app):
        serving = asyncio.create_task(app(asgi_scope(f"/{emulator.add_task(LIFE)}"), nobody_leaves, send))
        await asyncio.sleep(1.8)  # the head, the time to come back, and half of the first status
        app.state.distribute_feeds.stop()
        await serving
        assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
