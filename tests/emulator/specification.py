"""What an answer of the service must look like, by the specification and a validator that isn't ours.

Used by the hook in `tests/conftest.py`, which checks every answer, and by the test that this check can refuse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from openapi_schema_validator import OAS30ReadValidator

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "spec/chat-result.openapi.json").read_text())

_CHAT = "/async/chat/result"
_POST = DOCUMENT["paths"][_CHAT]["post"]
_SCHEMAS = {
    (_CHAT, int(code)): answer["content"]["application/json"]["schema"] for code, answer in _POST["responses"].items()
}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


# No document covers the rest: what the public documentation says.

_CREATED = _object({"id": _POST["requestBody"]["content"]["application/json"]["schema"]["properties"]["id"]})
_TEXT = {"type": "string"}
_URL = {"type": "string", "pattern": "^https?://[^/]+/."}
_NUMBER = {"type": "number"}
_ISO = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"}


def _results(time: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    return _object(
        {
            "id": _TEXT,
            "status": _SCHEMAS[_CHAT, 200]["properties"]["status"],
            "created": time,
            "model": _TEXT,
            "results": {"type": "array", "items": item},
        },
        {"finished": time},
    )


_SCHEMAS |= {(f"/async/{kind}/create", 200): _CREATED for kind in ("chat", "images", "speech")}
_SCHEMAS["/async/images/result", 200] = _results(_ISO, _object({"url": _URL, "revised_prompt": _TEXT}))
_SCHEMAS["/async/speech/result", 200] = _results(_NUMBER, _object({"url": _URL}))
#: Every refusal has the shape of those that are specified.
_MESSAGE = _SCHEMAS[_CHAT, 404]


def check_answer(path: str, status: int, content_type: str, body: bytes) -> None:
    """Raise where this isn't an answer that the service may give: `jsonschema.ValidationError`, or `ValueError`."""
    if content_type != "application/json":
        raise ValueError(f"not JSON: {content_type}")
    schema = _SCHEMAS.get((path, status), _MESSAGE if status >= 400 else None)
    if schema is None:
        raise ValueError(f"no such answer: {status} from {path}")
    OAS30ReadValidator(schema).validate(json.loads(body.decode(), parse_constant=_refuse))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
