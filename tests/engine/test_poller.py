"""The poller's book-keeping: what no answer shows, and what would cost memory or wake-ups if it went wrong."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator

import pytest

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    Limits,
    Pacing,
    PermissionDeniedError,
    RateLimitError,
    Retry,
    WaitTimeoutError,
)
from distribute_async._engine.poller import Poller
from distribute_async._engine.subscription_states import State
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.seams import poller_of
from tests.waiting import EVERY_SECOND, ID, RARELY, assert_nothing_runs, body, caught, ids, new_client, now, says


def assert_books_are_right(poller: Poller) -> None:
    """Each entry of the heap counts for one subscription or is known to be dead, and all who wait are attended to."""
    schedule = poller._schedule
    dead = [entry for entry in schedule._heap if entry[2] is None]
    assert schedule._dead == len(dead)
    assert all(entry[2] is None or entry[2].entry is entry for entry in schedule._heap)
    assert all(schedule._heap[(n - 1) // 2] <= entry for n, entry in enumerate(schedule._heap) if n)
    for subscription in poller._active:
        assert subscription.waiters
        assert subscription.state in {State.SLEEPING, State.QUEUED, State.IN_FLIGHT}
        assert (subscription.state is State.IN_FLIGHT) == (subscription.exchange is not None)
        assert (subscription.state is State.QUEUED) == (subscription in poller._queue)
        assert subscription.entry is not None or subscription.state is not State.SLEEPING
        assert subscription.deadline <= min(waiter.deadline for waiter in subscription.waiters)
    assert set(poller._queue) <= poller._active.keys()
    if schedule._heap and poller._active:
        assert schedule._timer is not None
        assert schedule._timer.when() <= schedule._heap[0][0]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """When the poller's timer rang."""
    times: list[float] = []
    wake_up = Poller._wake_up

    def counted(poller: Poller) -> None:
        times.append(poller._loop.time())
        wake_up(poller)

    monkeypatch.setattr(Poller, "_wake_up", counted)
    return iter([times])


@pytest.mark.looptime
async def test_the_timer_rings_for_each_poll_and_no_more(looks: Iterator[list[float]]) -> None:
    """One wait of ten polls wakes the poller once for each poll after the first, however far its deadline is."""
    (times,) = looks
    async with MisbehavingServer(*says(*["QUEUED"] * 9, "COMPLETED")) as server, new_client(server.url) as client:
        await client.wait_for_result(ID, timeout=500)
        assert server.times == [pytest.approx(n, abs=0.01) for n in range(10)]
    assert len(times) == 9


@pytest.mark.looptime
async def test_many_ids_share_one_timer(looks: Iterator[list[float]]) -> None:
    """A hundred ids that are due at the same times ring the timer as often as one."""
    (times,) = looks
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id, timeout=4.5)) for task_id in ids(100)]
        await asyncio.wait(waits)
        assert all(isinstance(wait.exception(), WaitTimeoutError) for wait in waits)
    assert len({round(time, 2) for time in times}) <= 10
    assert len(times) <= 40


@pytest.mark.looptime
async def test_waits_that_are_over_leave_no_entries() -> None:
    """Thousands of short waits beside a long one leave the heap of times as small as it was."""
    async with (
        MisbehavingServer(*says("QUEUED")) as server,
        new_client(server.url, pacing=RARELY) as client,
    ):
        long = asyncio.create_task(client.wait_for_result(ID, timeout=1_000))
        watches = [client.watch(task_id, timeout=900) for task_id in ids(50)]
        await asyncio.gather(*(anext(watch) for watch in watches))
        poller = poller_of(client)
        largest = 0
        for _ in range(40):
            waits = [asyncio.ensure_future(watch) for watch in watches]
            await asyncio.sleep(0.001)
            assert_books_are_right(poller)
            largest = max(largest, len(poller._schedule._heap))
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)
            assert_books_are_right(poller)
        assert largest <= 51 + 64 + 51 + 50
        long.cancel()
        await asyncio.wait([long])
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_what_is_left_after_tidying_comes_in_its_order() -> None:
    """After most of hundreds of waits have left, the others are still attended to at their own deadlines."""
    chance = random.Random(1)
    async with (
        MisbehavingServer(*says("QUEUED")) as server,
        new_client(server.url, pacing=RARELY) as client,
    ):
        timeouts = {task_id: chance.uniform(10.0, 90.0) for task_id in ids(400)}
        waits = {
            task_id: asyncio.create_task(client.wait_for_result(task_id, timeout=seconds))
            for task_id, seconds in timeouts.items()
        }
        await asyncio.sleep(1)
        for task_id in chance.sample(list(waits), 300):
            waits.pop(task_id).cancel()
            await asyncio.sleep(0.001)
            assert_books_are_right(poller_of(client))
        errors = await asyncio.gather(*waits.values(), return_exceptions=True)
        late = [error.elapsed - timeouts[str(error.task_id)] for error in errors if isinstance(error, WaitTimeoutError)]
        assert len(late) == 100
        assert max(late) < 0.05


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(6))
async def test_the_books_are_right_at_any_time(seed: int) -> None:
    """While waits come, go, time out and fail at random, every wait is attended to and every entry accounted for."""
    chance = random.Random(seed)
    script = [
        *says("QUEUED", "PROCESSING", "QUEUED"),
        bad.status(500),
        bad.close,
        bad.in_turn(bad.pause(0.4), *says("QUEUED")),
        *says("COMPLETED"),
        bad.status(429, Retry_After="2"),
        bad.good({}),
        bad.status(503),
        bad.status(502),
        *says("QUEUED"),
    ] * 40
    async with (
        MisbehavingServer(*script) as server,
        new_client(server.url, pacing=Pacing(jitter=lambda span: span / 2)) as client,
    ):
        running: list[asyncio.Future[object]] = []
        for _ in range(120):
            if not running or chance.random() < 0.6:
                watch = client.watch(chance.choice(ids(8)), timeout=chance.choice([0.05, 0.7, 3.0, 30.0, None]))
                running.append(asyncio.ensure_future(watch))
            else:
                chance.choice(running).cancel()
            await asyncio.sleep(chance.choice([0.001, 0.01, 0.2, 0.9]))
            assert_books_are_right(poller_of(client))
            running = [wait for wait in running if not wait.done()]
        for wait in running:
            wait.cancel()
        if running:
            await asyncio.wait(running)
        assert_books_are_right(poller_of(client))
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_the_usual_exchange_is_learned() -> None:
    """The first good answer sets what an exchange usually takes, later ones move it by a fifth; faults don't count."""
    pauses = [0.5, 1.0, 0.5]
    script = [bad.in_turn(bad.pause(pause), *says("QUEUED")) for pause in pauses]
    script.insert(2, bad.in_turn(bad.pause(9.0), bad.status(500)))
    async with MisbehavingServer(*script) as server, new_client(server.url, pacing=RARELY) as client:
        learned = []
        for task_id in ids(3):
            await client.fetch(task_id)
            learned.append(poller_of(client)._health.usual_exchange)
    assert learned == [pytest.approx(0.5), pytest.approx(0.6), pytest.approx(0.58)]


@pytest.mark.looptime
async def test_a_last_look_is_not_made_within_the_interval() -> None:
    """A deadline just after a poll brings no other poll: what it would show is known."""
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, pacing=RARELY) as client:
        short, long = client.watch(ID, timeout=0.05), client.watch(ID, timeout=200.0)
        await caught(short, WaitTimeoutError)
        await caught(long, WaitTimeoutError)
        assert server.times == [pytest.approx(t, abs=0.01) for t in (0.0, 100.0, 200.0)]


@pytest.mark.looptime
async def test_a_pause_is_told_once_and_to_the_tenth(caplog: pytest.LogCaptureFixture) -> None:
    """A pause that the service asks for is logged with its length, and nothing secret is."""
    caplog.set_level(logging.INFO, "distribute_async")
    limited = bad.status(429, Retry_After="7.25")
    async with MisbehavingServer(limited, *says("COMPLETED")) as server, new_client(server.url) as client:
        await client.wait_for_result(ID)
        assert server.times[1] == pytest.approx(7.25, abs=0.01)
    assert [record.getMessage() for record in caplog.records] == ["the service asks for a pause of 7.2 s"]


@pytest.mark.looptime
async def test_a_pause_refuses_exactly_those_with_less_time() -> None:
    """Whoever has time until the pause is over waits for it; whoever has less is refused at once."""
    limited = bad.status(429, Retry_After="20")
    async with MisbehavingServer(limited, *says("COMPLETED")) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(ID, timeout=timeout)) for timeout in (19.9, 20.5)]
        await caught(waits[0], RateLimitError)
        assert now() < 0.1
        await waits[1]
        assert server.times[1] == pytest.approx(20.0, abs=0.01)


@pytest.mark.looptime
async def test_a_pause_past_the_longest_is_kept_by_the_others() -> None:
    """A Retry-After past `max_retry_after` ends the wait that got it, and holds the others back for the longest."""
    limited = bad.status(429, Retry_After="1000")
    async with (
        MisbehavingServer(limited, *says("COMPLETED")) as server,
        new_client(server.url, retry=Retry(max_retry_after=30.0)) as client,
    ):
        await caught(client.wait_for_result(ID), RateLimitError)
        await client.wait_for_result(ids(1)[0])
        assert server.times[1] == pytest.approx(30.0, abs=0.1)


@pytest.mark.looptime
async def test_outages_that_last_too_long_end_in_the_newest_fault_of_the_service() -> None:
    """Waits that queue for the probe end after `max_outage` with the fault that the service showed last."""
    async with (
        MisbehavingServer(*[bad.status(502)] * 5, bad.status(504)) as server,
        new_client(server.url, pacing=EVERY_SECOND, retry=Retry(max_outage=20.0)) as client,
    ):
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(6)]
        await asyncio.wait(waits)
        codes = {getattr(wait.exception(), "status_code", None) for wait in waits}
        assert now() == pytest.approx(20.0, abs=0.6)
    assert codes == {504}


@pytest.mark.looptime
async def test_an_id_that_failed_is_asked_anew_by_those_who_come_later() -> None:
    """A walk that ended in an error is no news to a later watch: it begins its own."""
    async with (
        MisbehavingServer(bad.status(403), *says("COMPLETED")) as server,
        new_client(server.url) as client,
    ):
        failed = client.watch(ID)
        with pytest.raises(Exception, match="403"):
            await failed
        assert (await client.watch(ID)).text == "the answer"
        with pytest.raises(Exception, match="403"):
            await failed


@pytest.mark.looptime
async def test_an_equal_body_with_another_status_code_is_another_answer() -> None:
    """Only a 200 with the bytes of the last 200 is the same answer again: a 403 that echoes them ends the wait."""
    queued = body("QUEUED")
    script = [bad.good(queued), bad.status(500, queued), bad.good(queued), bad.status(403, queued)]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        assert await anext(watch) == "QUEUED"
        error = await caught(watch, PermissionDeniedError)
        assert error.attempts == 4
        assert watch.status == "QUEUED"


@pytest.mark.looptime
async def test_an_equal_body_that_means_nothing_stays_a_fault() -> None:
    """A broken answer is broken each time, however often the same bytes come after a good one."""
    script = [*says("QUEUED"), *[bad.good({"status": 7})] * 3, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        error = await caught(client.wait_for_result(ID), APIResponseValidationError)
        assert (error.attempts, error.last_status) == (4, "QUEUED")


@pytest.mark.looptime
async def test_those_who_wait_for_their_turn_get_it_in_order() -> None:
    """Ids whose first polls queue are served first come, first served."""
    async with (
        MisbehavingServer(bad.status(429, Retry_After="5"), *says("COMPLETED")) as server,
        # One at a time: requests on several connections may overtake each other.
        new_client(server.url, limits=Limits(max_in_flight=1)) as client,
    ):
        first = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(0.1)
        others = ids(5)
        waits = [first, *(asyncio.create_task(client.wait_for_result(task_id)) for task_id in others)]
        await asyncio.gather(*waits)
        assert [request.task_id for request in server.requests if request.task_id != ID] == others


@pytest.mark.looptime
async def test_a_refused_connection_says_so_before_anything_was_heard() -> None:
    """Where nothing ever answered, the wait ends with what it met itself."""
    async with new_client(f"http://127.0.0.1:{bad.free_port()}", retry=Retry(max_outage=10.0)) as client:
        error = await caught(client.wait_for_result(ID), APIConnectionError)
        assert error.reason == "connect"
        assert now() == pytest.approx(10.0, abs=0.6)
