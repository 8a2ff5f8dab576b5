"""What an answer of the service must look like, by the specification and a validator that isn't ours.

Used by the hook in `tests/conftest.py`, which checks every answer, and by the test that this check can refuse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from openapi_schema_validator import OAS30ReadValidator

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "spec/chat-result.openapi.json").read_text())

_RESULT = "/async/chat/result"
_CREATE = "/async/chat/create"

_POST = DOCUMENT["paths"][_RESULT]["post"]
_SCHEMAS = {
    (_RESULT, int(code)): answer["content"]["application/json"]["schema"] for code, answer in _POST["responses"].items()
}
#: No specification covers it: what the public documentation says.
_SCHEMAS[_CREATE, 200] = {
    "type": "object",
    "properties": {"id": _POST["requestBody"]["content"]["application/json"]["schema"]["properties"]["id"]},
    "required": ["id"],
    "additionalProperties": False,
}
#: Every refusal has the shape of those that are specified.
_MESSAGE = _SCHEMAS[_RESULT, 404]


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
