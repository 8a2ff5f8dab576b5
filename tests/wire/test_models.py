"""The values: statuses, models and errors, as users meet them."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import distribute_async
from distribute_async import (
    APIStatusError,
    ChatResult,
    InvalidRequestError,
    SubmitUncertainError,
    TaskFailedError,
    TaskStatus,
    WaitTimeoutError,
)
from distribute_async._wire.codec import decode
from distribute_async._wire.errors import DistributeError


def chat_result(body: dict[str, Any]) -> ChatResult:
    import json

    result = decode(200, {}, json.dumps(body).encode(), ChatResult)
    assert isinstance(result, ChatResult), result
    return result


WIRE: dict[str, Any] = {
    "id": "chatcmpl-1",
    "status": "COMPLETED",
    "created": 1_700_000_000,
    "finished": 1_700_000_002.5,
    "model": "Llama-3.1 8B",
    "service_tier": "default",
    "usage": {"completion_tokens": 3, "prompt_tokens": 5, "total_tokens": 8},
    "choices": [
        {
            "finish_reason": "tool_calls",
            "index": 0,
            "message": {
                "content": "secret words",
                "role": "assistant",
                "name": "bot",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "Bern"}'}}
                ],
            },
        }
    ],
}


def test_a_full_answer_goes_there_and_back() -> None:
    """Every field of the specification arrives under its name, and `to_dict` gives the answer back."""
    result = chat_result(WIRE)
    assert result.to_dict() == WIRE
    assert result.text == "secret words"
    assert result.usage is not None
    assert result.usage.total_tokens == 8
    assert result.choices[0].message.tool_calls is not None
    assert result.choices[0].message.tool_calls[0].function.name == "weather"


def test_numbers_stay_as_sent() -> None:
    """An integer stays an integer and a fraction a fraction: nothing is coerced."""
    result = chat_result(WIRE)
    assert (type(result.created), type(result.finished)) == (int, float)


def test_optional_fields_may_be_missing_or_null() -> None:
    """Without its optional fields, and without `choices`, an answer is sound; null counts as missing."""
    least = {"status": "QUEUED", "created": 1, "model": "m"}
    nulls = {"id": None, "finished": None, "usage": None, "service_tier": None, "choices": None}
    assert chat_result(least) == chat_result({**least, **nulls})
    assert chat_result(least).choices == ()
    assert chat_result(least).text is None


def test_unknown_fields_are_kept() -> None:
    """What a newer service sends is in `extra`, at each level, and goes back out with `to_dict`."""
    body = copy.deepcopy(WIRE)
    body["extra"] = "a field of this very name"
    body["choices"][0]["logprobs"] = [1, {"deep": None}]
    result = chat_result(body)
    assert result.extra == {"extra": "a field of this very name"}
    assert result.choices[0].extra == {"logprobs": [1, {"deep": None}]}
    assert result.to_dict() == body
    assert hash(result) == hash(chat_result(WIRE))


def test_null_content_is_none() -> None:
    """`content: null`, usual beside tool calls, is None and goes back out as null."""
    body = copy.deepcopy(WIRE)
    body["choices"][0]["message"]["content"] = None
    assert chat_result(body).text is None
    assert chat_result(body).to_dict() == body


def test_reprs_leave_content_out() -> None:
    """What was asked and answered is not for logs."""
    result = chat_result({**WIRE, "note": "private note"})
    for text in (repr(result), repr(result.choices), repr(TaskFailedError(result))):
        assert "secret" not in text
        assert "Bern" not in text
        assert "private" not in text


def test_models_are_values() -> None:
    """Models are frozen, hashable, comparable and survive pickling."""
    result = chat_result(WIRE)
    assert pickle.loads(pickle.dumps(result)) == result
    assert len({result, chat_result(WIRE)}) == 1
    with pytest.raises(AttributeError):
        result.status = TaskStatus.ERROR  # type: ignore[misc]
    assert not hasattr(result, "__dict__")


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_500, datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1e300, None),
        (-1e300, None),
    ],
)
def test_the_size_of_a_timestamp_tells_its_unit(stamp: float, expected: datetime | None) -> None:
    """Seconds and milliseconds give the same aware datetime; what no datetime can hold gives None."""
    assert chat_result({**WIRE, "created": stamp}).created_at == expected
    assert chat_result({**WIRE, "finished": stamp}).finished_at == expected


def test_without_finished_there_is_no_datetime() -> None:
    """A task under way has no `finished_at`."""
    assert chat_result({"status": "QUEUED", "created": 1, "model": "m"}).finished_at is None


@given(st.text())
def test_any_text_is_a_status(text: str) -> None:
    """The enumeration is open: any text makes a status equal to it, and only the seven words are known."""
    status = TaskStatus(text)
    assert status == text
    assert hash(status) == hash(text)
    assert status.is_known == (text in TaskStatus.__members__)
    assert status.is_terminal == (text in {"COMPLETED", "ERROR"})
    assert pickle.loads(pickle.dumps(status)) == status
    assert copy.deepcopy(status) == status
    assert str(status) == text


def test_unknown_statuses_are_not_remembered() -> None:
    """A service that invents statuses without end can't fill the memory."""
    assert TaskStatus("INVENTED") is not TaskStatus("INVENTED")
    assert len(TaskStatus) == 7


def test_no_status_of_another_type() -> None:
    """A number is no status."""
    with pytest.raises(ValueError, match="5"):
        TaskStatus(5)  # type: ignore[arg-type]


ERRORS = [
    getattr(distribute_async, name)
    for name in distribute_async.__all__
    if name.endswith("Error") and issubclass(getattr(distribute_async, name), DistributeError)
]


def example_of(kind: type[DistributeError]) -> DistributeError:
    if issubclass(kind, APIStatusError):
        return kind(429, "slow down", "req-1", 2.5)
    if kind is TaskFailedError:
        return TaskFailedError(chat_result(WIRE))
    if kind is WaitTimeoutError:
        return WaitTimeoutError("too long", APIStatusError(502))
    if kind is SubmitUncertainError:
        return SubmitUncertainError(APIStatusError(502))
    if kind is InvalidRequestError:
        return InvalidRequestError("words", "model")
    return kind("words")


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_pickle_and_copy(kind: type[DistributeError]) -> None:
    """Each error survives pickling and copying with all that it says."""
    error = example_of(kind).with_context(task_id="t", last_status=TaskStatus.QUEUED, attempts=3, elapsed=1.5)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert {name: repr(value) for name, value in vars(twin).items()} == {
            name: repr(value) for name, value in vars(error).items()
        }
    assert (error.task_id, error.last_status, error.attempts, error.elapsed) == ("t", "QUEUED", 3, 1.5)


def test_standard_bases() -> None:
    """Errors are also what the standard library would raise, where it has a name for it."""
    assert issubclass(distribute_async.ConfigurationError, ValueError)
    assert issubclass(distribute_async.InvalidTaskIdError, ValueError)
    assert issubclass(distribute_async.InvalidRequestError, ValueError)
    assert issubclass(distribute_async.WaitTimeoutError, TimeoutError)
    assert issubclass(distribute_async.APITimeoutError, distribute_async.APIConnectionError)
