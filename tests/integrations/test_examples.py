"""The example applications as processes, by plain HTTP."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from distribute_async.emulator import Emulator, fault
from tests.integrations.eventsource import Source
from tests.integrations.processes import COMMANDS, example


@pytest.mark.parametrize("name", COMMANDS)
async def test_an_example_from_form_to_answer(name: str, emulator: Emulator) -> None:
    """A form makes one task and leads to its page, whose events tell its life; what is no order makes none."""
    async with example(name, emulator) as app, aiohttp.ClientSession(app.url) as session:
        async with session.get("/") as page:
            assert page.status == 200
            assert "script-src 'self'" in page.headers["Content-Security-Policy"]
            assert 'name="prompt"' in await page.text()
        for headers, form, status in [
            ({"Sec-Fetch-Site": "cross-site"}, {"prompt": "?"}, 403),
            ({}, {"prompt": "  "}, 400),
            ({}, {"prompt": "x" * 70_000}, 413),
        ]:
            async with session.post("/tasks", data=form, headers=headers) as refused:
                assert refused.status == status
        async with session.get("/tasks/7") as no_task:
            assert no_task.status == 400
        assert emulator.requests == []
        emulator.faults.append(fault.status(500))
        async with session.post("/tasks", data={"prompt": "Why?"}) as failed:
            assert failed.status == 502
            assert "not created" in await failed.text()
        async with session.post("/tasks", data={"prompt": "Why?"}, allow_redirects=False) as created:
            assert created.status == 303
        assert [request.path for request in emulator.requests] == ["/async/chat/create"] * 2
        async with session.get(created.headers["Location"]) as page:
            assert 'id="answer"' in await page.text()
        task_id = emulator.add_task([(0, "QUEUED"), (0.6, "COMPLETED")])
        async with Source(session, f"{app.url}/tasks/{task_id}/events") as source:
            assert (await source.all())[-3:] == ["COMPLETED", "result", "done"]


@pytest.mark.parametrize("name", COMMANDS)
async def test_an_example_that_is_told_to_stop(name: str, emulator: Emulator) -> None:
    """At SIGTERM an application ends by itself, cleanly, with streams open; the browsers get the end of a response."""
    task_id = emulator.add_task([(0, "QUEUED")])
    async with example(name, emulator) as app, aiohttp.ClientSession() as session:
        async with Source(session, f"{app.url}/tasks/{task_id}/events") as source:
            await source.until("QUEUED")
            assert app.process is not None
            app.process.terminate()
            assert await source.all() == ["QUEUED"]
            await app.process.wait()
        # uvicorn ends with the signal itself once all is cleaned up, so that its parent knows why.
        assert app.process.returncode in {0, -15}
    asked = len(emulator.requests)
    await asyncio.sleep(0.7)
    assert len(emulator.requests) == asked
