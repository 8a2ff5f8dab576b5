"""What the service asks for in `Retry-After` holds back all requests of the client."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import time

import pytest

from distribute_async import InternalServerError, RateLimitError
from tests import misbehaving as bad
from tests.faults.cases import GOOD, ID, OTHER_ID, caught, new_client, now
from tests.misbehaving import MisbehavingServer


@pytest.mark.looptime
@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("seconds", ["7", "7.5", "007"])
async def test_retry_after_holds_back_all_requests(code: int, seconds: str) -> None:
    """For the seconds of a Retry-After no request leaves the client, whatever its task."""
    async with (
        MisbehavingServer(bad.status(code, Retry_After=seconds), GOOD) as server,
        new_client(server.url) as client,
    ):
        first = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(0.1)
        results = await asyncio.gather(first, client.wait_for_result(OTHER_ID), client.fetch(OTHER_ID))
        assert [result.text for result in results] == ["the answer"] * 3
        assert server.times[1] - server.times[0] >= float(seconds)
        assert server.times[1] - server.times[0] <= float(seconds) + 0.1
    assert {request.task_id for request in server.requests[1:]} == {ID, OTHER_ID}


@pytest.mark.looptime
async def test_retry_after_as_a_date_counts_from_the_answers_date() -> None:
    """A date in Retry-After is read against the answer's own Date, so that a wrong clock here does no harm."""
    sent = dt.datetime(1999, 12, 31, 23, 59, 50, tzinfo=dt.UTC)
    dates = [email.utils.format_datetime(sent + dt.timedelta(seconds=s), usegmt=True) for s in (0, 20)]
    limited = bad.status(429, Date=dates[0], Retry_After=dates[1])
    async with MisbehavingServer(limited, GOOD) as server, new_client(server.url) as client:
        assert (await client.wait_for_result(ID)).text == "the answer"
        assert server.times[1] - server.times[0] == pytest.approx(20.0, abs=0.1)


@pytest.mark.looptime
async def test_retry_after_as_a_date_counts_from_the_clock_where_there_is_no_date() -> None:
    """Without a Date in the answer, this machine's clock serves."""
    until = email.utils.formatdate(time.time() + 100, usegmt=True)
    async with (
        MisbehavingServer(bad.status(503, Retry_After=until), GOOD) as server,
        new_client(server.url) as client,
    ):
        assert (await client.wait_for_result(ID)).text == "the answer"
        assert 60 < server.times[1] - server.times[0] < 101


@pytest.mark.looptime
@pytest.mark.parametrize(
    "value",
    [
        *("-1", "nan", "NaN", "inf", "-inf", "1e999", "1e2", "soon", "", " ", "0x10", "1_000", "5,5", "+5"),
        *("\xb2", "Wed, 99 Foo 2099 25:61:61 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 99999 23:59:59 GMT"),
    ],
)
async def test_a_senseless_retry_after_is_ignored(value: str) -> None:
    """Garbage, negative and infinite values, and dates gone by, hold nobody back: the usual backoff is all."""
    async with (
        MisbehavingServer(bad.status(429, Retry_After=value), GOOD) as server,
        new_client(server.url) as client,
    ):
        assert (await client.wait_for_result(ID)).text == "the answer"
        assert server.times[1] - server.times[0] == pytest.approx(0.375, abs=0.01)


@pytest.mark.looptime
async def test_retry_after_on_other_codes_holds_nobody_back() -> None:
    """Only 429 and 503 may ask for a pause."""
    async with (
        MisbehavingServer(bad.status(500, Retry_After="100"), GOOD) as server,
        new_client(server.url) as client,
    ):
        assert (await client.wait_for_result(ID)).text == "the answer"
        assert server.times[1] - server.times[0] < 1.0


@pytest.mark.looptime
@pytest.mark.parametrize("code", [429, 503])
async def test_a_retry_after_past_the_longest_ends_the_wait(code: int) -> None:
    """A pause longer than `max_retry_after` ends the wait that received it at once, with that error."""
    async with (
        MisbehavingServer(bad.status(code, {"message": "slow down"}, Retry_After="301"), GOOD) as server,
        new_client(server.url) as client,
    ):
        began = now()
        error = await caught(client.wait_for_result(ID))
        assert now() - began < 0.1
        assert len(server.requests) == 1
    assert isinstance(error, RateLimitError if code == 429 else InternalServerError)
    assert error.retry_after == 301.0
    assert error.message == "slow down"


@pytest.mark.looptime
async def test_a_retry_after_past_the_deadline_ends_that_wait_only() -> None:
    """A pause past a wait's own deadline ends that wait at once; one with more time goes on and gets its result."""
    async with (
        MisbehavingServer(bad.status(429, Retry_After="20"), GOOD) as server,
        new_client(server.url) as client,
    ):
        began = now()
        patient = asyncio.create_task(client.wait_for_result(ID, timeout=60))
        error = await caught(client.wait_for_result(ID, timeout=10))
        assert now() - began < 0.1
        assert isinstance(error, RateLimitError)
        assert (await patient).text == "the answer"
        assert server.times[1] - server.times[0] == pytest.approx(20.0, abs=0.1)
