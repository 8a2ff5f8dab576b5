"""A wrong address must not look like a long wait: what happens until the client has had its first response."""

from __future__ import annotations

import asyncio

import pytest

from distribute_async import APIConnectionError, Retry
from tests import misbehaving as bad
from tests import seams
from tests.faults.cases import ID, QUEUED, Case, Stage, assert_is_of, cases, caught, new_client, now
from tests.misbehaving import MisbehavingServer
from tests.seams import Action
from tests.waiting import ids


@pytest.mark.looptime
@cases(Action.CONNECT)
async def test_a_wrong_address_is_told_soon(case: Case, stage: Stage) -> None:
    """Without any response so far, faults of connecting end a wait after `first_contact`, naming host and port."""
    async with stage(case, None, retry=Retry(first_contact=10.0)) as scene:
        began = now()
        error = await caught(scene.client.wait_for_result(ID))
        assert case.lasts + 10.0 - 0.001 <= now() - began <= case.lasts + 12.1
        address = seams.http_of(scene.client).address
    assert_is_of(case, error)
    assert error.attempts >= 3
    assert address in str(error)
    assert "check" in str(error)


@pytest.mark.looptime
async def test_so_many_attempts_are_made_at_least() -> None:
    """`Retry.attempts` attempts precede the end, however long that takes."""
    retry = Retry(first_contact=0.0, attempts=4)
    async with new_client(f"http://127.0.0.1:{bad.free_port()}", retry=retry) as client:
        error = await caught(client.wait_for_result(ID))
    assert isinstance(error, APIConnectionError)
    assert error.attempts == 4


@pytest.mark.looptime
@pytest.mark.parametrize("first", [QUEUED, bad.status(500), bad.status(404), bad.good(b"<html>")])
async def test_after_a_response_the_usual_outage_counts(first: bad.Behaviour) -> None:
    """A service that has answered once, with whatever, may be away for `max_outage`."""
    server = MisbehavingServer(first)
    async with server:
        client = new_client(server.url)
        waiting = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(0.1)
        assert len(server.requests) == 1
    async with client:
        began = now()
        assert isinstance(await caught(waiting), APIConnectionError)
        assert now() - began == pytest.approx(300, abs=6)


@pytest.mark.looptime
async def test_a_crowd_is_told_at_once() -> None:
    """Where many wait for a service that was never there, each ends `first_contact` after it began, or after the first
    fault, if that is later."""
    async with new_client(f"http://127.0.0.1:{bad.free_port()}") as client:
        began = now()
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(50)]
        await asyncio.sleep(5)
        late = asyncio.create_task(client.wait_for_result(ID))
        errors = await asyncio.gather(*waits, return_exceptions=True)
        assert now() - began == pytest.approx(10, abs=1)
        assert {getattr(error, "reason", None) for error in errors} == {"connect"}
        assert (await caught(late)).elapsed == pytest.approx(10, abs=0.1)


@pytest.mark.looptime
async def test_a_stream_is_told_at_once() -> None:
    """The tasks of a stream end like other waits."""
    async with new_client(f"http://127.0.0.1:{bad.free_port()}") as client:
        began = now()
        outcomes = [outcome async for outcome in client.as_completed(ids(20))]
        assert len(outcomes) == 20
        assert {getattr(outcome.error, "reason", None) for outcome in outcomes} == {"connect"}
        assert now() - began == pytest.approx(10, abs=1)
