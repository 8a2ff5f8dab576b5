"""What both example applications share: their pages, and how a task is created. Nothing here is of a framework.

Creating is plain HTTP; waiting and watching is the library's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from attrs import frozen

STATIC = Path(__file__).parent / "static"
INDEX = STATIC / "index.html"
TASK = STATIC / "task.html"
FAILED = STATIC / "failed.html"

#: For each page. No script or style but our own files, so that nothing a model says can run; and as whoever knows
#: a task's address may see it here, the address is told to nobody.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

LONGEST_FORM = 64 * 1024  # bytes


class NotCreatedError(Exception):
    """The service took no task."""


@frozen
class Order:
    """What the form says."""

    prompt: str
    model: str

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Order | None:
        """The order in a form; None where it holds no prompt."""
        prompt = fields.get("prompt", "").strip()
        return cls(prompt, fields.get("model", "").strip() or "Llama-3.1 8B") if prompt else None


def is_from_our_page(headers: Mapping[str, str]) -> bool:
    """Whether a form comes from a page of this site: another site's must not make tasks that are paid here."""
    return headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}


def service_session() -> aiohttp.ClientSession:
    """A session for the service, with the key and the address from the environment."""
    base_url = os.environ.get("DISTRIBUTE_BASE_URL", "https://api.distribute.ai")
    return aiohttp.ClientSession(
        base_url.rstrip("/") + "/",
        headers={"authorization": os.environ["DISTRIBUTE_API_KEY"]},
        timeout=aiohttp.ClientTimeout(total=30),
    )


async def create_task(service: aiohttp.ClientSession, order: Order) -> str:
    """Create a task and give its id. Tried once: a second try might be paid twice. Raises `NotCreatedError`."""
    body = {"model": order.model, "messages": [{"role": "user", "content": order.prompt}]}
    try:
        async with service.post("async/chat/create", json=body, allow_redirects=False) as response:
            if response.status == 200:
                return str((await response.json())["id"])
            reason = f"HTTP {response.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
        reason = type(error).__name__
    raise NotCreatedError(reason)
