"""What tasks are created from: ranges, what is sent, and that the service would take it."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from collections import UserList, deque
from types import MappingProxyType
from typing import Any

import aiohttp
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distribute_async import (
    BadRequestError,
    ChatRequest,
    DistributeClient,
    DistributeError,
    ImageRequest,
    InvalidRequestError,
    Message,
    SpeechRequest,
)
from distribute_async.emulator import Emulator
from distribute_async.emulator._kinds import KINDS
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.waiting import ID, assert_is_ours, new_client

CHAT: dict[str, Any] = {"model": "Llama-3.1 8B", "messages": [{"role": "user", "content": "Hello!"}]}
IMAGE: dict[str, Any] = {"model": "Flux.1 [dev]", "prompt": "A fox"}
SPEECH: dict[str, Any] = {"model": "Chatterbox", "input": "Hello!"}
LEAST: dict[Any, dict[str, Any]] = {ChatRequest: CHAT, ImageRequest: IMAGE, SpeechRequest: SPEECH}
NAN, INF = float("nan"), float("inf")
HUGE = 10**400

#: For each field with bounds: the lowest and the highest that is taken, and what is just outside or something else.
NUMBERS: dict[tuple[Any, str], tuple[list[Any], list[Any]]] = {
    (ChatRequest, "frequency_penalty"): ([-2, -2.0, 0, 2, 2.0], [-2.0001, 2.0001, HUGE, -HUGE]),
    (ChatRequest, "presence_penalty"): ([-2, 0.0, 2], [-2.0001, 2.0001, HUGE]),
    (ChatRequest, "max_completion_tokens"): ([-1, 0, 600], [-2, 601, 5.5, HUGE, -HUGE]),
    (ChatRequest, "n"): ([1, 2, 1000], [0, -1, 1.5, -HUGE]),
    (ChatRequest, "temperature"): ([2, 2.0, 0, -5], [2.0001, HUGE]),
    (ChatRequest, "top_p"): ([1, 1.0, 0, -1], [1.0001, HUGE]),
    (ImageRequest, "guidance_scale"): ([1, 5, 10], [0, 11, 5.5, HUGE]),
    (ImageRequest, "num_inference_steps"): ([1, 50], [0, 51, 1.5, HUGE]),
    (ImageRequest, "n"): ([1, 4], [0, -1, 1.5]),
    (SpeechRequest, "temperature"): ([0, 0.0, 0.5, 1], [-0.0001, 1.0001, HUGE]),
    (SpeechRequest, "exaggeration"): ([0, 0.5, 1.0], [-0.0001, 1.0001, HUGE]),
    (SpeechRequest, "cfg_weight"): ([0, 0.5, 1.0], [-0.0001, 1.0001, HUGE]),
}
TEXTS: dict[tuple[Any, str], tuple[list[Any], list[Any]]] = {
    (ChatRequest, "model"): (["m"], [""]),
    (ImageRequest, "model"): (["m"], [""]),
    (ImageRequest, "prompt"): (["", "x" * 1000, "\N{SNOWMAN}" * 1000], ["x" * 1001]),
    (SpeechRequest, "model"): (["m"], [""]),
    (SpeechRequest, "input"): (["xy", "x" * 4096], ["", "x", "x" * 4097]),
}
NO_CONTENT: list[Any] = [5, True, b"x", {}, {1}, ...]
NO_NUMBERS: list[Any] = [True, False, NAN, INF, -INF, "5", b"5", [1], (), {}, 1j, object()]
NO_TEXTS: list[Any] = [None, True, 5, b"text", ["text"], {}]


def sent(request: Any) -> dict[str, Any]:
    """What a request says."""
    said = json.loads(request.body())
    assert isinstance(said, dict)
    return said


def refused(kind: Any, **fields: Any) -> str:
    """The words in which a field is refused; checks that the error has its name, and that nothing hangs on it."""
    with pytest.raises(InvalidRequestError) as raised:
        kind(**{**LEAST[kind], **fields}).body()
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, DistributeError)
    assert_is_ours(raised.value)
    assert raised.value.parameter in fields
    assert raised.value.parameter in str(raised.value)
    twin = pickle.loads(pickle.dumps(raised.value))
    assert (str(twin), twin.parameter) == (str(raised.value), raised.value.parameter)
    return str(raised.value) + repr(raised.value)


@pytest.mark.parametrize(("kind", "name"), [*NUMBERS, *TEXTS])
def test_a_bound_is_within(kind: Any, name: str) -> None:
    """A value at a documented bound is sent as it is."""
    taken, _ = {**NUMBERS, **TEXTS}[kind, name]
    for value in taken:
        said = sent(kind(**{**LEAST[kind], name: value}))[name]
        assert (said, type(said)) == (value, type(value))


@pytest.mark.parametrize(("kind", "name"), [*NUMBERS, *TEXTS])
def test_what_is_outside_is_refused(kind: Any, name: str) -> None:
    """A value just outside of its bounds, or of another type, is refused by its field's name."""
    _, outside = {**NUMBERS, **TEXTS}[kind, name]
    others = NO_NUMBERS if (kind, name) in NUMBERS else NO_TEXTS
    for value in [*outside, *others]:
        assert f"{name} must be" in refused(kind, **{name: value}), value


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_none_is_not_given(kind: Any, name: str) -> None:
    """None for an optional field is the field left out."""
    assert sent(kind(**LEAST[kind], **{name: None})) == LEAST[kind]


@pytest.mark.parametrize("kind", LEAST)
def test_only_what_is_given_is_sent(kind: Any) -> None:
    """Without optional fields the body has the required ones alone, so that the service's defaults hold."""
    assert sent(kind(**LEAST[kind])) == LEAST[kind]
    assert sent(kind(**LEAST[kind], timeout=5, extra_body=None)) == LEAST[kind]
    assert sent(kind(**LEAST[kind], extra_body={})) == LEAST[kind]


@pytest.mark.parametrize("kind", LEAST)
def test_what_is_required_is_required(kind: Any) -> None:
    """A required field that is missing is refused by its name, and fields have no order to be given in."""
    for name in LEAST[kind]:
        with pytest.raises(InvalidRequestError, match=f"{name} is missing") as raised:
            kind(**{key: value for key, value in LEAST[kind].items() if key != name})
        assert raised.value.parameter == name
    with pytest.raises(InvalidRequestError, match="model is missing"):
        kind()
    with pytest.raises(TypeError):
        kind(*LEAST[kind].values())


#: For a name that there isn't: what was meant, None where that can't be told.
MISNAMED: list[tuple[Any, str, str | None]] = [
    *((ChatRequest, name, "max_completion_tokens") for name in ("max_tokens", "max_output_tokens", "max_new_tokens")),
    *((ChatRequest, name, "messages") for name in ("message", "prompt", "input", "mesages")),
    (ChatRequest, "temprature", "temperature"),
    (ChatRequest, "stop_sequences", "stop"),
    (ChatRequest, "functions", "tools"),
    (ChatRequest, "extra", "extra_body"),
    (ChatRequest, "request_timeout", "timeout"),
    (ChatRequest, "top_k", "top_p"),
    (ChatRequest, "logprobs", None),
    (ChatRequest, "voice", None),
    (ImageRequest, "steps", "num_inference_steps"),
    (ImageRequest, "text", "prompt"),
    (ImageRequest, "width", "size"),
    (ImageRequest, "negative_prompts", None),
    (SpeechRequest, "text", "input"),
    (SpeechRequest, "prompt", "input"),
    (SpeechRequest, "max_tokens", None),
    (SpeechRequest, "self", None),
    (SpeechRequest, "", None),
    (SpeechRequest, "x" * 10_000, None),
    (SpeechRequest, "a\nb", None),
]


@pytest.mark.parametrize(("kind", "name", "meant"), MISNAMED, ids=lambda value: str(value)[:20])
def test_a_field_that_there_is_not_is_refused(kind: Any, name: str, meant: str | None) -> None:
    """A misspelt field, or one that is called otherwise elsewhere, is refused with the name that was meant."""
    with pytest.raises(InvalidRequestError) as raised:
        kind(**{**LEAST[kind], name: 5})
    assert raised.value.parameter == name
    assert_is_ours(raised.value)
    words = str(raised.value)
    assert words.isprintable()
    assert len(words) < 300
    assert "extra_body" in words
    assert (f"did you mean {meant}?" in words) if meant else ("did you mean" not in words)


@pytest.mark.parametrize("kind", LEAST)
def test_a_request_is_a_value(kind: Any) -> None:
    """Requests are copied, pickled, evolved and compared like any value, and say what they take."""
    request = kind(**LEAST[kind], timeout=5)
    assert pickle.loads(pickle.dumps(request)) == copy.copy(request) == attrs.evolve(request) == request
    assert attrs.evolve(request, model="other").model == "other"
    with pytest.raises(InvalidRequestError, match="model"):
        attrs.evolve(request, model="")
    assert {*inspect.signature(kind).parameters} >= {*LEAST[kind], "extra_body", "timeout"}


@pytest.mark.parametrize(
    "messages",
    [
        *([], (), "Hello!", b"Hello!", None, 7, {}, {"role": "user"}, ["Hello!"], [None], [[]], [{}], [{"role": 5}]),
        *([{"content": "no role"}], [{"role": None}], iter(CHAT["messages"]), set()),
        *([*CHAT["messages"], {"role": "user", "content": value}] for value in NO_CONTENT),
        *([Message(role=5, content="")], [Message(role="user", content=5)]),  # type: ignore[arg-type]
    ],
    ids=lambda messages: type(messages).__name__ if hasattr(messages, "__next__") else repr(messages),
)
def test_what_is_no_conversation_is_refused(messages: Any) -> None:
    """Messages are a list of at least one mapping with a role and something said, or `Message`."""
    assert "messages must be a list" in refused(ChatRequest, messages=messages)


@pytest.mark.parametrize("kind", [list, tuple, deque, UserList])
def test_any_sequence_of_messages_goes(kind: Any) -> None:
    """Whatever is a sequence of mappings or of `Message` is sent as a list of objects."""
    messages = kind([MappingProxyType({"role": "system", "content": "Be brief."}), Message(role="user", content="Hi")])
    assert sent(ChatRequest(model="m", messages=messages))["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_a_message_keeps_what_it_does_not_know() -> None:
    """A `Message` is sent with its unknown fields, and with null where it has no content."""
    message = Message(role="tool", content=None, extra={"tool_call_id": "call_1"})
    (said,) = sent(ChatRequest(model="m", messages=[message]))["messages"]
    assert said == {"role": "tool", "content": None, "tool_call_id": "call_1"}


def test_extra_body_adds_and_replaces() -> None:
    """Fields of `extra_body` are sent unchecked, in the place of documented ones too."""
    request = ChatRequest(**CHAT, temperature=1, extra_body={"temperature": 5, "top_k": 3, "model": "other"})
    assert sent(request) == {**CHAT, "temperature": 5, "top_k": 3, "model": "other"}


def test_any_text_goes() -> None:
    """Text outside of ASCII, and half a character, are sent as JSON has them."""
    for text in ("\N{SNOWMAN}", "\x00\n\u2028", "\ud800"):
        assert sent(ImageRequest(model="m", prompt=text))["prompt"] == text


def circle() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    return nested


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        bytearray(b"bytes"),
        {1, 2},
        1j,
        {("a", "tuple"): 1},
        NAN,
        INF,
        {"deep": [NAN]},
        10**5000,
        circle(),
        deep(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    """Values that JSON has no way to write are refused by the name of their field, wherever in it they are."""
    message = {"role": "user", "content": "Hello!"}
    places: list[dict[str, Any]] = [
        {"metadata": {"secret": value}},
        {"extra_body": {"secret": value}},
        {"extra_body": {"temperature": value}},
        {"stop": [value]},
        {"messages": [message, {**message, "secret": value}]},
        {"messages": [{**message, "content": [{"secret": value}]}]},
        {"messages": [Message(role="user", content="", extra={"secret": value})]},
    ]
    for fields in places:
        with pytest.raises(InvalidRequestError, match="JSON") as raised:
            ChatRequest(**{**CHAT, **fields}).body()
        assert (raised.value.__cause__, raised.value.__context__) == (None, None)
        assert "secret" not in str(raised.value)
        assert {raised.value.parameter} == fields.keys()


@pytest.mark.parametrize("extra", ["x", 5, [1], len, "", [], 0, False, {5: 1}, {None: 1}, {("a",): 1}], ids=repr)
def test_an_extra_body_that_is_no_mapping_is_refused(extra: Any) -> None:
    """`extra_body` is a mapping of fields, by their names."""
    refused(ChatRequest, extra_body=extra)


def test_values_are_not_repeated() -> None:
    """Neither an error nor a repr shows a prompt, messages, or what else is a user's own."""
    secret = "the prompt that nobody else may read"
    unfit: list[tuple[Any, dict[str, Any]]] = [
        (ChatRequest, {"messages": [secret]}),
        (ChatRequest, {"temperature": secret}),
        (ChatRequest, {"metadata": {secret: NAN}}),
        (ChatRequest, {"extra_body": {secret: object()}}),
        (ImageRequest, {"prompt": secret * 50}),
        (SpeechRequest, {"input": secret * 200}),
    ]
    for kind, fields in unfit:
        assert secret not in refused(kind, **fields)
    shown: dict[str, Any] = {"content": secret}
    requests: list[Any] = [
        ChatRequest(
            model="m",
            messages=[{"role": "user", **shown}],
            metadata=shown,
            stop=[secret],
            tools=[shown],
            extra_body=shown,
        ),
        ImageRequest(model="m", prompt=secret),
        SpeechRequest(model="m", input=secret),
    ]
    assert [repr(request) for request in requests if secret in repr(request)] == []


# The service's side: whatever passes here passes there.

NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
CONTENT = {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=20)}
MESSAGE = st.fixed_dictionaries(CONTENT, optional={"name": st.text(max_size=5)}) | st.builds(
    Message, **CONTENT, name=st.none() | st.text(max_size=5)
)
FUNCTION = st.fixed_dictionaries(
    {"name": st.text(max_size=5)},
    optional={"description": st.text(max_size=5), "parameters": OBJECT, "strict": st.booleans()},
)


def bounded(low: float, high: float) -> st.SearchStrategy[Any]:
    """Numbers within bounds, both kinds, with the bounds themselves."""
    whole = st.integers(int(low), int(high))
    return whole | st.floats(low, high)


REQUESTS: dict[Any, st.SearchStrategy[dict[str, Any]]] = {
    ChatRequest: st.fixed_dictionaries(
        {"model": st.text(min_size=1, max_size=9), "messages": st.lists(MESSAGE, min_size=1, max_size=3)},
        optional={
            "reasoning_effort": st.text(max_size=5),
            "metadata": OBJECT,
            "frequency_penalty": bounded(-2, 2),
            "presence_penalty": bounded(-2, 2),
            "max_completion_tokens": st.integers(-1, 600),
            "n": st.integers(1, 2**53),
            "modalities": st.lists(st.text(max_size=5), max_size=2),
            "seed": st.integers(-(2**53), 2**53),
            "service_tier": st.text(max_size=5),
            "stop": st.lists(st.text(max_size=5), max_size=2),
            "stream": st.booleans(),
            "stream_options": OBJECT,
            "temperature": bounded(-100, 2),
            "top_p": bounded(-100, 1),
            "tools": st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTION}), max_size=2),
            "tool_choice": st.text(max_size=5) | OBJECT,
            "parallel_tool_calls": st.booleans(),
        },
    ),
    ImageRequest: st.fixed_dictionaries(
        {"model": st.text(min_size=1, max_size=9), "prompt": st.text(max_size=1000)},
        optional={
            "seed": st.integers(0, 2**53),
            "style": st.text(max_size=5),
            "guidance_scale": st.integers(1, 10),
            "num_inference_steps": st.integers(1, 50),
            "n": st.integers(1, 4),
            "response_format": st.text(max_size=5),
            "size": st.sampled_from(["768x768", "1x1", "1024x1024", "64x48"]),
        },
    ),
    SpeechRequest: st.fixed_dictionaries(
        {"model": st.just("Chatterbox"), "input": st.text(min_size=2, max_size=50)},
        optional={
            "voice": st.text(max_size=5),
            "stream": st.booleans(),
            "temperature": bounded(0, 1),
            "exaggeration": bounded(0, 1),
            "cfg_weight": bounded(0, 1),
        },
    ),
}
CALLS = {ChatRequest: "chat", ImageRequest: "images", SpeechRequest: "speech"}


@pytest.mark.parametrize("kind", REQUESTS)
def test_what_is_taken_here_is_taken_there(kind: Any) -> None:
    """Whatever request is built of documented values, the emulator's own checks find nothing wrong with it."""

    @settings(max_examples=60, deadline=None)
    @given(REQUESTS[kind])
    def hold(fields: dict[str, Any]) -> None:
        said = sent(kind(**fields))
        assert KINDS[CALLS[kind]].create.complaint(said) is None
        assert said.keys() == fields.keys()

    hold()


@pytest.mark.parametrize(
    ("kind", "name"),
    # Those are whole numbers, and at least one: a caller's mistake in any case, but no documented bound.
    [(kind, name) for kind, name in NUMBERS if name not in {"n", "max_completion_tokens"}],
)
def test_what_is_refused_here_is_refused_there(kind: Any, name: str) -> None:
    """A value just outside is no invention of ours: the emulator refuses it too, but for what isn't documented."""
    _, outside = NUMBERS[kind, name]
    for value in outside:
        assert KINDS[CALLS[kind]].create.complaint({**LEAST[kind], name: value})


@pytest.mark.looptime
async def test_extreme_requests_make_tasks(client: DistributeClient, emulator: Emulator) -> None:
    """Requests at the bounds are created for real; what only `extra_body` can say, the service judges."""
    await client.submit(**CHAT, frequency_penalty=-2, presence_penalty=2, max_completion_tokens=-1, n=2, temperature=2)
    await client.submit(**CHAT, max_completion_tokens=600, top_p=1.0, stop=["\ud800"], seed=2**53, metadata={})
    await client.images.submit(model="m", prompt="\N{SNOWMAN}" * 1000, guidance_scale=10, num_inference_steps=50)
    await client.images.submit(model="m", prompt="", guidance_scale=1, num_inference_steps=1, n=1, size="1x1")
    await client.speech.submit(**{**SPEECH, "input": "x" * 4096}, temperature=0, exaggeration=1, cfg_weight=1)
    await client.speech.submit(**{**SPEECH, "input": "xy"}, temperature=1.0, exaggeration=0, cfg_weight=0.0)
    assert [request.status for request in emulator.requests] == [200] * 6
    with pytest.raises(BadRequestError, match="guidance_scale"):
        await client.images.submit(**IMAGE, extra_body={"guidance_scale": 11})
    with pytest.raises(BadRequestError, match="additional properties"):
        await client.speech.submit(**SPEECH, extra_body={"speed": 2})


@pytest.mark.parametrize("size", [1_000_000, (1 << 20) + 1, 5_000_000])
async def test_a_large_request_is_sent_like_any(size: int) -> None:
    """A conversation of several megabytes goes out whole, without a warning of the library beneath."""
    created = bad.good({"id": ID})
    async with MisbehavingServer(created) as server, new_client(server.url) as client:
        messages = [{"role": "user", "content": "x" * size}]
        await client.submit(model="m", messages=messages)
        (request,) = server.requests
        assert json.loads(request.body) == {"model": "m", "messages": messages}
        assert request.header("content-length") == [str(len(request.body))]
        assert request.header("content-type") == ["application/json"]


async def test_the_content_length_is_right(client: DistributeClient, emulator: Emulator) -> None:
    """A body with text of any script is as long as its header says."""
    await client.images.submit(model="m", prompt="\N{SNOWMAN}\N{PILE OF POO}" * 100)
    (request,) = emulator.requests
    assert request.status == 200
    assert int(request.headers["content-length"]) > 1000
    assert aiohttp.hdrs.TRANSFER_ENCODING.lower() not in request.headers
