"""How the integrations get along with their frameworks: kinds of task, HEAD, sub-applications, OpenAPI, errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, get_args

import pytest
from aiohttp import web
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from starlette.middleware.gzip import GZipMiddleware

from distribute_async import ConfigurationError, DistributeClient, NotFoundError
from distribute_async.emulator import Emulator
from distribute_async.integrations import _feeds
from distribute_async.integrations import aiohttp as on_aiohttp
from distribute_async.integrations import fastapi as on_fastapi
from tests.integrations.eventsource import Source
from tests.integrations.sites import Site, serve_aiohttp, serve_fastapi
from tests.integrations.test_streams import LIFE, STORY, assert_silence
from tests.waiting import ID

MakeClient = Callable[[], DistributeClient]

FACES = pytest.mark.parametrize("face", [on_aiohttp, on_fastapi], ids=["aiohttp", "fastapi"])


def serve(face: Any, make_client: MakeClient, **settings: Any) -> Any:
    """The event route alone, for each path that there is."""
    if face is on_aiohttp:
        app = web.Application()
        on_aiohttp.setup(app, make_client)
        app.router.add_get("/{task_id}", on_aiohttp.task_events(authorize=on_aiohttp.anyone, **settings))
        return serve_aiohttp(app)
    api = FastAPI(lifespan=on_fastapi.lifespan(make_client), exception_handlers=on_fastapi.exception_handlers)
    events = on_fastapi.task_events(authorize=on_fastapi.anyone, **settings)
    api.api_route("/{task_id}", methods=["GET", "HEAD"], **on_fastapi.event_route)(events)
    return serve_fastapi(api)


async def raw(site: Site, request: str) -> bytes:
    """All that a server says to a request before it closes the connection."""
    host, _, port = site.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(100):
        said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


@pytest.mark.looptime
@FACES
@pytest.mark.parametrize("kind", ["images", "speech"])
async def test_each_kind_of_task(emulator: Emulator, make_client: MakeClient, face: Any, kind: str) -> None:
    """Tasks that make files are told as chats are, and their result has the files."""
    task_id = emulator.add_task(LIFE, kind=kind)
    async with serve(face, make_client, kind=kind) as site, Source(site.session, f"{site.url}/{task_id}") as source:
        assert await source.all() == STORY
    assert source.messages[-2].json["result"]["results"][0]["url"].startswith(emulator.files_url)
    assert {request.path for request in emulator.requests} == {f"/async/{kind}/result"}


@pytest.mark.looptime
async def test_the_same_id_as_another_kind(emulator: Emulator, make_client: MakeClient) -> None:
    """What is told of a task of one kind is not told of another kind, though the id is the same."""
    task_id = emulator.add_task(LIFE, kind="images")
    app = web.Application()
    on_aiohttp.setup(app, make_client)
    app.router.add_get("/chat/{task_id}", on_aiohttp.task_events(authorize=on_aiohttp.anyone))
    app.router.add_get("/images/{task_id}", on_aiohttp.task_events(authorize=on_aiohttp.anyone, kind="images"))
    async with serve_aiohttp(app) as site:
        for kind, told in {"images": STORY, "chat": ["error", "done"]}.items():
            async with Source(site.session, f"{site.url}/{kind}/{task_id}") as source:
                assert await source.all() == told


@FACES
def test_a_kind_that_there_is_not(face: Any) -> None:
    """An unknown kind of task is refused where the route is made, with the kinds that there are."""
    with pytest.raises(ConfigurationError, match=r"one of chat, images, speech, not 'pictures'"):
        face.task_events(authorize=face.anyone, kind="pictures")


async def test_all_kinds_are_known(client: DistributeClient) -> None:
    """The kinds that a route takes are those of the client."""
    with pytest.raises(ConfigurationError) as refused:
        client.tasks("pictures")
    assert f"one of {', '.join(get_args(_feeds.Kind))}," in str(refused.value)


@pytest.mark.looptime
@FACES
async def test_head(emulator: Emulator, make_client: MakeClient, face: Any) -> None:
    """HEAD gives the head of a stream and nothing else, at once, and asks the service nothing."""
    task_id = emulator.add_task(LIFE)
    async with serve(face, make_client) as site:
        head, _, rest = (await raw(site, f"HEAD /{task_id}")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-type: text/event-stream" in head.lower()
        assert b"content-length" not in head.lower()
        assert rest == b""
        assert (await raw(site, "HEAD /7")).startswith(b"HTTP/1.1 400 ")
        assert (await raw(site, f"HEAD /{task_id}?last_event_id=1-done-")).startswith(b"HTTP/1.1 204 ")
        await assert_silence(emulator)
    assert emulator.requests == []


@pytest.mark.looptime
async def test_an_error_after_the_response_has_begun(
    emulator: Emulator, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An error out of a response that has begun cuts the connection: no second response is written into it."""

    async def begun(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"Once upon a time")
        raise NotFoundError(404)

    async def not_begun(request: web.Request) -> web.StreamResponse:
        raise NotFoundError(404)

    app = web.Application()
    on_aiohttp.setup(app, make_client)
    app.router.add_get("/begun", begun)
    app.router.add_get("/not-begun", not_begun)
    async with serve_aiohttp(app) as site:
        said = await raw(site, "GET /begun")
        assert said.count(b"HTTP/1.1") == 1
        assert b"Once upon a time" in said
        assert not said.endswith(b"0\r\n\r\n")
        assert (await raw(site, "GET /not-begun")).startswith(b"HTTP/1.1 404 ")
    assert any(record.exc_info and record.exc_info[0] is NotFoundError for record in caplog.records)


@pytest.mark.looptime
async def test_an_error_after_fastapis_response_has_begun(emulator: Emulator, make_client: MakeClient) -> None:
    """On FastAPI, too, no second response is written into one that has begun."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client), exception_handlers=on_fastapi.exception_handlers)

    async def parts() -> Any:
        yield b"Once upon a time"
        raise NotFoundError(404)

    @app.get("/begun")
    async def begun() -> StreamingResponse:
        return StreamingResponse(parts())

    async with serve_fastapi(app) as site:
        said = await raw(site, "GET /begun")
    assert said.count(b"HTTP/1.1") == 1
    assert not said.endswith(b"0\r\n\r\n")


@pytest.mark.looptime
@FACES
async def test_an_application_that_was_not_set_up(face: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Without a client the answer is 500, and the log says what the application lacks."""
    events = face.task_events(authorize=face.anyone)
    if face is on_aiohttp:
        app = web.Application()
        app.router.add_get("/{task_id}", events)
        serving = serve_aiohttp(app)
    else:
        api = FastAPI()
        api.get("/{task_id}")(events)
        serving = serve_fastapi(api)
    async with serving as site:
        assert (await site.get(f"/{ID}")).status == 500
    [error] = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert isinstance(error, RuntimeError)
    assert "this application has no client: give it" in str(error)


def sub_application() -> FastAPI:
    """One that takes for granted that another one has the client."""
    sub = FastAPI(exception_handlers=on_fastapi.exception_handlers)
    sub.get("/tasks/{task_id}/events")(on_fastapi.task_events(authorize=on_fastapi.anyone))

    @sub.get("/tasks/{task_id}")
    async def answer(task_id: str, client: on_fastapi.Client) -> str | None:
        return (await client.wait_for_result(task_id)).text

    return sub


@pytest.mark.looptime
async def test_fastapis_sub_applications(emulator: Emulator, make_client: MakeClient) -> None:
    """In a mounted application, how deep and behind what ever, the client and the events are the outermost one's."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client))
    between = FastAPI()
    between.mount("/sub", sub_application())
    app.mount("/near", sub_application())
    app.mount("/far", between)
    app.mount("/behind", GZipMiddleware(sub_application()))
    async with serve_fastapi(app) as site:
        for path in ("/near", "/far/sub", "/behind"):
            task_id = emulator.add_task([(0, "COMPLETED")], text=path)
            async with site.session.get(f"{site.url}{path}/tasks/{task_id}") as response:
                assert await response.json() == path
            async with Source(site.session, f"{site.url}{path}/tasks/{task_id}/events") as source:
                assert await source.all() == ["COMPLETED", "result", "done"]
            assert (await site.get(f"{path}/tasks/7")).status == 400


@pytest.mark.looptime
async def test_a_sub_application_with_a_client_of_its_own(emulator: Emulator, make_client: MakeClient) -> None:
    """A mounted application whose lifespan is run has its own client."""
    clients: dict[str, DistributeClient] = {}
    app, sub = FastAPI(lifespan=on_fastapi.lifespan(make_client)), FastAPI()
    app.mount("/sub", sub)

    @app.get("/")
    async def outer(client: on_fastapi.Client) -> None:
        clients["app"] = client

    @sub.get("/")
    async def inner(client: on_fastapi.Client) -> None:
        clients["sub"] = client

    async with on_fastapi.lifespan(make_client)(sub), serve_fastapi(app) as site:
        for path in ("/", "/sub/"):
            assert (await site.get(path)).status == 200
    assert clients["app"] is not clients["sub"]


@pytest.mark.looptime
async def test_aiohttps_sub_applications(emulator: Emulator, make_client: MakeClient) -> None:
    """On aiohttp.web, too, a sub-application's events are those of the application that was set up."""
    app, sub = web.Application(), web.Application()
    on_aiohttp.setup(app, make_client)
    sub.router.add_get("/{task_id}", on_aiohttp.task_events(authorize=on_aiohttp.anyone))
    app.add_subapp("/sub", sub)
    async with serve_aiohttp(app) as site:
        async with Source(site.session, f"{site.url}/sub/{emulator.add_task(LIFE)}") as source:
            assert await source.all() == STORY
        assert (await site.get("/sub/7")).status == 400


@pytest.mark.looptime
@pytest.mark.parametrize("is_included", [False, True])
async def test_what_the_openapi_document_says(emulator: Emulator, make_client: MakeClient, is_included: bool) -> None:
    """The event route says that it streams events, and with what else it answers; the running application as well."""
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client))
    router = APIRouter(prefix="/v1") if is_included else app.router
    router.get("/{task_id}", **on_fastapi.event_route)(on_fastapi.task_events(authorize=on_fastapi.anyone))
    if is_included:
        app.include_router(router)
    [path] = app.openapi()["paths"].values()
    answers = path["get"]["responses"]
    assert list(answers["200"]["content"]) == ["text/event-stream"]
    assert "content" not in answers["204"]
    assert list(answers["400"]["content"]) == ["application/problem+json"]
    assert "403" in answers
    async with serve_fastapi(app) as site:
        async with site.session.get(f"{site.url}/openapi.json") as response:
            assert json.loads(await response.text())["paths"] == app.openapi()["paths"]
        async with Source(site.session, f"{site.url}{'/v1' * is_included}/{emulator.add_task(LIFE)}") as source:
            assert source.response.content_type == "text/event-stream"
            assert await source.all() == STORY
