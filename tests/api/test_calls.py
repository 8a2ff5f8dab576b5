"""The calls: the ids and timeouts that they take, `fetch`, and what goes over the wire."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from typing import Any

import pytest

from distribute_async import (
    ConfigurationError,
    DistributeClient,
    InvalidTaskIdError,
    NotFoundError,
    Watch,
)
from distribute_async.emulator import Emulator
from tests.misbehaving import MisbehavingServer
from tests.waiting import ID, KEY, caught, new_client, says

# Ids.


@pytest.mark.parametrize(
    "bad_id",
    [
        *(ID + "\n", "\n" + ID, ID + " ", ID.replace("-", ""), "{" + ID + "}", "urn:uuid:" + ID, ID[:-1], ID + "0"),
        *(ID.replace("-4d2b", "-1d2b"), ID.replace("-9c0e", "-cc0e"), ID.replace("0b7d", "0g7d"), "", "x", "../create"),
        *(ID.replace("0b7d", "\N{ARABIC-INDIC DIGIT ZERO}b7d"), ID.encode(), uuid.UUID(int=0), None, 7, [ID]),
        uuid.UUID(ID.replace("-4d2b", "-1d2b")),
    ],
    ids=repr,
)
async def test_what_is_no_task_id_is_refused_at_the_call(bad_id: Any) -> None:
    """What the specification's pattern refuses is refused by `watch()` itself, and nothing is sent."""
    async with MisbehavingServer(*says("COMPLETED")) as server, new_client(server.url) as client:
        with pytest.raises(InvalidTaskIdError) as raised:
            client.watch(bad_id)
        assert isinstance(raised.value, ValueError)
        for call in (client.wait_for_result, client.fetch, client.chat.wait_for_result, client.chat.fetch):
            await caught(call(bad_id), InvalidTaskIdError)
        assert server.connections == 0


@pytest.mark.parametrize("good_id", [ID, ID.upper(), uuid.UUID(ID)], ids=repr)
async def test_a_task_id_may_be_a_uuid_or_any_case(good_id: str | uuid.UUID) -> None:
    """A version 4 UUID as text in either case or as `uuid.UUID` is asked for as it is written."""
    async with MisbehavingServer(*says("COMPLETED")) as server, new_client(server.url) as client:
        assert (await client.wait_for_result(good_id)).text == "the answer"
        assert client.watch(good_id).task_id == str(good_id)
        assert [request.task_id for request in server.requests] == [str(good_id)]


@pytest.mark.looptime
@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True, [], -float("inf")], ids=repr)
async def test_a_senseless_timeout_is_refused_at_the_call(timeout: Any) -> None:
    """A timeout that is no number of seconds is told by the call, before anything is sent."""
    async with MisbehavingServer(*says("COMPLETED")) as server, new_client(server.url) as client:
        with pytest.raises(ConfigurationError, match="timeout"):
            client.watch(ID, timeout=timeout)
        with pytest.raises(ConfigurationError, match="timeout"):
            new_client(server.url, timeout=timeout)
        await caught(client.fetch(ID, timeout=timeout), ConfigurationError)
        assert server.connections == 0


# Fetch, and what goes over the wire.


@pytest.mark.looptime
async def test_fetch_is_one_look(emulator: Emulator, client: DistributeClient) -> None:
    """`fetch` gives the newest answer whatever its status, ERROR too, for one request each time."""
    task_id = emulator.add_task([(0, "QUEUED"), (5, "ERROR")])
    assert (await client.fetch(task_id)).status == "QUEUED"
    await asyncio.sleep(5)
    assert (await client.fetch(task_id)).status == "ERROR"
    assert len(emulator.requests) == 2
    error = await caught(client.fetch(ID), NotFoundError)
    assert (error.task_id, error.attempts, len(emulator.requests)) == (ID, 1, 3)


async def test_a_request_is_what_the_specification_says() -> None:
    """A poll is a POST of the id alone, as JSON, with the bare key, and no two of anything."""
    async with MisbehavingServer(*says("COMPLETED")) as server, new_client(server.url) as client:
        await client.fetch(ID)
    (request,) = server.requests
    assert request.line == "POST /async/chat/result HTTP/1.1"
    assert request.body == f'{{"id": "{ID}"}}'.encode()
    assert request.header("authorization") == [KEY]
    assert request.header("content-type") == ["application/json"]
    assert request.header("accept") == ["application/json"]
    assert request.header("cookie") == []
    assert len({name for name, _ in request.fields}) == len(request.fields)


async def test_a_watch_is_awaitable_but_no_coroutine(client: DistributeClient) -> None:
    """A watch that is never used warns nobody, unlike a coroutine; both ways of waiting are as the types say."""
    watch = client.watch(ID)
    assert isinstance(watch, Watch)
    assert inspect.isawaitable(watch)
    assert aiter(watch) is watch
    assert not asyncio.iscoroutine(watch)
    assert inspect.iscoroutinefunction(client.wait_for_result)
    assert inspect.iscoroutinefunction(client.fetch)
    assert not inspect.iscoroutinefunction(client.watch)
