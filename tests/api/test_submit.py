"""Creating tasks: one request that is never sent a second time where the first may have arrived."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import logging
import pickle
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    DistributeClient,
    DistributeError,
    InternalServerError,
    InvalidRequestError,
    Limits,
    Message,
    NotFoundError,
    Pacing,
    PermissionDeniedError,
    RateLimitError,
    Retry,
    SubmitUncertainError,
    TaskFailedError,
    WaitTimeoutError,
    Watch,
)
from distribute_async.emulator import Emulator, fault
from tests import misbehaving as bad
from tests.integrations.pages import blocks
from tests.misbehaving import Behaviour, Greeting, MisbehavingServer
from tests.waiting import (
    ID,
    KEY,
    OTHER_ID,
    assert_is_ours,
    assert_nothing_runs,
    assert_silence,
    body,
    caught,
    listed,
    new_client,
    now,
    says,
    turns,
)

PROMPT = "the prompt that nobody else may read"
CHAT: dict[str, Any] = {"model": "Llama-3.1 8B", "messages": [{"role": "user", "content": PROMPT}]}
REQUESTS: dict[str, dict[str, Any]] = {
    "chat": CHAT,
    "images": {"model": "Flux.1 [dev]", "prompt": PROMPT},
    "speech": {"model": "Chatterbox", "input": PROMPT},
}
CREATED = bad.good({"id": ID})
CREATE = "/async/chat/create"


def creations(server: MisbehavingServer) -> list[Any]:
    """What the create requests that arrived as a whole have said."""
    return [json.loads(request.body) for request in server.requests if request.path.endswith("/create")]


async def uncertain(submitting: Awaitable[Any]) -> SubmitUncertainError:
    """The error in which a submission ends of which nobody knows what became of it."""
    error = await caught(submitting, SubmitUncertainError)
    assert "a task may have been created" in str(error)
    assert "may create, and bill, a second one" in str(error)
    assert PROMPT not in str(error) + repr(error) + repr(error.args) + repr(vars(error))
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), repr(twin), vars(twin).keys()) == (str(error), repr(error), vars(error).keys())
    return error


# The way it should go.


@pytest.mark.parametrize(("kind", "fields"), REQUESTS.items())
async def test_a_submission_is_one_request(kind: str, fields: dict[str, Any]) -> None:
    """Submitting sends the fields that were given, as JSON with the bare key, and nothing else, once."""
    async with MisbehavingServer(CREATED) as server, new_client(server.url) as client:
        await getattr(client, kind).submit(**fields)
    (request,) = server.requests
    assert request.line == f"POST /async/{kind}/create HTTP/1.1"
    assert json.loads(request.body) == fields
    assert request.header("authorization") == [KEY]
    assert request.header("content-type") == ["application/json"]
    assert len({name for name, _ in request.fields}) == len(request.fields)


@pytest.mark.looptime
@pytest.mark.parametrize(("kind", "fields"), REQUESTS.items())
async def test_what_a_submission_gives_is_a_watch(
    kind: str, fields: dict[str, Any], emulator: Emulator, client: DistributeClient
) -> None:
    """The handle has the task's id at once, and is a `Watch` of it: to iterate over, and to await."""
    task = await getattr(client, kind).submit(**fields)
    assert isinstance(task, Watch)
    assert task.id == task.task_id
    assert (task.status, task.latest, task.result, task.history) == (None, None, None, ())
    statuses = await listed(task)
    assert statuses[-1] == "COMPLETED"
    result = await task
    assert (result.id, result.model) == (task.id, fields["model"])
    assert [request.path for request in emulator.requests].count(f"/async/{kind}/create") == 1
    assert {request.task_id for request in emulator.requests[1:]} == {task.id}


@pytest.mark.looptime
async def test_submit_and_wait(emulator: Emulator, client: DistributeClient) -> None:
    """From prompt to answer, picture or sound in one call, for one create request each."""
    chat, images, speech = REQUESTS.values()
    assert (await client.submit_and_wait(**chat)).text
    assert (await client.chat.submit_and_wait(**chat)).text
    assert (await client.images.submit_and_wait(**images)).results[0].url
    assert (await client.speech.submit_and_wait(**speech)).results[0].url
    assert len([request for request in emulator.requests if request.path.endswith("/create")]) == 4


@pytest.mark.looptime
async def test_submit_and_wait_raises_what_waiting_raises() -> None:
    """A task that ends in ERROR is a `TaskFailedError` with its id, as from any wait."""
    script = [CREATED, *says("QUEUED", "ERROR")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        assert (await caught(client.submit_and_wait(**CHAT), TaskFailedError)).task_id == ID
        assert len(creations(server)) == 1


async def test_all_fields_pass() -> None:
    """Every documented field arrives as it was given, tuples as lists, and those of `extra_body` besides."""
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}, "strict": True}}
    fields: dict[str, Any] = {
        "model": "Llama-3.3 70B",
        "reasoning_effort": "high",
        "metadata": {"user": "ada", "nested": {"n": [1, None]}},
        "frequency_penalty": -2,
        "presence_penalty": 1.5,
        "max_completion_tokens": 600,
        "n": 2,
        "modalities": ["text"],
        "seed": 0,
        "service_tier": "default",
        "stop": ["\n", "\N{SNOWMAN}"],
        "stream": False,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "top_p": 1,
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "look_up"}},
        "parallel_tool_calls": False,
    }
    messages = ({"role": "system", "content": "Be brief."}, Message(role="user", content="Hello!", name="ada"))
    async with MisbehavingServer(CREATED) as server, new_client(server.url) as client:
        await client.submit(messages=messages, **fields, extra_body={"logit_bias": {"1": 2}, "top_p": 0.5})
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!", "name": "ada"}]
    assert creations(server) == [{**fields, "messages": said, "logit_bias": {"1": 2}, "top_p": 0.5}]


@pytest.mark.looptime
async def test_what_was_said_can_be_said_again(client: DistributeClient) -> None:
    """The message of an answer goes into the next task's conversation as it is."""
    first = await client.submit_and_wait(**CHAT)
    again = [*CHAT["messages"], first.choices[0].message, {"role": "user", "content": "Go on."}]
    assert (await client.submit_and_wait(model="m", messages=again)).text


@pytest.mark.parametrize(
    "more",
    [
        {"object": "task"},
        {"status": "SCHEDULED", "created": "2026-01-01T00:00:00Z", "model": None, "finished": False},
        {"status": 7, "created": {}, "model": [], "finished": "no", "extra": 1},
    ],
)
async def test_what_else_the_answer_says_costs_no_task(more: dict[str, Any]) -> None:
    """Of the answer to a submission nothing but the id counts, whatever a newer service adds."""
    async with MisbehavingServer(bad.good({**more, "id": ID})) as server, new_client(server.url) as client:
        assert (await client.submit(**CHAT)).task_id == ID


@pytest.mark.looptime
async def test_the_timeout_is_for_the_submission_and_again_for_the_watch() -> None:
    """Both have the whole timeout that the call was given, and it is not sent."""
    slow = bad.in_turn(bad.pause(8), CREATED)
    async with MisbehavingServer(slow, *says("QUEUED")) as server, new_client(server.url, timeout=99) as client:
        task = await client.submit(**CHAT, timeout=10)
        began = now()
        assert began >= 8
        assert (await caught(task, WaitTimeoutError)).task_id == ID
        assert now() - began == pytest.approx(10, abs=0.05)
        assert creations(server) == [CHAT]


@pytest.mark.parametrize("wrong", [{"timeout": -1}, {"timeout": "5"}, {"model": ""}, {"temperature": 3}, {"n": True}])
async def test_what_cannot_work_is_told_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    """A field or a timeout that is refused opens no connection."""
    kind = ConfigurationError if "timeout" in wrong else InvalidRequestError
    async with MisbehavingServer(CREATED) as server, new_client(server.url) as client:
        error = await caught(client.submit(**{**CHAT, **wrong}), kind)
        assert not isinstance(error, InvalidRequestError) or {error.parameter} == wrong.keys()
        assert server.connections == 0


async def test_a_field_that_there_is_not_is_told_before_anything_is_sent() -> None:
    """A misspelt field is refused with the name that was meant, a missing one by its own, and nothing is sent."""
    async with MisbehavingServer(CREATED) as server, new_client(server.url) as client:
        for submit in (client.submit, client.submit_and_wait):
            with pytest.raises(InvalidRequestError, match=r"'max_tokens' .*: did you mean max_completion_tokens\?"):
                await submit(**CHAT, max_tokens=5)  # type: ignore[call-arg]
            with pytest.raises(InvalidRequestError, match="model is missing"):
                await submit(messages=CHAT["messages"])  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            await client.images.submit("m", PROMPT)  # type: ignore[call-arg, arg-type]
        assert server.connections == 0


# Connections that are cut, at every byte.


def cut_request(after: int, end: Greeting) -> Greeting:
    """Takes so many bytes of what comes."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(after)
        await end(reader, writer)

    return greet


@pytest.mark.looptime
@pytest.mark.parametrize("end", [bad.close_at_once, bad.reset_at_once], ids=["closed", "reset"])
async def test_a_request_that_is_cut_at_any_byte_is_never_sent_again(end: Greeting) -> None:
    """Wherever in the request the connection ends, nobody connects a second time and the task is uncertain."""
    async with MisbehavingServer(CREATED) as server, new_client(server.url) as client:
        await client.submit(**CHAT)
    length = len(server.requests[0].raw)
    assert length > 300
    cuts = [cut_request(after, end) for after in range(1, length + 1)]
    async with MisbehavingServer(CREATED, on_connect=[*cuts, None]) as server:
        for after in range(1, length + 1):
            async with new_client(server.url) as client:
                error = await uncertain(client.submit(**CHAT))
                assert isinstance(error.last_error, APIConnectionError)
                assert error.attempts == 1
            await turns(3)
            assert server.connections == after
        assert server.requests == []


@pytest.mark.looptime
@pytest.mark.parametrize("end", [bad.close_at_once, bad.reset_at_once], ids=["closed", "reset"])
async def test_a_connection_that_ends_as_it_begins(end: Greeting) -> None:
    """Where nothing was taken, either it is told as uncertain after one connection, or nothing was ever sent."""
    async with MisbehavingServer(CREATED, on_connect=[end]) as server:
        for _ in range(20):
            before = server.connections
            async with new_client(server.url) as client:
                error = await caught(client.submit(**CHAT), DistributeError)
            await turns(3)
            assert isinstance(error, SubmitUncertainError | APIConnectionError)
            assert (server.connections - before == 1) or isinstance(error, APIConnectionError)
        assert server.requests == []


ANSWER = json.dumps({"id": ID}).encode()
WIRE = {
    "length": bad.answer({"id": ID}),
    "chunks": bad.head(200, {"Transfer-Encoding": "chunked"}) + b"20\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (ANSWER[:32], len(ANSWER) - 32, ANSWER[32:]),
    "until the end": bad.head(200, version="1.0") + ANSWER,
}  # fmt: skip


@pytest.mark.looptime
@pytest.mark.parametrize("cut", [bad.raw_and_close, bad.raw_and_reset], ids=["closed", "reset"])
@pytest.mark.parametrize("wire", WIRE.values(), ids=WIRE)
async def test_an_answer_that_is_cut_at_any_byte_is_never_asked_for_again(
    wire: bytes, cut: Callable[[bytes], Behaviour]
) -> None:
    """Wherever in the answer the connection ends, there is one request, and the task is uncertain."""
    async with MisbehavingServer(*[cut(wire[:length]) for length in range(len(wire))], bad.raw(wire)) as server:
        for length in range(len(wire)):
            async with new_client(server.url) as client:
                error = await uncertain(client.submit(**CHAT))
                assert isinstance(error.last_error, APIConnectionError | APIResponseValidationError)
            await turns(3)
            assert len(server.requests) == server.connections == length + 1


# What was never sent is tried again.


class NoSuchHost(AbstractResolver):
    """Finds no host."""

    asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.asked += 1
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    async def close(self) -> None:
        """Nothing to close."""


def waits_of(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("greeting", "reason", "lasts"),
    [
        pytest.param(bad.say(b"\x00\x01garbage" * 9), "tls", 0.0, id="garbage"),
        pytest.param(bad.close_at_once, "connect", 0.0, id="closed"),
        pytest.param(bad.silent, "connect_timeout", 1.0, id="silent"),
    ],
)
async def test_a_tls_handshake_that_fails_is_tried_again(greeting: Greeting, reason: str, lasts: float) -> None:
    """Before the handshake is done nothing was sent: `Retry.attempts` times, backed off, and then it surely failed."""
    times: list[float] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(now())
        await greeting(reader, writer)

    limits = Limits(connect_timeout=1.0)
    async with MisbehavingServer(on_connect=[greet]) as server:
        url = server.url.replace("http:", "https:")
        async with new_client(url, retry=Retry(attempts=4), limits=limits) as client:
            error = await caught(client.submit(**CHAT), APIConnectionError)
            assert (error.reason, error.attempts, error.task_id) == (reason, 4, None)
            assert waits_of(times) == pytest.approx([lasts + 0.5, lasts + 1.0, lasts + 2.0], rel=0.3)
            assert_nothing_runs(client)


@pytest.mark.looptime
async def test_a_refused_connection_is_tried_again() -> None:
    """Where nobody listens the task surely doesn't exist, and that is an `APIConnectionError`."""
    async with new_client(f"http://127.0.0.1:{bad.free_port()}") as client:
        error = await caught(client.submit(**CHAT), APIConnectionError)
        assert (error.reason, error.attempts) == ("connect", 3)
        assert error.elapsed == pytest.approx(0.5 + 1.0, rel=0.3)
        assert client.stats().outcomes == {"connect": 3}


@pytest.mark.looptime
async def test_an_unknown_host_is_tried_again() -> None:
    """Where the host's name isn't found the task surely doesn't exist."""
    resolver = NoSuchHost()
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        new_client("http://localhost:9", session=session) as client,
    ):
        error = await caught(client.submit(**CHAT), APIConnectionError)
        assert (error.reason, error.attempts, resolver.asked) == ("dns", 3, 3)


@pytest.mark.looptime
async def test_a_submission_outlives_a_service_that_starts_late() -> None:
    """Refused twice and then taken, a submission is one request."""
    server = MisbehavingServer(CREATED, port=bad.free_port())
    async with new_client(server.url) as client:
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(0.8)
        assert client.stats().outcomes == {"connect": 2}
        async with server:
            assert (await submitting).task_id == ID
            assert creations(server) == [CHAT]


@pytest.mark.looptime
async def test_a_certificate_that_does_not_verify_ends_at_once() -> None:
    """Nothing is sent to a stranger, and nothing is tried again."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with MisbehavingServer(CREATED, tls=context) as server, new_client(server.url) as client:
        error = await caught(client.submit(**CHAT), APIConnectionError)
        assert (error.reason, error.attempts, server.connections) == ("certificate", 1, 1)


@pytest.mark.looptime
@pytest.mark.parametrize(("code", "kind"), [(429, RateLimitError), (503, InternalServerError)])
async def test_what_is_turned_away_at_the_door_is_tried_again(code: int, kind: type[APIStatusError]) -> None:
    """429 and 503 are answered before anything is done: they are backed off, and in the end raised as they are."""
    busy = bad.status(code, {"message": "later"})
    async with MisbehavingServer(busy, busy, CREATED) as server, new_client(server.url) as client:
        assert (await client.submit(**CHAT)).task_id == ID
        assert creations(server) == [CHAT] * 3
        assert waits_of(server.times) == pytest.approx([0.5, 1.0], rel=0.3)
    async with MisbehavingServer(busy) as server, new_client(server.url) as client:
        error = await caught(client.submit(**CHAT), kind)
        assert (error.status_code, error.message, error.attempts) == (code, "later", 3)
        assert len(server.requests) == 3
        await assert_silence(server)


@pytest.mark.looptime
@pytest.mark.parametrize("code", [429, 503])
async def test_retry_after_is_obeyed(code: int) -> None:
    """A pause that the service asks of a submission holds the whole client back, and then it goes on."""
    busy = bad.status(code, {}, Retry_After="20")
    async with MisbehavingServer(busy, CREATED, *says("COMPLETED")) as server, new_client(server.url) as client:
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(1)
        waiting = asyncio.create_task(client.wait_for_result(OTHER_ID))
        assert (await submitting).task_id == ID
        await waiting
        assert [request.path for request in server.requests] == [CREATE, CREATE, "/async/chat/result"]
        assert [at - server.times[0] for at in server.times[1:]] == pytest.approx([20, 20.1375], abs=0.05)


@pytest.mark.looptime
@pytest.mark.parametrize(("asked", "timeout"), [("301", None), ("20", 10)])
async def test_a_pause_too_long_ends_a_submission_at_once(asked: str, timeout: float | None) -> None:
    """A pause past `Retry.max_retry_after` or past the own deadline is raised as what it is."""
    busy = bad.status(429, {}, Retry_After=asked)
    async with MisbehavingServer(busy) as server, new_client(server.url) as client:
        error = await caught(client.submit(**CHAT, timeout=timeout), RateLimitError)
        assert error.retry_after == float(asked)
        assert error.elapsed < 0.1
        assert len(server.requests) == 1


@pytest.mark.looptime
async def test_nothing_known_after_something_known() -> None:
    """A request that was turned away and a second one that got lost are uncertain; it isn't sent a third time."""
    async with MisbehavingServer(bad.status(503, {}), bad.close, CREATED) as server, new_client(server.url) as client:
        error = await uncertain(client.submit(**CHAT))
        assert error.attempts == len(server.requests) == 2
        await assert_silence(server)


# Answers that are no.

REFUSALS: dict[int, type[APIStatusError]] = {
    **dict.fromkeys((301, 302, 307, 308), APIStatusError),
    **dict.fromkeys((400, 422), BadRequestError),
    401: AuthenticationError,
    **dict.fromkeys((402, 403), PermissionDeniedError),
    404: NotFoundError,
    **dict.fromkeys((405, 408, 409, 413, 425), APIStatusError),
}


@pytest.mark.looptime
@pytest.mark.parametrize(("code", "kind"), REFUSALS.items())
async def test_a_refusal_is_raised_as_it_is(code: int, kind: type[APIStatusError]) -> None:
    """An answer that says no means that there is no task: it is raised at once, after one request."""
    no = bad.status(code, {"message": "no"}, Location="/elsewhere")
    async with MisbehavingServer(no) as server, new_client(server.url) as client:
        error = await caught(client.submit(**CHAT), kind)
        assert (error.status_code, error.message, error.attempts, error.task_id) == (code, "no", 1, None)
        assert error.elapsed < 0.05
        await assert_silence(server)
        assert len(server.requests) == 1


UNKNOWN: dict[str, tuple[Behaviour, type[DistributeError]]] = {
    **{str(code): (bad.status(code, {"message": "oh"}), InternalServerError) for code in (500, 501, 502, 504, 599)},
    **{f"code {code}": (bad.status(code, {"id": ID}), APIResponseValidationError) for code in (201, 202, 299, 999)},
    "303": (bad.status(303, b"", Location="/over/there"), APIStatusError),
    "silence": (bad.silence(), APITimeoutError),
    "half and silence": (bad.silence(WIRE["length"][:-2]), APITimeoutError),
    "drip": (bad.drip(WIRE["length"]), APITimeoutError),
    "HTML": (bad.raw(bad.answer(b"<html>hello</html>")), APIResponseValidationError),
    "empty": (bad.raw(bad.answer(b"")), APIResponseValidationError),
    "no object": (bad.good([ID]), APIResponseValidationError),
    "no id": (bad.good({"ID": ID}), APIResponseValidationError),
    "null": (bad.good({"id": None}), APIResponseValidationError),
    "a number": (bad.good({"id": 7}), APIResponseValidationError),
    "no UUID": (bad.good({"id": f"task-{PROMPT}"}), APIResponseValidationError),
    "version 1": (bad.good({"id": ID.replace("-4d2b", "-1d2b")}), APIResponseValidationError),
    "a newline": (bad.good({"id": ID + "\n"}), APIResponseValidationError),
    "too large": (bad.good({"id": ID, "x": "y" * (1 << 20)}), APIResponseValidationError),
    "no HTTP": (bad.raw_and_close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), APIConnectionError),
    "no gzip": (bad.raw(bad.answer({"id": ID}, headers={"Content-Encoding": "gzip"})), APIConnectionError),
}


@pytest.mark.looptime
@pytest.mark.parametrize(("behaviour", "kind"), UNKNOWN.values(), ids=UNKNOWN)
async def test_what_does_not_tell_is_uncertain(behaviour: Behaviour, kind: type[DistributeError]) -> None:
    """An answer that says neither yes nor no leaves it open whether there is a task: one request, and a typed error."""
    limits = Limits(exchange_timeout=5.0)
    async with MisbehavingServer(behaviour) as server, new_client(server.url, limits=limits) as client:
        error = await uncertain(client.submit(**CHAT))
        assert type(error.last_error) is kind
        assert (error.task_id, error.last_status, error.attempts) == (None, None, 1)
        await assert_silence(server)
        assert creations(server) == [CHAT]
        assert_nothing_runs(client)


# Connections that served before.


@pytest.mark.looptime
@pytest.mark.parametrize("stale", [bad.close, bad.reset], ids=["closed", "reset"])
async def test_a_kept_alive_connection_that_ends_is_no_reason_to_send_again(stale: Behaviour) -> None:
    """A poll would be repeated at once here; a create request may have been read before the connection ended."""
    async with MisbehavingServer(*says("QUEUED"), stale, CREATED) as server, new_client(server.url) as client:
        await client.fetch(OTHER_ID)
        await uncertain(client.submit(**CHAT))
        assert [request.connection for request in server.requests] == [1, 1]
        await assert_silence(server)


@pytest.mark.looptime
@pytest.mark.parametrize("idle", [0.0, 0.1, 0.3, 1.0])
async def test_a_connection_closed_while_idle_costs_nothing(idle: float) -> None:
    """Where the server has closed an idle connection, at most one create request arrives, on any connection."""
    script = [bad.idle_close(body("QUEUED"), 0.3), CREATED]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        await client.fetch(OTHER_ID)
        await asyncio.sleep(idle)
        try:
            assert (await client.submit(**CHAT)).task_id == ID
        except SubmitUncertainError:
            assert idle <= 0.3
        await assert_silence(server)
        assert len(creations(server)) <= 1


@pytest.mark.looptime
@pytest.mark.parametrize("delay", [0.0, 0.1], ids=["with the first", "later"])
async def test_an_answer_that_nobody_asked_for_is_not_the_tasks(delay: float) -> None:
    """A forged id on an idle connection is never taken for the task's, and the request is sent once."""
    script = [bad.forged(body("QUEUED"), {"id": OTHER_ID}, delay), CREATED]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        await client.fetch(OTHER_ID)
        await asyncio.sleep(0.5)
        assert (await client.submit(**CHAT)).task_id == ID
        assert creations(server) == [CHAT]


# Deadlines, closing, cancellation.


@pytest.mark.looptime
async def test_a_deadline_in_the_queue() -> None:
    """A submission whose time passes while it queues for a place was never sent, and says so."""
    script = [bad.silence()]
    async with MisbehavingServer(*script) as server, new_client(server.url, limits=Limits(max_in_flight=1)) as client:
        waiting = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(0.1)
        error = await caught(client.submit(**CHAT, timeout=5), WaitTimeoutError)
        assert isinstance(error, TimeoutError)
        assert (error.attempts, error.last_error, error.task_id) == (0, None, None)
        assert error.elapsed == pytest.approx(5, abs=0.05)
        assert "no task was created" in str(error)
        assert creations(server) == []
        waiting.cancel()


@pytest.mark.looptime
async def test_no_time_at_all() -> None:
    """With a timeout of 0 nothing is sent."""
    async with MisbehavingServer(CREATED) as server, new_client(server.url) as client:
        await caught(client.submit(**CHAT, timeout=0), WaitTimeoutError)
        await assert_silence(server)
        assert server.requests == []


@pytest.mark.looptime
async def test_a_deadline_under_way() -> None:
    """A submission whose time passes while the exchange is under way is uncertain, on time, and leaves nothing."""
    async with MisbehavingServer(bad.in_turn(bad.pause(9), CREATED)) as server, new_client(server.url) as client:
        began = now()
        error = await uncertain(client.submit(**CHAT, timeout=5))
        assert now() - began == pytest.approx(5, abs=0.05)
        assert error.last_error is None
        assert "the timeout passed" in str(error)
        assert_nothing_runs(client)
        await assert_silence(server)
        assert creations(server) == [CHAT]


@pytest.mark.looptime
async def test_nothing_is_sent_at_the_last_moment() -> None:
    """A submission that backs off past its deadline ends there, surely without a task: it isn't hurried."""
    async with MisbehavingServer(bad.status(503, {}), bad.silence()) as server, new_client(server.url) as client:
        error = await caught(client.submit(**CHAT, timeout=0.3), WaitTimeoutError)
        assert isinstance(error.last_error, InternalServerError)
        assert error.elapsed == pytest.approx(0.3, abs=0.05)
        assert len(server.requests) == 1


@pytest.mark.looptime
async def test_a_client_that_is_closed_under_way() -> None:
    """Closing the client leaves a request that is under way uncertain, and one that queues surely unsent."""
    async with MisbehavingServer(bad.silence()) as server:
        client = new_client(server.url, limits=Limits(max_in_flight=1))
        sent = asyncio.create_task(client.submit(**CHAT))
        queued = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(1)
        await client.close()
        assert isinstance((await uncertain(sent)).last_error, ClientClosedError)
        await caught(queued, ClientClosedError)
        await caught(client.submit(**CHAT), ClientClosedError)
        assert creations(server) == [CHAT]
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_a_deadline_while_connecting() -> None:
    """A submission whose time passes before there is a connection was never sent, and says so."""
    async with MisbehavingServer(on_connect=[bad.silent]) as server:
        async with new_client(server.url.replace("http:", "https:"), timeout=1) as client:
            assert (await caught(client.submit(**CHAT), WaitTimeoutError)).attempts == 0
            assert_nothing_runs(client)
        client = new_client(server.url.replace("http:", "https:"))
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(1)
        await client.close()
        await caught(submitting, ClientClosedError)


@pytest.mark.looptime
async def test_a_deadline_in_the_callers_pool() -> None:
    """Where the caller's session has no connection left until the deadline, nothing was sent, then or later."""
    async with (
        MisbehavingServer(bad.silence()) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
        new_client(server.url, session=session) as client,
    ):
        waiting = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(0.1)
        await caught(client.submit(**CHAT, timeout=5), WaitTimeoutError)
        waiting.cancel()
        await assert_silence(server)
        assert creations(server) == []


async def test_a_deadline_at_any_moment_tells_the_truth() -> None:
    """Whenever the time is over: where the request has arrived, nobody is told that it surely hasn't."""
    for count in range(60):
        async with MisbehavingServer(CREATED) as server, new_client(server.url) as client:
            (ending,) = await asyncio.gather(client.submit(**CHAT, timeout=count / 20_000), return_exceptions=True)
            await turns(20)
            assert isinstance(ending, SubmitUncertainError | WaitTimeoutError | Watch)
            assert len(server.requests) <= 1
            assert not server.requests or not isinstance(ending, WaitTimeoutError)


@pytest.mark.looptime
async def test_closing_at_any_moment_tells_the_truth() -> None:
    """Whenever the client is closed: where the request has arrived, nobody is told that it surely hasn't."""
    kinds = set()
    for count in range(40):
        async with MisbehavingServer(CREATED) as server:
            client = new_client(server.url)
            submitting = asyncio.create_task(client.submit(**CHAT))
            await turns(count)
            await client.close()
            (ending,) = await asyncio.gather(submitting, return_exceptions=True)
            await turns(20)
            kinds.add(type(ending))
            assert len(server.requests) <= 1
            assert not server.requests or isinstance(ending, SubmitUncertainError | Watch)
            assert not isinstance(ending, Watch) or ending.task_id == ID
    assert kinds == {ClientClosedError, SubmitUncertainError, Watch}


@pytest.mark.looptime
@pytest.mark.parametrize("after", [0.0, 0.5, 1.25])
async def test_a_cancelled_submission_leaves_nothing(after: float) -> None:
    """Cancelled before it is sent, under way, or backing off: nothing runs on, and nothing is sent later."""
    script = [bad.in_turn(bad.pause(1), bad.status(503, {})), CREATED]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(after)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        assert_nothing_runs(client)
        await assert_silence(server)
        assert len(server.requests) <= 1


# Its place among the client's other requests.


@pytest.mark.looptime
async def test_submissions_count_as_requests_in_flight() -> None:
    """No more exchanges are under way than `Limits.max_in_flight`, submissions and polls together."""
    under_way, most = 0, 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(1)
        under_way -= 1
        said = {"id": ID} if b"/create" in request else body("COMPLETED")
        writer.write(bad.answer(said))

    async with MisbehavingServer(slow) as server, new_client(server.url, limits=Limits(max_in_flight=3)) as client:
        waits = [client.submit(**CHAT) for _ in range(5)] + [client.fetch(ID) for _ in range(5)]
        await asyncio.gather(*waits)
        assert (most, len(server.requests)) == (3, 10)
        assert now() == pytest.approx(4, abs=0.2)


@pytest.mark.looptime
async def test_submissions_count_for_the_rate() -> None:
    """`Limits.max_requests_per_second` spaces submissions too."""
    limits = Limits(max_requests_per_second=2)
    async with MisbehavingServer(CREATED) as server, new_client(server.url, limits=limits) as client:
        await asyncio.gather(*(client.submit(**CHAT) for _ in range(4)))
        assert waits_of(server.times) == pytest.approx([0.5] * 3, abs=0.05)


@pytest.mark.looptime
async def test_a_submission_waits_for_the_end_of_a_pause() -> None:
    """During a pause that another request was asked for, a submission is not sent, and refused if it can't wait."""
    script = [bad.status(429, {}, Retry_After="30"), bad.good({**body("COMPLETED"), "id": ID})]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        waiting = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(1)
        error = await caught(client.submit(**CHAT, timeout=5), RateLimitError)
        assert error.retry_after == pytest.approx(29, abs=0.05)
        assert (error.attempts, error.elapsed) == (0, 0)
        assert (await client.submit(**CHAT)).task_id == ID
        await waiting
        assert [at - server.times[0] for at in server.times[1:]] == pytest.approx([30, 30.1375], abs=0.05)
        assert len(creations(server)) == 1


@pytest.mark.looptime
async def test_a_submission_waits_for_the_end_of_an_outage() -> None:
    """While the service counts as down a submission waits for its turn at the gate, and once it is back it is sent."""
    server = MisbehavingServer(bad.good({**body("COMPLETED"), "id": ID}), port=bad.free_port())
    async with new_client(server.url, retry=Retry(first_contact=300)) as client:
        waiting = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(10)
        assert client.stats().outage_for is not None
        assert (await caught(client.submit(**CHAT, timeout=0.01), APIConnectionError)).attempts == 0
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(1)
        async with server:
            assert (await submitting).task_id == ID
            await waiting
            assert creations(server) == [CHAT]


@pytest.mark.looptime
async def test_an_outage_is_probed_by_reads() -> None:
    """While somebody waits for a task, a submission isn't risked to learn whether the service is back."""
    began = now()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        is_down = now() - began < 60
        writer.write(bad.answer({}, 502) if is_down else bad.answer({**body("COMPLETED"), "id": ID}))

    async with MisbehavingServer(behave) as server, new_client(server.url) as client:
        waiting = asyncio.create_task(client.wait_for_result(OTHER_ID))
        await asyncio.sleep(12)
        assert client.stats().outage_for is not None
        assert (await client.submit(**CHAT)).task_id == ID
        assert now() - began >= 60
        await waiting
        assert creations(server) == [CHAT]


@pytest.mark.looptime
async def test_submissions_that_fail_show_an_outage() -> None:
    """Several submissions that can't connect close the gate, as several ids do."""
    async with new_client(f"http://127.0.0.1:{bad.free_port()}") as client:
        submitting = asyncio.gather(*(client.submit(**CHAT) for _ in range(6)), return_exceptions=True)
        await asyncio.sleep(0.1)
        outage = client.stats().outage_for
        assert [getattr(error, "reason", None) for error in await submitting] == ["connect"] * 6
        assert outage is not None


@pytest.mark.looptime
@pytest.mark.parametrize(("after", "is_found"), [(2.0, True), (60.0, False)])
async def test_a_task_just_created_may_not_be_visible_yet(after: float, is_found: bool) -> None:
    """A 404 for one's own new task is believed only after `Retry.not_found_grace`."""
    began = now()

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(bad.answer(body()) if now() - began > after else bad.answer({"message": "no task"}, 404))

    async with MisbehavingServer(CREATED, look) as server, new_client(server.url) as client:
        task = await client.submit(**CHAT)
        if is_found:
            assert (await task).text == "the answer"
        else:
            error = await caught(task, NotFoundError)
            assert error.elapsed == pytest.approx(3, abs=0.1)
        assert len(creations(server)) == 1


@pytest.mark.looptime
async def test_the_emulator_cuts_and_tells_the_truth(emulator: Emulator, client: DistributeClient) -> None:
    """What is uncertain may well exist: the emulator made the task whose answer it cut off, once."""
    emulator.faults.extend([fault.cut(40), fault.status(400)])
    await uncertain(client.submit(**CHAT))
    assert_is_ours(await caught(client.submit(**CHAT), BadRequestError))
    assert [request.path for request in emulator.requests] == [CREATE, CREATE]


# Nothing of the prompt or the key in what is raised.


@pytest.mark.looptime
@pytest.mark.parametrize(
    "behaviour",
    [
        bad.status(400, {"message": f"bad key {KEY}"}, x_request_id=KEY),
        bad.status(500, {"message": KEY}),
        bad.status(201, {"id": KEY}),
        bad.good({"id": KEY}),
        bad.good({KEY: KEY}),
        bad.status(503, {"message": KEY}),
        bad.raw_and_close(KEY.encode()),
        bad.silence(),
    ],
)
async def test_no_error_shows_the_key_or_the_prompt(behaviour: Behaviour) -> None:
    """Whatever ends a submission, its error holds neither, and pickles."""
    async with MisbehavingServer(behaviour) as server, new_client(server.url, timeout=60) as client:
        error = await caught(client.submit(**CHAT), DistributeError)
    shown = [str(error), repr(error), repr(error.args), repr(vars(error)), repr(pickle.dumps(error)), repr(client.chat)]
    assert [text for text in shown if KEY in text or PROMPT in text] == []
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.looptime
async def test_the_errors_of_fields_do_not_show_the_prompt() -> None:
    """A field that is refused is named, and its value isn't repeated."""
    async with new_client("http://127.0.0.1:9") as client:
        for fields in (
            {"model": "m", "messages": [PROMPT]},
            {"model": "m", "messages": PROMPT},
            {"model": PROMPT, "messages": []},
            {**CHAT, "metadata": {PROMPT: object()}},
            {**CHAT, "extra_body": {PROMPT: float("nan")}},
            {**CHAT, "temperature": PROMPT},
        ):
            error = await caught(client.submit(**fields), InvalidRequestError)
            assert PROMPT not in str(error) + repr(error) + repr(vars(error))


# The page.


async def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of the how-to page runs as it stands there, but for the field that the emulator refuses."""
    *running, correcting = blocks("submit-tasks.md", "python")
    kept: list[str] = []

    class Store:
        async def keep(self, task_id: str) -> None:
            kept.append(task_id)

    monkeypatch.chdir(tmp_path)
    # Downloads write in threads, which need the real clock: lives run fast instead.
    pacing = Pacing(initial=0.001, max=0.01, floor=0.0)
    async with (
        Emulator(seed=7, speed=10_000) as emulator,
        DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=pacing) as client,
    ):
        names: dict[str, Any] = {"client": client, "store": Store(), "log": logging.getLogger("a")}
        names |= {"messages": CHAT["messages"], "may_run_twice": True}
        for block in running:
            if "SubmitUncertainError" in block:
                emulator.faults.append(fault.cut(20))
            await run(block, names)
        assert kept == [emulator.requests[1].task_id]
        assert saved(tmp_path) == [*(f"lighthouse-{n}.png" for n in range(3)), "lighthouse.png", "morning.wav"]
        created = [request for request in emulator.requests if request.path.endswith("/create")]
        assert len(created) == 6  # two of the last one, of which the first was cut
        with pytest.raises(BadRequestError, match="additional properties"):
            await run(correcting, names)


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def run(block: str, names: dict[str, Any]) -> None:
    """Run code that may `await`."""
    running = eval(compile(block, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if running is not None:
        await running
