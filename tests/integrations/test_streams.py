"""Tasks as event streams, on both frameworks, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from attrs import evolve
from fastapi import FastAPI

from distribute_async import DistributeClient
from distribute_async.emulator import Emulator, fault
from distribute_async.integrations import _feeds
from distribute_async.integrations import aiohttp as on_aiohttp
from distribute_async.integrations import fastapi as on_fastapi
from tests.integrations.eventsource import Parser, Source
from tests.integrations.sites import USER, MakeSite, fastapi_site, serve_aiohttp
from tests.waiting import ID, listed, now, tasks

MakeClient = Callable[[], DistributeClient]

PATH = ["CREATED", "QUEUED", "POSTPONED", "QUEUED", "PROCESSING", "COMPLETED"]
LIFE = [(7.0 * n, status) for n, status in enumerate(PATH)]
STORY = [*PATH, "result", "done"]
END = 7.0 * len(PATH)
SERVERS = {"Server.serve", "LifespanOn.main"}


@pytest.fixture
def shared_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day passes as the loop's does: where a test has several servers."""
    monkeypatch.setattr(_feeds, "unix_time", lambda: int(now() * 1000))


async def assert_silence(emulator: Emulator) -> None:
    """Nobody asks the service any more, and nothing runs but the servers."""
    asked = len(emulator.requests)
    await asyncio.sleep(100)
    assert len(emulator.requests) == asked
    assert tasks() - SERVERS == set()


@pytest.mark.looptime
async def test_a_browser_sees_a_whole_life(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """Each change, the result and the end are told as they come, with all that the standard wants around them."""
    task_id = emulator.add_task(LIFE, text="Two\nlines.")
    async with make_site(make_client) as site, site.events(task_id) as source:
        assert source.response.status == 200
        assert source.response.headers["Content-Type"].startswith("text/event-stream")
        assert source.response.headers["Cache-Control"] == "no-store"
        assert source.response.headers["X-Accel-Buffering"] == "no"
        assert await source.until("QUEUED") == ["CREATED", "QUEUED"]
        assert now() < 14
        assert await source.all() == STORY
    assert source.parser.retry == 2000
    assert {message.json["task_id"] for message in source.messages} == {task_id}
    result = source.messages[-2].json["result"]
    assert result["choices"][0]["message"]["content"] == "Two\nlines."
    ids = [message.last_event_id for message in source.messages]
    assert [mark.split("-", 1)[1] for mark in ids[-3:]] == ["status-COMPLETED", "result-COMPLETED", "done-COMPLETED"]
    assert sorted(set(ids)) == ids


@pytest.mark.looptime
async def test_a_task_that_fails(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """ERROR is told as a status, as an error that says so, and as the end."""
    task_id = emulator.add_task([(0, "QUEUED"), (5, "ERROR")])
    async with make_site(make_client) as site, site.events(task_id) as source:
        assert await source.all() == ["QUEUED", "ERROR", "error", "done"]
        assert source.messages[-2].json["error"]["error"] == "TaskFailedError"
        assert (await site.get(f"/tasks/{task_id}", **{"X-User": "owner"})).status == 502


@pytest.mark.looptime
async def test_a_browser_that_comes_back_goes_on(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite
) -> None:
    """From whichever event on, a reconnect brings exactly the rest, and after the end 204; it costs no request."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, site.events(task_id) as first:
        await first.all()
        asked = len(emulator.requests)
        for n, message in enumerate(first.messages[:-1]):
            async with site.events(task_id, message.last_event_id) as source:
                assert await source.all() == STORY[n + 1 :]
                assert source.messages == first.messages[n + 1 :]
        async with site.events(task_id, first.messages[-1].last_event_id) as source:
            assert source.response.status == 204
        async with Source(
            site.session,
            f"{site.url}/tasks/{task_id}/events?last_event_id={first.messages[2].last_event_id}",
            headers={"X-User": "owner"},
        ) as source:
            assert await source.all() == STORY[3:]
        async with site.events(task_id) as source:
            assert await source.all() == STORY
        assert len(emulator.requests) == asked


@pytest.mark.looptime
async def test_what_a_poll_saw_while_the_browser_was_away(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite
) -> None:
    """What somebody else's polls saw meanwhile is told to the browser when it is back, in order."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, AsyncExitStack() as stack:
        async with site.events(task_id) as source:
            await source.until("QUEUED")
        answering = asyncio.create_task(site.get(f"/tasks/{task_id}", **{"X-User": "owner"}))
        await asyncio.sleep(18)
        back = await stack.enter_async_context(site.events(task_id, source.parser.last_event_id))
        assert await back.until("PROCESSING") == ["POSTPONED", "QUEUED", "PROCESSING"]
        assert (await answering).status == 200


@pytest.mark.looptime
@pytest.mark.parametrize("reached", PATH[:-1])
async def test_a_restarted_server_repeats_nothing(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, reached: str
) -> None:
    """A server that knows nothing goes on where the browser was left by the one before, without a repeated status."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, site.events(task_id) as source:
        seen = await source.until(reached)
        seen = list(seen)
        mark = source.parser.last_event_id
        port = int(site.url.rpartition(":")[2])
        source.response.close()
    async with make_site(make_client, port=port) as site, site.events(task_id, mark) as source:
        assert seen + await source.all() == STORY


@pytest.mark.looptime
async def test_a_restarted_server_after_the_end(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite
) -> None:
    """After the end another server tells only what is left of it, and after `done` it says 204 without asking."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, site.events(task_id) as source:
        await source.all()
    status, result, done = (message.last_event_id for message in source.messages[-3:])
    async with make_site(make_client) as site:
        asked = len(emulator.requests)
        async with site.events(task_id, done) as source:
            assert source.response.status == 204
        assert len(emulator.requests) == asked
        async with site.events(task_id, status) as source:
            assert await source.all() == ["result", "done"]
    async with make_site(make_client) as site, site.events(task_id, result) as source:
        assert await source.all() == ["done"]


@pytest.mark.looptime
@pytest.mark.usefixtures("shared_clock")
async def test_two_servers_at_once(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """A browser sent from one server to another, which knows the task already, is told nothing twice."""
    task_id = emulator.add_task([*LIFE[:-1], (100.0, "COMPLETED")])
    async with make_site(make_client) as here, make_site(make_client) as there, there.events(task_id) as other:
        await other.until("CREATED")
        async with here.events(task_id) as source:
            await source.until("PROCESSING")
        await other.until("PROCESSING")
        async with there.events(task_id, source.parser.last_event_id) as source:
            assert await source.all() == ["COMPLETED", "result", "done"]


@pytest.mark.looptime
@pytest.mark.usefixtures("shared_clock")
async def test_a_server_that_slept_through_it(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """A server that knew the task long ago doesn't tell old news to a browser that heard newer ones elsewhere."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as here, make_site(make_client) as there:
        async with there.events(task_id) as source:
            await source.until("QUEUED")
        async with here.events(task_id) as source:
            await source.until("POSTPONED")
        await asyncio.sleep(7)
        async with there.events(task_id, source.parser.last_event_id) as source:
            assert await source.all() == ["QUEUED", "PROCESSING", "COMPLETED", "result", "done"]


@pytest.mark.looptime
async def test_heartbeats(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """A quiet stream carries a comment every 15 s, which costs the service nothing and cuts no exchange."""
    life = [(0.0, "QUEUED"), (94.0, "COMPLETED")]
    task_id = emulator.add_task(life, faults=[fault.delay(0), fault.delay(25)])
    async with make_client() as client:
        await client.wait_for_result(task_id)
    asked = len(emulator.requests)
    task_id = emulator.add_task(life, faults=[fault.delay(0), fault.delay(25)])
    async with make_site(make_client) as site, site.events(task_id) as source:
        assert await source.all() == ["QUEUED", "COMPLETED", "result", "done"]
    assert len(source.parser.comments) == 6
    assert len(emulator.requests) == 2 * asked


@pytest.mark.looptime
@pytest.mark.parametrize("after", [0.05, 3.0, 20.0])
async def test_a_browser_that_goes_ends_the_polls(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, after: float
) -> None:
    """When the last browser has gone nothing is asked and nothing runs, be it in the middle of an exchange."""
    task_id = emulator.add_task([(0, "QUEUED")], faults=[fault.delay(0.1)])
    async with make_site(make_client) as site:
        async with site.events(task_id) as one, site.events(task_id) as other:
            await asyncio.sleep(after)
            one.response.close()
            asked = len(emulator.requests)
            await asyncio.sleep(25)
            assert len(emulator.requests) > asked
            other.response.close()
            await asyncio.sleep(0.2)
        await assert_silence(emulator)


@pytest.mark.looptime
async def test_coming_and_going(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """Browsers that leave and come back all the time lose nothing and leave nothing behind."""
    task_id = emulator.add_task(LIFE, faults=[fault.delay(0.2)] * 100)
    seen: list[str] = []
    mark = ""
    async with make_site(make_client) as site:
        while "done" not in seen:
            async with site.events(task_id, mark) as source:
                try:
                    async with asyncio.timeout(0.45):
                        await source.all()
                except TimeoutError:
                    pass
                seen += source.briefs
                mark = source.parser.last_event_id
        assert seen == STORY
        await assert_silence(emulator)


@pytest.mark.looptime
async def test_one_comes_as_the_other_goes(emulator: Emulator, make_client: MakeClient) -> None:
    """A browser that comes in the very moment in which the last one goes, amid an exchange, is told all the same."""
    task_id = emulator.add_task(LIFE, faults=[fault.delay(0.2)] * 100)
    async with make_client() as client:
        feeds = _feeds.Feeds(client)
        for asked in range(4):
            stream = feeds.open("chat", task_id, None)
            assert stream is not None
            assert await anext(stream) == b"retry: 2000\n\n"
            while len(emulator.requests) <= asked:  # noqa: ASYNC110 - it sets no event of ours
                await asyncio.sleep(0.01)
            if asked < 3:
                stream.close()
        assert stream is not None
        told = b"".join([chunk async for chunk in stream])
        assert [message.brief for message in Parser().feed(told)] == STORY


@pytest.mark.looptime
async def test_a_hundred_browsers_cost_one_poll_sequence(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite
) -> None:
    """A hundred browsers on one task are told the same, for exactly the requests of one wait."""
    async with make_client() as client:
        await listed(client.watch(emulator.add_task(LIFE)))
    asked = len(emulator.requests)
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site, AsyncExitStack() as stack:
        sources = [await stack.enter_async_context(site.events(task_id)) for _ in range(100)]
        assert await asyncio.gather(*(source.all() for source in sources)) == [STORY] * 100
        assert len({tuple(source.messages) for source in sources}) == 1
        assert len(emulator.requests) == 2 * asked


@pytest.mark.looptime
async def test_five_hundred_browsers_on_fifty_tasks(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite
) -> None:
    """500 streams over 50 tasks each see a whole life, for the requests of 50 waits; with them goes all that runs."""

    def life(n: int) -> list[tuple[float, str]]:
        return [(n / 50 + offset, status) for offset, status in LIFE]

    async with make_client() as client:
        await asyncio.gather(*(client.wait_for_result(emulator.add_task(life(n))) for n in range(50)))
    asked = len(emulator.requests)
    tasks_ = [emulator.add_task(life(n)) for n in range(50)]
    endless = [emulator.add_task([(0, "QUEUED")]) for _ in range(50)]
    async with make_site(make_client) as site:
        async with AsyncExitStack() as stack:
            sources = await asyncio.gather(
                *(stack.enter_async_context(site.events(task_id)) for task_id in tasks_ for _ in range(10))
            )
            assert await asyncio.gather(*(source.all() for source in sources)) == [STORY] * 500
        assert len(emulator.requests) - asked <= 1.1 * asked
        async with AsyncExitStack() as stack:
            for task_id in endless * 10:
                await stack.enter_async_context(site.events(task_id))
            await asyncio.sleep(5)
        await asyncio.sleep(0.2)
        await assert_silence(emulator)


@pytest.mark.looptime
@pytest.mark.parametrize(("user", "status"), [("owner", 200), ("stranger", 403), ("nobody", 500), ("guest", 401)])
async def test_authorisation(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, user: str, status: int
) -> None:
    """Only who is said True to sees a task, no other verdict opens it, and nobody refused costs a request."""
    task_id = emulator.add_task(LIFE)
    async with make_site(make_client) as site:
        async with site.events(task_id, user=user) as source:
            assert source.response.status == status
            await asyncio.sleep(1)
        assert bool(emulator.requests) is (status == 200)
        async with site.events(task_id, "1-done-COMPLETED", user=user) as source:
            assert source.response.status == (204 if status == 200 else status)


@pytest.mark.looptime
async def test_what_is_no_id(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """An id that is none is answered 400, before anything streams, with a problem in our words."""
    async with make_site(make_client) as site, site.events("7") as source:
        assert source.response.status == 400
        assert source.response.content_type == "application/problem+json"
        problem = await source.response.json(content_type=None)
        assert problem == {
            "title": "Bad Request",
            "status": 400,
            "detail": "This is not the id of a task.",
            "error": "InvalidTaskIdError",
        }
    assert emulator.requests == []


@pytest.mark.looptime
async def test_the_services_troubles(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """What goes wrong behind a stream is told as an error in our words, and who asks again gets another try."""
    async with make_site(make_client) as site:
        async with site.events(ID) as source:
            assert await source.all() == ["error", "done"]
            assert source.messages[0].json["error"]["status"] == 404
        task_id = emulator.add_task(LIFE, faults=[fault.status(401, body=b'{"message": "wrong key 5ec2e7"}')])
        async with site.events(task_id) as source:
            assert await source.all() == ["error", "done"]
            assert source.messages[0].json["error"]["status"] == 500
            assert "5ec2e7" not in source.messages[0].data
            assert emulator.api_key not in source.messages[0].data
        async with site.events(task_id) as source:
            assert await source.all() == STORY


@pytest.mark.looptime
async def test_an_error_as_an_answer(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """An error out of a handler becomes an answer, with the service's `Retry-After` and without its words."""
    body = b'{"message": "secret words"}'
    task_id = emulator.add_task(LIFE, faults=[fault.status(503, body=body, headers={"Retry-After": "1200"})])
    async with make_site(make_client) as site:
        late = await site.get(f"/tasks/{emulator.add_task([(0, 'QUEUED')])}", **{"X-User": "owner"})
        assert late.status == 504
        response = await site.get(f"/tasks/{task_id}", **{"X-User": "owner"})
        assert response.status == 503
        assert response.headers["Retry-After"] == "1200"
        assert "secret" not in await response.text()


@pytest.mark.looptime
async def test_a_status_that_nobody_knows(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """A status of any word, however long, breaks neither the stream nor a reconnect."""
    odd = "-done-: %0A \u4e2d" * 4
    task_id = emulator.add_task([(0, "QUEUED"), (3, odd), (9, "COMPLETED")])
    async with make_site(make_client) as site, site.events(task_id) as source:
        await source.until(odd)
        mark = source.parser.last_event_id
        assert await source.all() == ["QUEUED", odd, "COMPLETED", "result", "done"]
    async with make_site(make_client) as site, site.events(task_id, mark) as source:
        assert await source.all() == ["COMPLETED", "result", "done"]


@pytest.mark.looptime
async def test_statuses_that_begin_alike(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """Long statuses that differ at their ends alone are two statuses, also to a server that a browser comes back to."""
    one, two = "\u4e2d" * 20 + "1", "\u4e2d" * 20 + "2"
    task_id = emulator.add_task([(0, one), (9, two), (18, "COMPLETED")])
    async with make_site(make_client) as site, site.events(task_id) as source:
        await source.until(one)
        mark = source.parser.last_event_id
        await source.until(two)
        assert await source.all() == [one, two, "COMPLETED", "result", "done"]
    task_id = emulator.add_task([(0, two), (9, "COMPLETED")])
    async with make_site(make_client) as site, site.events(task_id, mark) as source:
        assert await source.all() == [two, "COMPLETED", "result", "done"]


@pytest.mark.looptime
async def test_a_server_that_stops(emulator: Emulator, make_client: MakeClient, make_site: MakeSite) -> None:
    """A server that stops ends its streams without a word, so that the browsers come back to the next one."""
    task_id = emulator.add_task(LIFE)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with make_site(make_client) as site:
            source = await stack.enter_async_context(evolve(site, session=session).events(task_id))
            await source.until("QUEUED")
            reading = asyncio.create_task(source.all())
            await asyncio.sleep(0.1)
            began = now()
        assert now() - began < 1
        assert (await reading)[-1] != "done"
    await assert_silence(emulator)


@pytest.mark.looptime
async def test_fastapi_behind_a_middleware(emulator: Emulator, make_client: MakeClient) -> None:
    """Behind Starlette's own kind of middleware a browser that goes is noticed too."""
    task_id = emulator.add_task(LIFE)
    endless = emulator.add_task([(0, "QUEUED")])
    async with fastapi_site(make_client, with_middleware=True) as site:
        async with site.events(task_id) as source:
            assert await source.all() == STORY
        async with site.events(endless) as source:
            await source.until("QUEUED")
        await asyncio.sleep(0.2)
        await assert_silence(emulator)


@pytest.mark.looptime
async def test_fastapi_on_a_server_that_only_says_so(emulator: Emulator, make_client: MakeClient) -> None:
    """A stream ends as well where a server of a newer version of ASGI says by `receive` alone that nobody listens."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client))
    app.get("/{task_id}")(on_fastapi.task_events(authorize=on_fastapi.anyone))
    sent: list[Any] = []
    is_gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/{emulator.add_task([(0, 'QUEUED')])}"
    scope: dict[str, Any] = {"type": "http"}
    scope |= {"asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET"}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "headers": [], "scheme": "http"}
    async with on_fastapi.lifespan(make_client)(app):
        serving = asyncio.create_task(app(scope, receive, send))
        await asyncio.sleep(1)
        assert b"QUEUED" in sent[-1]["body"]
        is_gone.set()
        await asyncio.sleep(0.1)
        assert serving.done()
        await assert_silence(emulator)


@pytest.mark.looptime
async def test_the_first_request_leaves_no_trace(
    emulator: Emulator, make_client: MakeClient, make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """What follows a task for many browsers carries none of the context variables of the request that came first."""
    users: list[str | None] = []

    def note(_record: logging.LogRecord) -> bool:
        users.append(USER.get(None))
        return True

    caplog.handler.addFilter(note)
    with caplog.at_level(logging.WARNING, "distribute_async.integrations"):
        async with make_site(make_client) as site:
            refused = [fault.status(401)]
            async with site.events(emulator.add_task(LIFE, faults=refused)) as source:
                assert await source.all() == ["error", "done"]
            await site.get(f"/tasks/{emulator.add_task(LIFE, faults=refused)}", **{"X-User": "owner"})
    assert len(users) == 2
    assert users[0] is None


@pytest.mark.looptime
async def test_aiohttp_without_cancellation(emulator: Emulator, make_client: MakeClient) -> None:
    """Where the server doesn't cancel the handlers of those who left, the polls end within a second, and quietly."""
    errors: list[BaseException] = []

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except BaseException as error:
            errors.append(error)
            raise
        return response

    app = web.Application(middlewares=[note])
    on_aiohttp.setup(app, make_client)
    app.router.add_get("/tasks/{task_id}/events", on_aiohttp.task_events(authorize=on_aiohttp.anyone))
    async with serve_aiohttp(app, handler_cancellation=False) as site:
        for life in ([(0, "QUEUED")], [(0, "QUEUED"), (0.6, "PROCESSING")]):
            async with site.events(emulator.add_task(life)) as source:
                await source.until("QUEUED")
            await asyncio.sleep(1.1)
            await assert_silence(emulator)
    assert errors == []


def test_a_missing_extra_says_what_to_install() -> None:
    """Without FastAPI the import says which extra it takes; aiohttp.web is there already."""
    program = "import sys; sys.modules['fastapi'] = None; import distribute_async.integrations.{}"
    for name, said in {"fastapi": "pip install 'distribute-async[fastapi]'", "aiohttp": ""}.items():
        done = subprocess.run([sys.executable, "-c", program.format(name)], capture_output=True, text=True, check=False)
        assert said in done.stderr
        assert (done.returncode == 0) is (name == "aiohttp")
