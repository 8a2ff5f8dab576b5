"""Readers that come and go while a service fails: each wait has limits of its own, and leaving resets none."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    ChatResult,
    InternalServerError,
    NotFoundError,
    Retry,
    Watch,
)
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.waiting import ID, caught, new_client, now, says


async def nibble(watch: Watch[ChatResult], patience: float) -> None:
    """Read a watch to its end with a timeout around each step, as many do."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await anext(watch)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("behaviour", "kind", "seconds"),
    [
        (bad.status(500), InternalServerError, 30.0),
        (bad.status(404), NotFoundError, 3.0),
        (bad.good({}), APIResponseValidationError, 1.2),
    ],
)
async def test_a_reader_with_a_timeout_of_its_own_meets_each_limit(
    behaviour: bad.Behaviour, kind: type[Exception], seconds: float
) -> None:
    """Reading through `asyncio.timeout` or `wait_for` doesn't keep the outage, the grace or the count from ending."""
    retry = Retry(max_outage=30.0)
    async with MisbehavingServer(behaviour) as server, new_client(server.url, retry=retry) as client:
        began = now()
        with pytest.raises(kind):
            async with asyncio.timeout(200):
                await nibble(client.watch(ID), 0.3)
        assert now() - began == pytest.approx(seconds, abs=0.5)


@pytest.mark.looptime
async def test_backoff_does_not_begin_anew_with_each_join() -> None:
    """A reader that comes back every 0.3 s asks as seldom as one that stays."""
    counts = []
    for patience in (0.3, 1000.0):
        retry = Retry(max_outage=60.0)
        async with MisbehavingServer(bad.status(500)) as server, new_client(server.url, retry=retry) as client:
            with pytest.raises(InternalServerError):
                await nibble(client.watch(ID), patience)
            counts.append(len(server.requests))
    assert abs(counts[0] - counts[1]) <= 1


@pytest.mark.looptime
async def test_time_away_does_not_count() -> None:
    """While nobody waits no limit comes nearer: the rest of the time is left on return."""
    retry = Retry(max_outage=30.0)
    async with MisbehavingServer(bad.status(500)) as server, new_client(server.url, retry=retry) as client:
        watch = client.watch(ID, timeout=None)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 10)
            await asyncio.sleep(1000)
        began = now()
        await caught(watch, InternalServerError)
        assert now() - began == pytest.approx(10, abs=1)


@pytest.mark.looptime
async def test_who_joins_late_has_faults_of_its_own() -> None:
    """A wait that joins another's failing task ends after `max_outage` and three failures since it began."""
    retry = Retry(max_outage=30.0, max=4.0)
    async with MisbehavingServer(bad.status(500)) as server, new_client(server.url, retry=retry) as client:
        first = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(29.9)
        late = asyncio.create_task(client.wait_for_result(ID))
        error = await caught(first, InternalServerError)
        assert error.elapsed == pytest.approx(30, abs=0.1)
        assert not late.done()
        error = await caught(late, InternalServerError)
        assert error.elapsed == pytest.approx(30, abs=0.1)


@pytest.mark.looptime
async def test_who_joins_late_may_see_the_service_come_back() -> None:
    """The end of another's patience does not stop the polls of who joined."""
    script = [*[bad.status(500)] * 12, *says("COMPLETED")]
    retry = Retry(max_outage=20.0, max=4.0)
    async with MisbehavingServer(*script) as server, new_client(server.url, retry=retry) as client:
        first = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(19.0)
        late = asyncio.create_task(client.wait_for_result(ID))
        await caught(first, APIStatusError)
        assert (await late).text == "the answer"


@pytest.mark.looptime
async def test_who_joins_late_in_an_outage_has_all_of_it() -> None:
    """In an outage of the whole client, too, `max_outage` counts from the start of each wait, on one id as on two."""
    async with MisbehavingServer(*says("QUEUED")) as server:
        client = new_client(server.url, retry=Retry(max_outage=60.0))
        first = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(0.5)
    async with client:
        began = now()
        await asyncio.sleep(50)
        assert client.stats().outage_for is not None
        late = asyncio.create_task(client.wait_for_result(ID))
        await caught(first, APIConnectionError)
        assert now() - began == pytest.approx(60, abs=1)
        error = await caught(late, APIConnectionError)
        assert error.elapsed == pytest.approx(60, abs=1)
