"""The API: two calls for each kind of task, strict in what they take and exact in what they give.

Used by `_emulator` alone. What the specification doesn't say (400, 401, 405, 413) is answered `{message}` as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web
from attrs import frozen

from distribute_async.emulator import _checks
from distribute_async.emulator._checks import RefusedError
from distribute_async.emulator._kinds import KINDS
from distribute_async.emulator._log import RecordedRequest
from distribute_async.emulator._site import json_response

_CALL = re.compile("/async/([a-z]+)/(create|result)")


@frozen(kw_only=True)
class Service:
    """The service as HTTP shows it, over what the emulator behind it knows."""

    #: Makes a task of a kind from a checked create body, and gives its id.
    create: Callable[[str, dict[str, Any]], str]
    #: The result of a task and whether it is as specified; None where the service knows no such task of this kind.
    look_up: Callable[[str, str], tuple[dict[str, Any], bool] | None]

    def answer(self, request: web.BaseRequest, record: RecordedRequest, sent: Any) -> tuple[web.Response, bool]:
        """The answer, and whether it is as specified. Raises `RefusedError`."""
        called = _CALL.fullmatch(request.rel_url.raw_path)
        if called is None or called[1] not in KINDS:
            raise RefusedError(404, "no such path")
        kind, call = called.groups()
        if record.method != "POST":
            raise RefusedError(405, "only POST is allowed", {"Allow": "POST"})
        if not record.authorized:
            raise RefusedError(401, "missing or wrong key in the authorization header")
        if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
            raise RefusedError(400, "content type must be application/json, in UTF-8")
        if isinstance(sent, RefusedError):
            raise sent
        if call == "create":
            body = _checks.checked(sent, KINDS[kind].create)
            return json_response({"id": self.create(kind, body)}), True
        found = self.look_up(kind, _checks.checked(sent, _checks.RESULT)["id"])
        if found is None:
            raise RefusedError(404, "task not found")
        said, is_specified = found
        return json_response(said), is_specified
