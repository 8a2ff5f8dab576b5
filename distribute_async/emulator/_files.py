"""The files of results, on an address of their own and without a key, as a service has them on other hosts.

Used by `_emulator` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from attrs import frozen

from distribute_async.emulator._checks import RefusedError
from distribute_async.emulator._log import RecordedRequest
from distribute_async.emulator._media import File


@frozen(kw_only=True)
class Files:
    """The files as HTTP shows them: `/{task's id}/{name}`."""

    #: A task's file by that name; None where there is none yet.
    find: Callable[[str, str], File | None]

    def answer(self, request: web.BaseRequest, record: RecordedRequest, _sent: Any) -> tuple[web.Response, bool]:
        """The file, and that no specification says a word about it. Raises `RefusedError`."""
        if record.method not in {"GET", "HEAD"}:
            raise RefusedError(405, "only GET and HEAD are allowed", {"Allow": "GET, HEAD"})
        task_id, _, name = request.rel_url.raw_path.removeprefix("/").partition("/")
        file = self.find(task_id, name)
        if file is None:
            raise RefusedError(404, "no such file")
        return web.Response(body=file.make(), content_type=file.content_type), False
