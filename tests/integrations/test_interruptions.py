"""What ends the following of a task before the task ends, and what browsers are told then. On both frameworks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from distribute_async import DistributeClient, Pacing, Retry
from distribute_async.emulator import Emulator, fault
from distribute_async.integrations import _feeds
from distribute_async.integrations import fastapi as on_fastapi
from tests.integrations.eventsource import Parser
from tests.integrations.sites import MakeSite, asgi_scope, ignored, nobody_leaves
from tests.integrations.test_streams import LIFE, PATH, STORY, assert_silence

MakeClient = Callable[[], DistributeClient]


@pytest.fixture
def make_impatient_client(emulator: Emulator) -> MakeClient:
    """Makes clients that give up after 20 s of outage."""
    pacing, retry = Pacing(jitter=lambda span: span / 2), Retry(max_outage=20)
    return lambda: DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=pacing, retry=retry)


def following() -> list[asyncio.Task[Any]]:
    """The asyncio tasks that follow a task for a feed."""
    return [
        task
        for task in asyncio.all_tasks()
        if getattr(task.get_coro(), "__qualname__", "") == _feeds.Feed._follow.__qualname__  # noqa: SLF001
    ]


@pytest.mark.looptime
async def test_a_foreign_cancellation(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """Where somebody else cancels what follows a task, its browsers are disconnected, and go on when they come back."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, asyncio.timeout(4000):
        async with site.events(task_id) as source, site.events(task_id) as other:
            await source.until("QUEUED")
            [task] = following()
            task.cancel()
            seen = await source.all()
            assert await other.all() == seen == ["CREATED", "QUEUED"]
        async with site.events(task_id, source.parser.last_event_id) as source:
            assert seen + await source.all() == STORY
        await assert_silence(emulator)
    assert [record.levelname for record in caplog.records if record.name == "distribute_async.integrations"] == [
        "WARNING"
    ]


@pytest.mark.looptime
async def test_an_outage_that_lasts(emulator: Emulator, make_impatient_client: MakeClient, make_site: MakeSite) -> None:
    """An outage over `max_outage` is told each time with when to come back, without `done`; then the task goes on."""
    task_id = emulator.add_task([*LIFE[:3], (200.0, "PROCESSING"), (300.0, "COMPLETED")])
    async with make_site(make_impatient_client) as site, asyncio.timeout(4000):
        async with site.events(task_id) as source:
            await source.until("POSTPONED")
            seen, mark = list(source.briefs), source.parser.last_event_id
            emulator.down = fault.status(500)
            assert await source.all() == [*seen, "error"]
        for _ in range(2):
            assert source.parser.retry == 30_000
            assert source.parser.last_event_id == source.messages[-1].last_event_id == mark
            assert source.messages[-1].json["status"] == "POSTPONED"
            assert source.messages[-1].json["error"]["error"] == "InternalServerError"
            async with site.events(task_id, mark) as source:
                assert await source.all() == ["error"]
        emulator.down = None
        async with site.events(task_id, mark) as source:
            assert seen + await source.all() == [*PATH[:3], "PROCESSING", "COMPLETED", "result", "done"]
            assert source.parser.retry == 2_000
        await assert_silence(emulator)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("faults", "retry"),
    [
        ([fault.status(429, headers={"Retry-After": "1200"})], 1_200_000),
        ([fault.status(503, headers={"Retry-After": "86400"})], 3_600_000),
        ([fault.status(302)], 30_000),
        ([fault.status(418)], 30_000),
        ([fault.status(200, body=b"[]", content_type="application/json")] * 3, 30_000),
    ],
)
async def test_what_may_get_better(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, faults: list[Any], retry: int
) -> None:
    """What may get better is an `error` without `done`; browsers come back, and not sooner than the service said."""
    task_id = emulator.add_task(LIFE, faults=faults)
    async with make_site(make_client) as site, asyncio.timeout(4000):
        async with site.events(task_id) as source:
            assert await source.all() == ["error"]
        assert source.parser.retry == retry
        assert source.parser.last_event_id == ""
        await asyncio.sleep(min(retry / 1000, 300))  # after which the client has paused long enough
        async with site.events(task_id) as source:
            assert (await source.all())[-2:] == ["result", "done"]


@pytest.mark.looptime
@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 410, 422])
async def test_what_will_not_get_better(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, code: int
) -> None:
    """A refused request, a refused key and an unknown id are told as the end: nobody is to come back for these."""
    task_id = emulator.add_task(LIFE, faults=[fault.status(code)] * 10)
    async with make_site(make_client) as site:
        async with site.events(task_id) as source:
            assert await source.all() == ["error", "done"]
        assert source.parser.retry == 2_000
        async with site.events(task_id, source.parser.last_event_id) as source:
            assert source.response.status == 204


@pytest.mark.looptime
async def test_an_interruption_forgets_nothing(
    emulator: Emulator, make_impatient_client: MakeClient, make_site: MakeSite
) -> None:
    """A browser that was away is told what others were told before an outage, too."""
    task_id = emulator.add_task([*LIFE[:4], (200.0, "PROCESSING"), (300.0, "COMPLETED")])
    async with make_site(make_impatient_client) as site, asyncio.timeout(4000):
        async with site.events(task_id) as other:
            async with site.events(task_id) as source:
                seen = list(await source.until("CREATED"))
            await other.until("POSTPONED")
            await asyncio.sleep(10)
            emulator.down = fault.status(500)
            assert await other.all() == [*PATH[:4], "error"]
        emulator.down = None
        async with (
            site.events(task_id, other.parser.last_event_id) as other,
            site.events(task_id, source.parser.last_event_id) as source,
        ):
            rest = ["PROCESSING", "COMPLETED", "result", "done"]
            assert await other.all() == rest
            assert seen + await source.all() == [*PATH[:4], *rest]


@pytest.mark.looptime
@pytest.mark.parametrize("ahead", [100, 30_000, 10**14])
async def test_a_forged_mark(emulator: Emulator, make_client: MakeClient, make_site: MakeSite, ahead: int) -> None:
    """A browser that claims to know the future takes nothing from another one that was away."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, asyncio.timeout(4000):
        async with site.events(task_id) as source:
            seen = list(await source.until("QUEUED"))
        answering = asyncio.create_task(site.get(f"/tasks/{task_id}", **{"X-User": "owner"}))
        await asyncio.sleep(18)
        async with site.events(task_id, f"{_feeds.unix_time() + ahead}-status-QUEUED"):
            await asyncio.sleep(0.2)
        async with site.events(task_id, source.parser.last_event_id) as source:
            assert seen + await source.all() == STORY
        assert (await answering).status == 200
        async with site.events(task_id, f"{10**14}-status-QUEUED") as forger:
            assert (await forger.all())[-2:] == ["result", "done"]


@pytest.mark.looptime
async def test_a_server_whose_clock_is_behind(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """A browser from a server whose clock is ahead is told all that comes from now on, also beside others."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, site.events(task_id) as other, asyncio.timeout(4000):
        await other.until("CREATED")
        async with site.events(task_id, f"{_feeds.unix_time() + 30_000}-status-CREATED") as source:
            assert await source.all() == STORY[1:]


@pytest.mark.looptime
async def test_a_slow_reader_outlives_an_interruption(emulator: Emulator, make_impatient_client: MakeClient) -> None:
    """A stream that was still being written when following began anew goes on, though who asked anew has gone."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_impatient_client))
    events = on_fastapi.task_events(authorize=on_fastapi.anyone)
    app.api_route("/{task_id}", methods=["GET", "HEAD"])(events)
    path = f"/{emulator.add_task([(0, 'QUEUED'), (100, 'COMPLETED')])}"
    read_on, parser = asyncio.Event(), Parser()
    told: list[str] = []

    async def send(message: Any) -> None:
        messages = parser.feed(message.get("body", b""))
        told.extend(message.brief for message in messages)
        if messages:
            await read_on.wait()

    async with on_fastapi.lifespan(make_impatient_client)(app), asyncio.timeout(4000):
        serving = asyncio.create_task(app(asgi_scope(path), nobody_leaves, send))
        await asyncio.sleep(1)
        emulator.down = fault.status(500)
        await asyncio.sleep(60)
        emulator.down = None
        await app(asgi_scope(path, "HEAD"), nobody_leaves, ignored)
        read_on.set()
        await serving
        assert told == ["QUEUED", "COMPLETED", "result", "done"]


@pytest.mark.looptime
async def test_a_mistake_of_ours(
    emulator: Emulator,
    make_client: MakeClient,
    make_site: MakeSite,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A mistake in this library disconnects the browsers, is logged, and who comes back gets another try."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, asyncio.timeout(4000):
        with monkeypatch.context() as patched:
            patched.setattr(_feeds, "unix_time", lambda: 1 // 0)
            async with site.events(task_id) as source:
                assert await source.all() == []
        async with site.events(task_id) as source:
            assert await source.all() == STORY
    assert any("broke off" in message for message in caplog.messages)
