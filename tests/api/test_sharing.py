"""Many readers of one task: they share its polls and what these show, and nothing else."""

from __future__ import annotations

import asyncio
import contextvars
import random
from itertools import groupby, pairwise

import aiohttp
import pytest

from distribute_async import (
    AuthenticationError,
    ChatResult,
    DistributeClient,
    NotFoundError,
    TaskFailedError,
    TaskStatus,
    WaitTimeoutError,
)
from distribute_async.emulator import Emulator, fault
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.waiting import (
    ID,
    RARELY,
    assert_nothing_runs,
    body,
    caught,
    connections_at,
    ids,
    listed,
    new_client,
    now,
    says,
    turns,
)

PATH = ["CREATED", "QUEUED", "POSTPONED", "QUEUED", "PROCESSING", "COMPLETED"]
LIFE = [(7.0 * n, status) for n, status in enumerate(PATH)]


@pytest.mark.looptime
async def test_a_hundred_watches_cost_the_requests_of_one(emulator: Emulator, client: DistributeClient) -> None:
    """A hundred watches on one id see the same transitions, for exactly the requests that one makes."""
    alone = await listed(client.watch(emulator.add_task(LIFE)))
    requests_of_one = len(emulator.requests)
    task_id = emulator.add_task(LIFE)
    watches = [client.watch(task_id) for _ in range(100)]
    told = await asyncio.gather(*(listed(watch) for watch in watches))
    assert told == [alone] * 100 == [PATH] * 100
    assert len(emulator.requests) == 2 * requests_of_one
    assert len({watch.history for watch in watches}) == 1


@pytest.mark.looptime
async def test_ways_of_waiting_share_too(emulator: Emulator, client: DistributeClient) -> None:
    """Iterating, awaiting and `wait_for_result`, in whatever mixture, are one poll sequence."""
    task_id = emulator.add_task(LIFE)
    statuses, awaited, result = await asyncio.gather(
        listed(client.watch(task_id)), client.watch(task_id), client.wait_for_result(task_id)
    )
    assert statuses == PATH
    assert awaited is result
    assert all(later - earlier > 0.2 for earlier, later in pairwise(request.time for request in emulator.requests))


@pytest.mark.looptime
async def test_different_tasks_share_nothing_but_connections(emulator: Emulator, client: DistributeClient) -> None:
    """Twenty tasks with different lives are told apart, whatever is polled when."""
    chance = random.Random(4)
    lives = [
        [(20 * n + 5 * chance.random(), chance.choice(PATH[:-1])) for n in range(5)] + [(100, "COMPLETED")]
        for _ in range(20)
    ]
    tasks = [emulator.add_task(life) for life in lives]
    told = await asyncio.gather(*(listed(client.watch(task_id)) for task_id in tasks))
    assert told == [[status for status, _ in groupby(status for _, status in life)] for life in lives]


# Joining.


@pytest.mark.looptime
async def test_a_late_watch_begins_with_the_newest_status(emulator: Emulator, client: DistributeClient) -> None:
    """A watch that joins others gets the newest known status at once, without a request, and nothing older."""
    task_id = emulator.add_task([(0, "CREATED"), (3, "QUEUED"), (100, "COMPLETED")])
    first = asyncio.create_task(listed(client.watch(task_id)))
    await asyncio.sleep(50)
    asked, began = len(emulator.requests), now()
    late = client.watch(task_id)
    assert await anext(late) == "QUEUED"
    assert (now(), len(emulator.requests)) == (began, asked)
    assert [change.status for change in late.history] == ["QUEUED"]
    assert await listed(late) == ["COMPLETED"]
    assert await first == ["CREATED", "QUEUED", "COMPLETED"]
    assert [change.status for change in late.history] == ["QUEUED", "COMPLETED"]


@pytest.mark.looptime
async def test_a_watch_that_joins_an_ended_one_asks_nothing(emulator: Emulator, client: DistributeClient) -> None:
    """While somebody knows how a task ended, nobody asks again: a later watch has the ending at once, ERROR too."""
    task_id = emulator.add_task([(0, "CREATED"), (3, "ERROR")])
    ended = client.watch(task_id)
    assert await listed(ended) == ["CREATED", "ERROR"]
    asked = len(emulator.requests)
    late = client.watch(task_id)
    assert await listed(late) == ["ERROR"]
    assert (await caught(late, TaskFailedError)).result is ended.result
    assert len(emulator.requests) == asked


@pytest.mark.looptime
async def test_what_nobody_knows_any_more_is_asked_anew(emulator: Emulator, client: DistributeClient) -> None:
    """With the last watch what it knew is gone: the client's memory doesn't grow with the tasks it has seen."""
    task_id = emulator.add_task([(0, "COMPLETED")])
    await client.wait_for_result(task_id)
    await client.wait_for_result(task_id)
    assert len(emulator.requests) == 2


@pytest.mark.looptime
async def test_an_error_is_not_shared_with_those_who_come_later(emulator: Emulator, client: DistributeClient) -> None:
    """A watch that begins after another one ended in an error asks anew, though the other is still held."""
    task_id = emulator.add_task([(0, "COMPLETED")], faults=[fault.status(401)])
    refused = client.watch(task_id)
    await caught(refused, AuthenticationError)
    assert (await client.watch(task_id)).text
    await caught(refused, AuthenticationError)


@pytest.mark.looptime
async def test_fetch_always_asks(emulator: Emulator, client: DistributeClient) -> None:
    """A fetch makes its own request beside any number of watches, and its answer is newer than theirs."""
    task_id = emulator.add_task([(0, "CREATED"), (0.2, "QUEUED"), (9, "COMPLETED")])
    watch = client.watch(task_id)
    assert await anext(watch) == "CREATED"
    await asyncio.sleep(0.2)
    fetched = await asyncio.gather(client.fetch(task_id), client.fetch(task_id))
    assert [result.status for result in fetched] == ["QUEUED", "QUEUED"]
    assert len(emulator.requests) == 3
    assert watch.status == "CREATED"


# Leaving.


@pytest.mark.looptime
@pytest.mark.parametrize("times_out", [False, True])
async def test_one_that_leaves_disturbs_none(times_out: bool) -> None:
    """Where the first to come leaves while its request is under way, the others get that request's answer."""
    script = [bad.in_turn(bad.pause(2.0), *says("QUEUED")), *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        first = asyncio.create_task(client.wait_for_result(ID, timeout=1.0 if times_out else None))
        await turns(1)
        others = [asyncio.create_task(listed(client.watch(ID))) for _ in range(99)]
        await asyncio.sleep(0.5)
        assert len(server.requests) == 1
        if times_out:
            await caught(first, WaitTimeoutError)
            assert now() == pytest.approx(1.0, abs=0.001)
        else:
            first.cancel()
            await asyncio.wait([first])
            assert now() == 0.5
        assert not any(other.done() for other in others)
        assert await asyncio.gather(*others) == [["QUEUED", "COMPLETED"]] * 99
        assert len(server.requests) == 2
        assert server.connections == 1


@pytest.mark.looptime
async def test_all_but_one_may_leave(emulator: Emulator, client: DistributeClient) -> None:
    """Ninety-nine of a hundred waits are cancelled one after the other, at any time; the last one gets its result."""
    task_id = emulator.add_task(LIFE, faults=[fault.delay(1.0)] * 20)
    waits = [asyncio.create_task(client.wait_for_result(task_id)) for _ in range(100)]
    chance = random.Random(1)
    survivor = chance.choice(waits)
    for wait in chance.sample(waits, 100):
        await asyncio.sleep(0.3)
        if wait is not survivor:
            wait.cancel()
    assert (await survivor).text
    ended = await asyncio.gather(*waits, return_exceptions=True)
    assert sum(isinstance(end, asyncio.CancelledError) for end in ended) == 99
    assert set(map(type, ended)) == {asyncio.CancelledError, ChatResult}


@pytest.mark.looptime
async def test_the_exchange_is_cut_when_the_last_one_leaves() -> None:
    """A request under way belongs to the id: it goes on while anybody waits, and is cut with the last."""
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(ID)) for _ in range(3)]
        await asyncio.sleep(1)
        for wait in waits:
            assert len(server.requests) == 1
            wait.cancel()
            await asyncio.sleep(1)
        assert_nothing_runs(client)
        assert connections_at(server) == 0
        assert [request.at for request in server.requests] == [0.0]


@pytest.mark.looptime
async def test_one_may_join_while_the_last_one_leaves() -> None:
    """Who comes while the last wait's exchange is being cut gets a request of its own, and its result."""
    script = [bad.silence(), *says("COMPLETED")]
    for gap in range(1, 10):
        async with MisbehavingServer(*script) as server, new_client(server.url) as client:
            held = client.watch(ID)
            first = asyncio.create_task(listed(held))
            await asyncio.sleep(1)
            began = now()
            first.cancel()
            await turns(gap)
            assert (await client.wait_for_result(ID)).text == "the answer"
            assert first.cancelled()
            assert now() == pytest.approx(began, abs=0.001)


# Each has its own.


@pytest.mark.looptime
async def test_each_has_its_own_deadline(emulator: Emulator, client: DistributeClient) -> None:
    """Waits on one id end each at its own timeout, and the one with enough of it gets the result."""
    task_id = emulator.add_task([(0, "QUEUED"), (60, "COMPLETED")])
    began = now()

    async def ends(timeout: float) -> float:
        await caught(client.wait_for_result(task_id, timeout=timeout), WaitTimeoutError)
        return now() - began

    patient = asyncio.create_task(client.wait_for_result(task_id))
    assert await asyncio.gather(*map(ends, range(1, 50))) == [pytest.approx(n, abs=0.05) for n in range(1, 50)]
    assert (await patient).status is TaskStatus.COMPLETED


@pytest.mark.looptime
async def test_each_gets_its_own_copy_of_an_error(emulator: Emulator, client: DistributeClient) -> None:
    """One 404 that ends three waits is raised three times, each saying how long its own wait took."""
    waits = [asyncio.create_task(client.wait_for_result(ID))]
    await asyncio.sleep(1)
    waits += [asyncio.create_task(client.wait_for_result(ID)) for _ in range(2)]
    errors = [await caught(wait, NotFoundError) for wait in waits]
    assert len({id(error) for error in errors}) == 3
    assert [error.elapsed for error in errors] == [pytest.approx(seconds, abs=0.01) for seconds in (3.0, 2.0, 2.0)]


@pytest.mark.looptime
async def test_an_exchange_carries_nobodys_context() -> None:
    """An exchange serves all who wait: it runs without the context variables of whoever came first."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    heard: list[str] = []

    async def listen(*_: object) -> None:
        heard.append(name.get())

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(listen)
    async with (
        MisbehavingServer(*says("QUEUED", "COMPLETED")) as server,
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        new_client(server.url, session=session) as client,
    ):

        async def reader(own: str) -> list[str]:
            name.set(own)
            return [name.get() async for _ in client.watch(ID)]

        told = await asyncio.gather(reader("first"), reader("second"))
        assert list(told) == [["first"] * 2, ["second"] * 2]
    assert heard == ["nobody"] * 2


# Slow readers.


@pytest.mark.looptime
async def test_nothing_polls_while_a_lone_reader_is_busy() -> None:
    """In a lone reader's loop body nothing is asked, so it may miss what came and went; then it gets the newest."""
    async with MisbehavingServer(*says("CREATED", "COMPLETED")) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        async for status in watch:
            if status == "CREATED":
                assert_nothing_runs(client)
                await asyncio.sleep(100)
                assert len(server.requests) == 1
                resumed = now()
        assert server.times[1] == pytest.approx(resumed, abs=0.001)


@pytest.mark.looptime
async def test_a_lone_slow_reader_may_miss_statuses(emulator: Emulator, client: DistributeClient) -> None:
    """A status that came and went within a lone reader's loop body is not told."""
    seen: list[str] = []
    async for status in client.watch(emulator.add_task(LIFE)):
        seen.append(status)
        await asyncio.sleep(15 if status == "CREATED" else 0)
    assert seen == ["CREATED", "POSTPONED", "QUEUED", "PROCESSING", "COMPLETED"]


@pytest.mark.looptime
async def test_beside_another_waiter_a_slow_reader_misses_nothing(emulator: Emulator, client: DistributeClient) -> None:
    """While anybody waits the id is polled, and a slow reader gets every change, late and in order, with no request."""
    task_id = emulator.add_task(LIFE)
    other = asyncio.create_task(client.wait_for_result(task_id))
    seen: list[str] = []
    asked: list[int] = []
    async for status in client.watch(task_id):
        seen.append(status)
        await asyncio.sleep(50)  # the task is over after 35 s
        asked.append(len(emulator.requests))
    assert seen == PATH
    assert asked == asked[:1] * len(PATH)
    assert (await other).text


@pytest.mark.looptime
async def test_a_reader_far_behind_goes_on_with_the_oldest_kept_change() -> None:
    """Who falls more than the kept history behind goes on with what is kept, in order and to the end."""
    path = [f"S{n}" for n in range(1_350)]
    async with MisbehavingServer(*says(*path, "COMPLETED")) as server, new_client(server.url, timeout=None) as client:
        other = asyncio.create_task(client.wait_for_result(ID))
        slow = client.watch(ID)
        assert await anext(slow) == "S0"
        await other
        rest = await listed(slow)
        assert rest[-1] == "COMPLETED"
        assert 1_000 <= len(rest) <= 1_100
        assert [*rest[:-1]] == path[-len(rest) + 1 :]


@pytest.mark.looptime
async def test_a_wait_begins_afresh_after_nobody_waited() -> None:
    """What failed before a pause of the reader says nothing about the time after it: the outage's clock starts anew."""
    script = [*says("CREATED"), bad.status(500), bad.status(500), *[bad.status(500)] * 3, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        watch = client.watch(ID, timeout=None)
        assert await anext(watch) == "CREATED"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await anext(watch)
        assert 1 < len(server.requests) < 5
        await asyncio.sleep(10_000)
        assert await listed(watch) == ["COMPLETED"]


@pytest.mark.looptime
async def test_an_equal_answer_is_one_answer() -> None:
    """Answers that are equal byte for byte are the same result, and no change."""
    async with (
        MisbehavingServer(*[bad.good(body("QUEUED"))] * 3, *says("COMPLETED")) as server,
        new_client(server.url) as client,
    ):
        watch = client.watch(ID)
        assert await anext(watch) == "QUEUED"
        first = watch.latest
        ending = asyncio.ensure_future(watch)
        await asyncio.sleep(2.5)
        assert watch.latest is first
        assert (await ending).text
        assert watch.history[-1].polls == 4


@pytest.mark.looptime
async def test_two_hundred_tasks_at_once() -> None:
    """Two hundred waits on different tasks keep to `max_in_flight` and all get their results."""
    script = [bad.in_turn(bad.pause(0.1), *says("COMPLETED"))]
    async with MisbehavingServer(*script) as server, new_client(server.url, pacing=RARELY) as client:
        began = now()
        results = await asyncio.gather(*(client.wait_for_result(task_id) for task_id in ids(200)))
        assert [result.text for result in results] == ["the answer"] * 200
        assert now() - began == pytest.approx(0.2, abs=0.01)
        assert server.connections == 100


@pytest.mark.looptime
async def test_an_id_in_another_case_of_letters_shares_the_polls(emulator: Emulator, client: DistributeClient) -> None:
    """An id in capitals is the same id: its waits cost one poll sequence, and an upper-case one is sent as it came."""
    task_id = emulator.add_task([(0, "QUEUED"), (5, "COMPLETED")])
    first, second = await asyncio.gather(client.wait_for_result(task_id.upper()), client.wait_for_result(task_id))
    assert first is second
    assert {request.task_id for request in emulator.requests} == {task_id.upper()}
    alone = len(emulator.requests)
    emulator.requests.clear()
    other = emulator.add_task([(0, "QUEUED"), (5, "COMPLETED")])
    await client.wait_for_result(other)
    assert alone == len(emulator.requests)
