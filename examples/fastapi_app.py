"""Create tasks and see them run: a progress page on FastAPI.

DISTRIBUTE_API_KEY=… DISTRIBUTE_BASE_URL=… uvicorn examples.fastapi_app:app
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from distribute_async.integrations.fastapi import Client, anyone, event_route, exception_handlers, task_events
from distribute_async.integrations.fastapi import lifespan as distribute_lifespan
from examples import pages


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """The application's connections: the library's client, and a session to create tasks."""
    async with distribute_lifespan()(app), pages.service_session() as app.state.service:
        yield


app = FastAPI(lifespan=lifespan, exception_handlers=exception_handlers)
app.mount("/static", StaticFiles(directory=pages.STATIC))
# A task's id is a random UUID that only its creator was given: here whoever knows it may see the task.
app.get("/tasks/{task_id}/events", **event_route)(task_events(authorize=anyone))


@app.get("/")
async def index() -> Response:
    """The form, and the tasks that this browser created."""
    return FileResponse(pages.INDEX, headers=pages.HEADERS)


@app.post("/tasks")
async def create(request: Request) -> Response:
    """Create a task, and go to its page."""
    if not pages.is_from_our_page(request.headers):
        raise HTTPException(403)
    form = b""
    async for chunk in request.stream():
        form += chunk
        if len(form) > pages.LONGEST_FORM:
            raise HTTPException(413)
    order = pages.Order.of(dict(parse_qsl(form.decode(errors="replace"))))
    if order is None:
        raise HTTPException(400, "a prompt is missing")
    try:
        task_id = await pages.create_task(request.app.state.service, order)
    except pages.NotCreatedError:
        return FileResponse(pages.FAILED, 502, headers=pages.HEADERS)
    return RedirectResponse(f"/tasks/{task_id}", 303)


@app.get("/tasks/{task_id}")
async def task(task_id: str, client: Client) -> Response:
    """The page of one task. The page itself asks for the task's events."""
    client.watch(task_id)  # raises where this is no id; asks nothing yet
    return FileResponse(pages.TASK, headers=pages.HEADERS)
