"""The deadline of a wait: it is met whatever the server does, and what is asked just before it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import field, frozen

from distribute_async import (
    APIConnectionError,
    APITimeoutError,
    DistributeClient,
    DistributeError,
    InternalServerError,
    Limits,
    NotFoundError,
    RateLimitError,
    Retry,
    WaitTimeoutError,
)
from distribute_async.emulator import Emulator, fault
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, Greeting, MisbehavingServer
from tests.waiting import (
    ID,
    OTHER_ID,
    RARELY,
    assert_is_ours,
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


@frozen
class Bad:
    """A server that never lets a wait end, and the `last_error` of one: its type."""

    behaviour: Behaviour = field(factory=bad.silence)
    greeting: Greeting | None = None
    scheme: str = "http"
    is_up: bool = True
    last_error: type[DistributeError] | None = None
    limits: Limits = field(factory=Limits)


NEVER = {
    "never answers": Bad(),
    "never answers in time": Bad(last_error=APITimeoutError, limits=Limits(exchange_timeout=0.4)),
    "drips a byte a second": Bad(bad.drip(bad.answer(body()))),
    "drips a body": Bad(bad.endless(bad.head(200, {"Content-Length": "99"}), lambda _: b" ", pause=0.1)),
    "refuses": Bad(is_up=False, last_error=APIConnectionError),
    "never speaks HTTP": Bad(greeting=bad.silent),
    "never speaks TLS": Bad(greeting=bad.silent, scheme="https"),
    "never speaks TLS in time": Bad(
        greeting=bad.silent, scheme="https", last_error=APITimeoutError, limits=Limits(connect_timeout=0.4)
    ),
    "closes at once": Bad(greeting=bad.close_at_once, last_error=APIConnectionError),
    "100 Continue for ever": Bad(bad.storm),
    "fails": Bad(bad.status(500), last_error=InternalServerError),
    "is down": Bad(bad.status(503), last_error=InternalServerError),
    "knows no such task": Bad(bad.status(404), last_error=NotFoundError),
    "asks for patience": Bad(bad.status(429), last_error=RateLimitError),
    "never gets on": Bad(bad.good(body("QUEUED"))),
}

Wait = Callable[[DistributeClient], Awaitable[Any]]
WAITS: dict[str, Wait] = {
    "wait_for_result": lambda client: client.wait_for_result(ID, timeout=1),
    "await": lambda client: client.watch(ID, timeout=1.0),
    "iterate": lambda client: listed(client.watch(ID, timeout=1)),
    "fetch": lambda client: client.fetch(ID, timeout=1),
}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("server", "wait"),
    [
        pytest.param(NEVER[server], WAITS[wait], id=f"{wait}, {server}")
        for server in NEVER
        for wait in WAITS
        # What ends a fetch at once.
        if wait != "fetch" or server not in {"never gets on", "knows no such task"}
    ],
)
async def test_a_wait_ends_at_its_timeout(server: Bad, wait: Wait) -> None:
    """A timeout of 1 s ends any wait within 50 ms of it, whatever the server does, and leaves nothing running."""
    behaving = MisbehavingServer(server.behaviour, on_connect=[server.greeting], port=bad.free_port())
    async with behaving if server.is_up else asyncio.timeout(None):
        url = behaving.url.replace("http", server.scheme)
        async with new_client(url, limits=server.limits, retry=Retry(attempts=99)) as client:
            error = await caught(wait(client), WaitTimeoutError)
            assert now() == pytest.approx(1.0, abs=0.05)
            assert_nothing_runs(client)
    assert isinstance(error, TimeoutError)
    assert type(error.last_error) is (server.last_error or type(None))
    assert error.elapsed == pytest.approx(1.0, abs=0.05)
    assert error.task_id == ID
    assert error.last_status == ("QUEUED" if server is NEVER["never gets on"] else None)
    assert "wait for the same id again" in str(error)


@pytest.mark.looptime
async def test_last_error_is_the_newest_fault_since_the_last_good_answer() -> None:
    """`last_error` says whether the service is ill now: a good answer since makes it None."""
    for script, last in [([bad.status(500), *says("QUEUED")], None), ([*says("QUEUED"), bad.status(500)], 500)]:
        async with MisbehavingServer(*script) as server, new_client(server.url) as client:
            error = await caught(client.wait_for_result(ID, timeout=5), WaitTimeoutError)
        assert getattr(error.last_error, "status_code", None) == last
        if error.last_error is not None:
            assert_is_ours(error.last_error)
            assert error.last_error.task_id == ID


# What the timeout counts.


@pytest.mark.looptime
@pytest.mark.parametrize("awaits", [False, True])
async def test_the_timeout_starts_at_the_first_wait(awaits: bool, emulator: Emulator, client: DistributeClient) -> None:
    """However long ago a watch was made, its time begins with the first `await` or iteration."""
    watch = client.watch(emulator.add_task([(0, "QUEUED")]), timeout=5)
    await asyncio.sleep(100)
    began = now()
    await caught(watch if awaits else listed(watch), WaitTimeoutError)
    assert now() - began == pytest.approx(5.0, abs=0.05)


@pytest.mark.looptime
async def test_the_timeout_runs_through_the_loops_body(emulator: Emulator, client: DistributeClient) -> None:
    """Time that a reader spends between two iterations is the wait's time too, and ends it at the next one at once."""
    watch = client.watch(emulator.add_task([(0, "CREATED"), (4, "QUEUED"), (9, "COMPLETED")]), timeout=5)
    assert await anext(watch) == "CREATED"
    await asyncio.sleep(6)
    asked, began = len(emulator.requests), now()
    await caught(anext(watch), WaitTimeoutError)
    assert (now(), len(emulator.requests)) == (began, asked)


@pytest.mark.looptime
async def test_awaiting_and_iterating_have_one_deadline(emulator: Emulator, client: DistributeClient) -> None:
    """Awaiting a watch that is being iterated gives it no more time."""
    watch = client.watch(emulator.add_task([(0, "QUEUED")]), timeout=5)
    began = now()
    await anext(watch)
    await asyncio.sleep(3)
    await caught(watch, WaitTimeoutError)
    assert now() - began == pytest.approx(5.0, abs=0.05)


@pytest.mark.looptime
async def test_what_is_known_comes_before_the_timeout(emulator: Emulator, client: DistributeClient) -> None:
    """Changes that another waiter has seen meanwhile are delivered, though the deadline is past; then the timeout."""
    task_id = emulator.add_task([(0, "CREATED"), (20, "QUEUED"), (40, "PROCESSING"), (300, "COMPLETED")])
    other = asyncio.create_task(client.wait_for_result(task_id))
    watch = client.watch(task_id, timeout=5)
    seen = [await anext(watch)]
    await asyncio.sleep(100)
    seen += [await anext(watch), await anext(watch)]
    assert seen == ["CREATED", "QUEUED", "PROCESSING"]
    await caught(anext(watch), WaitTimeoutError)
    await other
    assert await anext(watch) == "COMPLETED"


@pytest.mark.looptime
async def test_an_ending_that_is_known_comes_before_the_timeout(emulator: Emulator, client: DistributeClient) -> None:
    """A result that is known when a wait's time is up is its result."""
    task_id = emulator.add_task([(0, "CREATED"), (20, "COMPLETED")])
    other = asyncio.create_task(client.wait_for_result(task_id))
    watch = client.watch(task_id, timeout=5)
    await anext(watch)
    await asyncio.sleep(100)
    assert (await watch) is (await other)
    assert await listed(watch) == ["COMPLETED"]


@pytest.mark.looptime
async def test_a_timeout_of_zero_asks_nothing(emulator: Emulator, client: DistributeClient) -> None:
    """With no time at all a wait gives what is known already, else it times out at once, without a request."""
    task_id = emulator.add_task([(0, "QUEUED"), (20, "COMPLETED")])
    for wait in (client.watch(task_id, timeout=0), client.fetch(task_id, timeout=0)):
        await caught(wait, WaitTimeoutError)
    assert emulator.requests == []
    other = client.watch(task_id)
    await anext(other)
    hasty = client.watch(task_id, timeout=0)
    assert await anext(hasty) == "QUEUED"
    await caught(anext(hasty), WaitTimeoutError)
    await other
    asked = len(emulator.requests)
    assert await client.wait_for_result(task_id, timeout=0) is other.result
    assert len(emulator.requests) == asked


@pytest.mark.looptime
async def test_no_timeout_waits_for_ever() -> None:
    """`timeout=None` waits as long as the task takes, and infinity says the same."""
    script = [*says(*["QUEUED"] * 20), *says("COMPLETED")]
    for timeout in (None, float("inf")):
        async with MisbehavingServer(*script) as server, new_client(server.url, pacing=RARELY) as client:
            began = now()
            assert (await client.wait_for_result(ID, timeout=timeout)).text == "the answer"
            assert now() - began == pytest.approx(2_000, abs=0.01)


@pytest.mark.looptime
async def test_the_clients_timeout_is_the_default(emulator: Emulator) -> None:
    """A call without a timeout has its client's, 600 s where the client was told none; a call's own one wins."""
    task_id = emulator.add_task([(0, "QUEUED")])
    took = []
    for settings in ({}, {"timeout": 7}, {"timeout": None}):
        async with DistributeClient(emulator.api_key, base_url=emulator.base_url, **settings) as client:
            for timeouts in ({}, {"timeout": 3}):
                if settings.get("timeout", 0) is None and not timeouts:
                    continue
                began = now()
                await caught(client.wait_for_result(task_id, **timeouts), WaitTimeoutError)
                took.append(round(now() - began, 1))
    assert took == [600.0, 3.0, 7.0, 3.0, 3.0]


# Cut, or shared.


@pytest.mark.looptime
async def test_an_exchange_is_cut_at_the_deadline_unless_shared() -> None:
    """The deadline of one wait leaves an exchange that another wait shares alone; the last deadline cuts it."""
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(ID, timeout=seconds)) for seconds in (1, 3)]
        await caught(waits[0], WaitTimeoutError)
        assert now() == pytest.approx(1.0, abs=0.05)
        await asyncio.sleep(1)
        assert not waits[1].done()
        assert connections_at(server) == 1
        await caught(waits[1], WaitTimeoutError)
        assert now() == pytest.approx(3.0, abs=0.05)
        await turns(10)
        assert connections_at(server) == 0
        assert len(server.requests) == 1


@pytest.mark.looptime
async def test_many_deadlines_are_all_met() -> None:
    """A thousand waits on a hundred silent ids, each with its own deadline, end each within 50 ms of it."""
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url) as client:

        async def late_by(task_id: str, timeout: float) -> float:
            await caught(client.wait_for_result(task_id, timeout=timeout), WaitTimeoutError)
            return now() - timeout

        late = await asyncio.gather(*(late_by(ids(100)[n % 100], 0.1 + n / 100) for n in range(1_000)))
        assert max(late) <= 0.05
        assert min(late) >= 0
        assert_nothing_runs(client)


# The last look.


@pytest.mark.looptime
async def test_the_last_poll_is_just_before_the_deadline() -> None:
    """What became true since the last regular poll is seen 50 ms before the deadline, where exchanges take no time."""
    async with (
        MisbehavingServer(*says("QUEUED", "COMPLETED")) as server,
        new_client(server.url, pacing=RARELY) as client,
    ):
        assert (await client.wait_for_result(ID, timeout=8)).text == "the answer"
        assert server.times == [0.0, pytest.approx(7.95)]


@pytest.mark.looptime
async def test_the_last_poll_leaves_time_for_its_answer() -> None:
    """Where exchanges usually take 0.3 s, the last poll starts twice that before the deadline."""
    script = [bad.in_turn(bad.pause(0.3), answer) for answer in says("QUEUED", "COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url, pacing=RARELY) as client:
        assert (await client.wait_for_result(ID, timeout=8)).text == "the answer"
        assert server.times == [0.0, pytest.approx(7.4)]


@pytest.mark.looptime
async def test_a_last_poll_that_shows_nothing_new_ends_in_the_timeout() -> None:
    """After the last poll the wait ends at its deadline, and no other poll is made."""
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, pacing=RARELY) as client:
        await caught(client.wait_for_result(ID, timeout=8), WaitTimeoutError)
        assert now() == pytest.approx(8.0, abs=0.05)
        assert server.times == [0.0, pytest.approx(7.95)]


@pytest.mark.looptime
async def test_staggered_deadlines_make_one_more_poll_for_each_interval() -> None:
    """Many waits on one id with deadlines near each other cost one extra poll in an interval, not one each."""
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, pacing=RARELY) as client:
        waits = [client.wait_for_result(ID, timeout=10 + n) for n in range(50)]
        waits += [client.wait_for_result(ID, timeout=150 + n) for n in range(40)]
        ended = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(end) for end in ended} == {WaitTimeoutError}
        # Each answer starts an interval of 100 s, the answers to the two early polls too.
        assert server.times == [0.0, pytest.approx(9.95), pytest.approx(109.95), pytest.approx(149.95)]


@pytest.mark.looptime
async def test_no_last_poll_within_a_pause() -> None:
    """While the service has asked for a pause, a wait whose deadline comes ends without a request."""
    script = [*says("QUEUED"), bad.status(429, Retry_After="20"), *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        hasty = asyncio.create_task(caught(client.wait_for_result(OTHER_ID, timeout=10), WaitTimeoutError))
        await asyncio.sleep(0.1)
        patient = asyncio.create_task(client.wait_for_result(ID))
        error = await hasty
        assert now() == pytest.approx(10, abs=0.05)
        assert error.attempts == 1
        assert (await patient).text
        assert server.times == [0.0, 0.1, pytest.approx(20.1, abs=0.01)]


@pytest.mark.looptime
async def test_no_last_poll_within_an_outage() -> None:
    """While the service is down only probes go out, whoever's deadline comes."""
    async with MisbehavingServer(bad.status(503)) as server, new_client(server.url) as client:
        lasting = [asyncio.create_task(client.wait_for_result(task_id, timeout=100)) for task_id in ids(2)]
        await asyncio.sleep(50)
        count = len(server.requests)
        hasty = [client.wait_for_result(task_id, timeout=0.5 + n / 10) for n, task_id in enumerate(ids(30))]
        await asyncio.gather(*hasty, return_exceptions=True)
        assert now() <= 53.4 + 0.05
        assert len(server.requests) - count <= 2  # a probe each 2.5 to 5 s
        await asyncio.gather(*lasting, return_exceptions=True)


@pytest.mark.looptime
async def test_no_last_poll_over_the_rate() -> None:
    """Where `max_requests_per_second` is used up, a wait ends at its deadline without a last poll."""
    limits = Limits(max_requests_per_second=0.1)
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, limits=limits) as client:
        waits = [client.wait_for_result(task_id, timeout=5 + n / 10) for n, task_id in enumerate(ids(50))]
        ended = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(end) for end in ended} == {WaitTimeoutError}
        assert now() == pytest.approx(9.9, abs=0.05)
        assert server.times == [0.0]


@pytest.mark.looptime
async def test_a_last_poll_that_gets_its_turn_too_late_is_not_made() -> None:
    """A last poll that waits for a slot beyond its deadline has lost its reason, though others wait on the id."""
    script = [*says("QUEUED"), bad.in_turn(bad.pause(10.0), *says("COMPLETED")), *says("COMPLETED")]
    limits = Limits(max_in_flight=1)
    async with MisbehavingServer(*script) as server, new_client(server.url, pacing=RARELY, limits=limits) as client:
        hasty, patient = (asyncio.create_task(client.wait_for_result(ID, timeout=seconds)) for seconds in (8, 500))
        await asyncio.sleep(5)
        await asyncio.gather(client.wait_for_result(OTHER_ID), caught(hasty, WaitTimeoutError))
        assert (await patient).text == "the answer"
        assert server.times == [0.0, pytest.approx(5.0), pytest.approx(100.0)]


@pytest.mark.looptime
async def test_a_slow_answer_at_the_deadline_is_cut(emulator: Emulator, client: DistributeClient) -> None:
    """An answer that would come a moment after the deadline is not waited for."""
    task_id = emulator.add_task([(0, "COMPLETED")], faults=[fault.delay(1.06)])
    began = now()
    await caught(client.wait_for_result(task_id, timeout=1), WaitTimeoutError)
    assert now() - began == pytest.approx(1.0, abs=0.05)
    assert (await client.wait_for_result(task_id)).text
