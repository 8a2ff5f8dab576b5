"""The check that every answer of the test suite goes through: it refuses what is not specified."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from jsonschema import ValidationError  # type: ignore[import-untyped]

from distribute_async.emulator import Emulator
from tests.emulator import calls
from tests.emulator.specification import check_answer

GOOD: dict[str, Any] = {
    "id": "0b7dbd53-71f5-4d2b-9c0e-4dd3a2f7d6f1",
    "status": "COMPLETED",
    "created": 1_700_000_000,
    "finished": 1_700_000_004.5,
    "model": "Llama-3.1 8B",
    "service_tier": "default",
    "usage": {"completion_tokens": 1, "prompt_tokens": 2, "total_tokens": 3},
    "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "Yes.", "role": "assistant"}}],
}


GOOD_IMAGES: dict[str, Any] = {
    "id": GOOD["id"],
    "status": "COMPLETED",
    "created": "2025-10-11T07:30:45.450Z",
    "finished": "2025-10-11T07:30:49.000Z",
    "model": "Flux.1 [dev]",
    "results": [{"url": "http://127.0.0.1:1/a.png", "revised_prompt": "A fox"}],
}
GOOD_SPEECH: dict[str, Any] = {
    **GOOD_IMAGES,
    "created": 1,
    "finished": 2.5,
    "model": "Chatterbox",
    "results": [{"url": "http://127.0.0.1:1/a.wav"}],
}


def check_kind(kind: str, answer: Any) -> None:
    check_answer(f"/async/{kind}/result", 200, "application/json", json.dumps(answer).encode())


def check(answer: Any) -> None:
    check_answer(calls.RESULT, 200, "application/json", json.dumps(answer).encode())


def test_a_good_answer_is_accepted() -> None:
    """The answer that the broken ones are made from is as specified."""
    check(GOOD)


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda answer: answer.pop("status"), id="missing field"),
        pytest.param(lambda answer: answer["choices"][0]["message"].pop("content"), id="missing field, deep"),
        pytest.param(lambda answer: answer.update(status="PAUSED"), id="unknown status"),
        pytest.param(lambda answer: answer["choices"][0].update(finish_reason="length"), id="unknown finish reason"),
        pytest.param(lambda answer: answer.update(error="no"), id="additional property"),
        pytest.param(lambda answer: answer["usage"].update(cost=1), id="additional property, deep"),
        pytest.param(lambda answer: answer.update(created="now"), id="wrong type"),
        pytest.param(lambda answer: answer.update(created=True), id="bool for a number"),
        pytest.param(lambda answer: answer["choices"][0]["message"].update(content=None), id="null"),
        pytest.param(lambda answer: answer["choices"][0].update(index=2), id="out of bounds"),
    ],
)
def test_a_broken_answer_is_refused(break_it: Callable[[Any], object]) -> None:
    """A field that is missing, unknown, additional or of the wrong type doesn't pass."""
    answer = copy.deepcopy(GOOD)
    break_it(answer)
    with pytest.raises(ValidationError):
        check(answer)


@pytest.mark.parametrize(("kind", "good"), [("images", GOOD_IMAGES), ("speech", GOOD_SPEECH)])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"created": None}, id="null"),
        pytest.param({"created": "now"}, id="no time"),
        pytest.param({"choices": []}, id="additional property"),
        pytest.param({"status": "PAUSED"}, id="unknown status"),
        pytest.param({"results": {}}, id="wrong type"),
        pytest.param({"results": [{"url": "a.png"}]}, id="no URL"),
        pytest.param({"results": [{"url": "http://a/b", "revised_prompt": "A fox", "seed": 1}]}, id="more, deep"),
    ],
)
def test_broken_answers_of_other_kinds_are_refused(kind: str, good: dict[str, Any], change: dict[str, Any]) -> None:
    """Images and speech are held to what is documented of them, their unlike times included."""
    check_kind(kind, good)
    with pytest.raises(ValidationError):
        check_kind(kind, {**good, **change})
    with pytest.raises(ValidationError):
        check_kind(kind, {**good, "created": GOOD_SPEECH["created"] if kind == "images" else GOOD_IMAGES["created"]})


@pytest.mark.parametrize(
    ("path", "status", "content_type", "body"),
    [
        (calls.RESULT, 200, "application/json", b'{"status": "ERROR", "created": NaN, "model": "m", "choices": []}'),
        (calls.RESULT, 200, "application/json", b"{"),
        (calls.RESULT, 200, "text/html", b"{}"),
        (calls.RESULT, 201, "application/json", b"{}"),
        (calls.RESULT, 500, "application/json", b'{"error": "no"}'),
        (calls.RESULT, 400, "application/json", b'{"message": "no", "code": 1}'),
        (calls.CREATE, 200, "application/json", b'{"id": "1"}'),
        (calls.CREATE, 404, "application/json", b"{}"),
        ("/elsewhere", 404, "application/json", b"[]"),
    ],
)
def test_other_broken_answers_are_refused(path: str, status: int, content_type: str, body: bytes) -> None:
    """What is no JSON, and refusals and create answers of another shape, don't pass either."""
    with pytest.raises((ValidationError, ValueError)):
        check_answer(path, status, content_type, body)


async def test_the_hook_tells_on_an_emulator_that_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator whose answer isn't as specified gives it all the same, and raises when it is left."""
    monkeypatch.setattr("distribute_async.emulator._lifecycle.STATUSES", {"PAUSED"})
    with pytest.raises(ExceptionGroup) as raised:
        async with (
            Emulator("key") as emulator,
            aiohttp.ClientSession(emulator.base_url, headers={"Authorization": "key"}) as session,
        ):
            assert await calls.status(session, emulator.add_task([(0, "PAUSED")])) == "PAUSED"
    assert [type(error) for error in raised.value.exceptions] == [ValidationError]
