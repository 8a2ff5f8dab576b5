"""`client.stats()`: a plain snapshot, true at any time, with or without an observer."""

from __future__ import annotations

import asyncio
import pickle

import attrs
import pytest

from distribute_async import Limits, Stats, WaitTimeoutError
from distribute_async.emulator import Emulator
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.telemetry.conftest import client_of
from tests.waiting import ID, OTHER_ID, caught, ids, new_client, says


@pytest.mark.looptime
async def test_a_client_that_did_nothing_has_empty_stats() -> None:
    """Before its first use and after its last one a client does nothing, and needs no event loop to say so."""
    async with MisbehavingServer(*says("QUEUED", "COMPLETED")) as server:
        client = new_client(server.url)
        assert client.stats() == Stats()
        await client.wait_for_result(ID)
        await client.close()
        assert client.stats() == Stats(polls=2, outcomes={"200": 2})


@pytest.mark.looptime
async def test_stats_tell_callers_from_tasks(emulator: Emulator) -> None:
    """Callers that are suspended, tasks that are followed and exchanges under way are counted apart."""
    one, other = (emulator.add_task([(0, "QUEUED"), (9, "COMPLETED")]) for _ in range(2))
    async with client_of(emulator) as client:
        loop = client.watch(one)
        await anext(loop)  # it holds its watch, and waits for nothing
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in (one, one, other)]
        await asyncio.sleep(0.5)
        stats = client.stats()
        assert (stats.waiting, stats.tasks, stats.exchanges) == (3, 2, 0)
        await asyncio.gather(*waits)
        stats = client.stats()
        assert (stats.waiting, stats.tasks, stats.exchanges) == (0, 0, 0)
        assert stats.polls == stats.outcomes["200"] == len(emulator.requests)


@pytest.mark.looptime
async def test_stats_count_what_is_under_way() -> None:
    """Exchanges that are not answered are running, as many as may be, and are cut with their waits."""
    async with (
        MisbehavingServer(bad.silence()) as server,
        new_client(server.url, limits=Limits(max_in_flight=3)) as client,
    ):
        waits = [
            asyncio.create_task(caught(client.wait_for_result(task, timeout=2), WaitTimeoutError)) for task in ids(5)
        ]
        await asyncio.sleep(1)
        assert client.stats() == Stats(waiting=5, tasks=5, exchanges=3)
        await asyncio.gather(*waits)
        assert client.stats().outcomes["cut"] >= 3
        assert client.stats() == Stats(outcomes=client.stats().outcomes)


@pytest.mark.looptime
async def test_stats_show_a_pause() -> None:
    """While the service wants to be left alone, stats say for how long."""
    script = [bad.status(429, Retry_After="20"), *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        waiting = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(5)
        assert client.stats().paused_for == pytest.approx(15.0, abs=0.05)
        await waiting
        assert client.stats() == Stats(polls=1, outcomes={"429": 1, "200": 1})


@pytest.mark.looptime
async def test_stats_show_an_outage() -> None:
    """While the service is down, stats say since when, and by which faults it was noticed."""
    script = [*[bad.close] * 3, *[bad.status(503)] * 4, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in (ID, OTHER_ID)]
        await asyncio.sleep(2)
        assert client.stats().outage_for == pytest.approx(asyncio.get_running_loop().time() - server.times[0], abs=0.05)
        assert client.stats().outcomes == {"disconnected": 3, "503": 3}
        await asyncio.gather(*waits)
        assert client.stats() == Stats(polls=2, outcomes={"disconnected": 3, "503": 4, "200": 2})


@pytest.mark.looptime
async def test_stats_are_a_snapshot() -> None:
    """A snapshot doesn't change when the client goes on, can't be changed, and pickles."""
    async with MisbehavingServer(*says("QUEUED", "COMPLETED")) as server, new_client(server.url) as client:
        await client.fetch(ID)
        before = client.stats()
        await client.fetch(ID)
        assert before == Stats(polls=1, outcomes={"200": 1}) == pickle.loads(pickle.dumps(before))
        assert client.stats().polls == 2
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            before.polls = 5  # type: ignore[misc]
