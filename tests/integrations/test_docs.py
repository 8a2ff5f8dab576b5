"""The how-to pages do what they say: their code is run as it stands there, from the top."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from distribute_async.emulator import Emulator
from tests.integrations.pages import blocks
from tests.integrations.sites import Site, serve_aiohttp, serve_fastapi

Serve = Callable[[Any], AbstractAsyncContextManager[Site]]

PAGES: dict[str, Serve] = {"show-progress-fastapi.md": serve_fastapi, "show-progress-aiohttp.md": serve_aiohttp}
LIFE = [(0, "QUEUED"), (3, "PROCESSING"), (6, "COMPLETED")]
STORY = ["QUEUED", "PROCESSING", "COMPLETED", "result", "done"]


@pytest.fixture(autouse=True)
def environment(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pages take for granted."""
    monkeypatch.setenv("DISTRIBUTE_API_KEY", emulator.api_key)
    monkeypatch.setenv("DISTRIBUTE_BASE_URL", emulator.base_url)


@pytest.mark.looptime
@pytest.mark.parametrize(("page", "serve"), PAGES.items())
async def test_the_five_lines(page: str, serve: Serve, emulator: Emulator) -> None:
    """The first block of a page has five lines, and is a whole application that streams a task to anyone."""
    first = blocks(page, "python")[0]
    assert len([line for line in first.splitlines() if line]) <= 5
    namespace: dict[str, Any] = {}
    exec(first, namespace)
    async with serve(namespace["app"]) as site, site.events(emulator.add_task(LIFE)) as source:
        assert await source.all() == STORY


@pytest.mark.looptime
@pytest.mark.parametrize(("page", "serve"), PAGES.items())
async def test_the_rest_of_a_page(page: str, serve: Serve, emulator: Emulator) -> None:
    """Only a task's owner sees it, and the client is at hand elsewhere."""
    namespace: dict[str, Any] = {}
    for block in blocks(page, "python")[1:]:
        exec(block, namespace)
    task_id, foreign = emulator.add_task(LIFE, text="Short."), emulator.add_task(LIFE)
    namespace["sessions"]["5e55"] = "ada"
    namespace["owners"].update({task_id: "ada", foreign: "bob"})
    async with serve(namespace["app"]) as site:
        async with site.events(task_id, headers={"Cookie": "session=5e55"}) as source:
            assert await source.all() == STORY
        async with site.events(foreign, headers={"Cookie": "session=5e55"}) as source:
            assert source.response.status == 403
        async with site.events(task_id, headers={}) as source:
            assert source.response.status == 401
        async with site.session.get(f"{site.url}/tasks/{task_id}/answer") as response:
            assert await response.json() == {"text": "Short."}


@pytest.mark.looptime
async def test_a_lifespan_within_another(emulator: Emulator) -> None:
    """The page's own lifespan opens the client that its settings make."""
    namespace: dict[str, Any] = {}
    for block in blocks("show-progress-fastapi.md", "python"):
        exec(block, namespace)
    app = namespace["FastAPI"](lifespan=namespace["lifespan"])
    app.get("/tasks/{task_id}/events")(namespace["task_events"](authorize=namespace["anyone"]))
    async with serve_fastapi(app) as site, site.events(emulator.add_task(LIFE)) as source:
        assert await source.all() == STORY
