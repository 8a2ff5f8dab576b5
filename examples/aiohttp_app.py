"""Create tasks and see them run: a progress page on aiohttp.web.

DISTRIBUTE_API_KEY=… DISTRIBUTE_BASE_URL=… python -m examples.aiohttp_app --port 8080
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from distribute_async.integrations.aiohttp import CLIENT, anyone, setup, task_events
from examples import pages

SERVICE = web.AppKey("service", aiohttp.ClientSession)


async def with_service(app: web.Application) -> AsyncIterator[None]:
    """A session to create tasks, as long as the application runs."""
    async with pages.service_session() as app[SERVICE]:
        yield


async def index(_request: web.Request) -> web.StreamResponse:
    """The form, and the tasks that this browser created."""
    return web.FileResponse(pages.INDEX, headers=pages.HEADERS)


async def create(request: web.Request) -> web.StreamResponse:
    """Create a task, and go to its page."""
    if not pages.is_from_our_page(request.headers):
        raise web.HTTPForbidden
    order = pages.Order.of({name: value for name, value in (await request.post()).items() if isinstance(value, str)})
    if order is None:
        raise web.HTTPBadRequest(text="a prompt is missing")
    try:
        task_id = await pages.create_task(request.app[SERVICE], order)
    except pages.NotCreatedError:
        return web.FileResponse(pages.FAILED, status=502, headers=pages.HEADERS)
    raise web.HTTPSeeOther(f"/tasks/{task_id}")


async def task(request: web.Request) -> web.StreamResponse:
    """The page of one task. The page itself asks for the task's events."""
    request.app[CLIENT].watch(request.match_info["task_id"])  # raises where this is no id; asks nothing yet
    return web.FileResponse(pages.TASK, headers=pages.HEADERS)


def make_app() -> web.Application:
    """The application."""
    app = web.Application(client_max_size=pages.LONGEST_FORM)
    setup(app)
    app.cleanup_ctx.append(with_service)
    app.router.add_get("/", index)
    app.router.add_post("/tasks", create)
    app.router.add_get("/tasks/{task_id}", task)
    # A task's id is a random UUID that only its creator was given: here whoever knows it may see the task.
    app.router.add_get("/tasks/{task_id}/events", task_events(authorize=anyone))
    app.router.add_static("/static", pages.STATIC)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    # With handler_cancellation the polls for a browser that has gone end at once.
    web.run_app(make_app(), host=args.host, port=args.port, handler_cancellation=True)
