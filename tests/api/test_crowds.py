"""Crowds: thousands of waits through an outage and a pause, one poisonous task among healthy ones, many on one task."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import pytest

from distribute_async import (
    APIConnectionError,
    APITimeoutError,
    ChatResult,
    DistributeClient,
    DistributeError,
    InternalServerError,
    Limits,
    Pacing,
    RateLimitError,
    Retry,
    WaitTimeoutError,
)
from distribute_async.emulator import Emulator, fault
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, MisbehavingServer, good
from tests.seams import exchanges_answered_by
from tests.waiting import (
    EVERY_SECOND,
    KEY,
    RARELY,
    assert_nothing_runs,
    body,
    caught,
    ids,
    listed,
    new_client,
    now,
    turns,
)

#: When the outages of these tests begin and end, in seconds.
DOWN, UP = 5.0, 65.0


def seeded(**settings: float) -> Pacing:
    """A pacing whose jitter is the usual one, and the same in each run."""
    chance = random.Random(5)
    return Pacing(**settings, jitter=lambda span: chance.uniform(0.0, span))


class Network:
    """Below the session, for crowds that are too large for sockets: it takes 10 ms, in an outage as long as told.

    The tasks are over once the outage is.
    """

    def __init__(self, fault: DistributeError, hangs: float) -> None:
        self._fault = fault
        self._hangs = hangs
        #: (start, end) of each exchange.
        self.exchanges: list[tuple[float, float]] = []

    async def _answer(self) -> bytes | DistributeError:
        start = now()
        is_down = DOWN <= start < UP
        await asyncio.sleep(self._hangs if is_down else 0.01)
        self.exchanges.append((start, now()))
        return self._fault if is_down else _ANSWERS[start >= UP]

    def in_place(self) -> AbstractContextManager[None]:
        """The client's exchanges go over this network."""
        return exchanges_answered_by(self._answer)


_ANSWERS = [json.dumps(body(status)).encode() for status in ("QUEUED", "COMPLETED")]


def assert_is_spared(starts: Sequence[float], closed: float) -> Counter[int]:
    """From `closed` to UP at most 30 requests; then at most 10 in the first second, and twice as many in each other.

    Gives how many there were in each second.
    """
    assert len([start for start in starts if closed < start < UP]) <= 30
    after = sorted(start for start in starts if start >= UP)
    # The outage ends for the client with the first good answer, that of its last probe.
    seconds = Counter(int(start - after[1]) for start in after[1:])
    assert all(seconds[second] <= 10 * 2**second for second in range(10))
    return seconds


@pytest.mark.looptime(noop_cycles=0)  # nothing comes from outside
@pytest.mark.parametrize(
    ("kind", "hangs"),
    [(APIConnectionError("refused"), 0.01), (APITimeoutError("silent"), 2.0)],
    ids=["refused", "silent"],
)
async def test_ten_thousand_waits_outlive_an_outage(kind: DistributeError, hangs: float) -> None:
    """In a minute's outage one probe at a time asks, 30 in all; the crowd returns slowly, and all get their results."""
    network = Network(kind, hangs)
    pacing = seeded(initial=8.0, max=10.0)
    with network.in_place():
        async with DistributeClient(KEY, base_url="https://service.example", pacing=pacing) as client:
            results = await asyncio.gather(*(client.wait_for_result(task_id) for task_id in ids(10_000)))
            assert_nothing_runs(client)
    assert [result.text for result in results] == ["the answer"] * 10_000
    assert now() < UP + 5 + 11  # the last probe's wait, and the return
    # What was under way when it began fails first; after that the gate is closed.
    closed = sorted(end for start, end in network.exchanges if start >= DOWN)[4]
    probes = sorted((start, end) for start, end in network.exchanges if closed < start < UP)
    assert all(following >= end for (_, end), (following, _) in pairwise(probes))
    seconds = assert_is_spared([start for start, _ in network.exchanges], closed)
    assert all(seconds[n + 1] <= 2 * seconds[n] + 1 for n in range(9))


@pytest.mark.looptime
async def test_five_hundred_waits_outlive_an_outage_over_sockets(emulator: Emulator) -> None:
    """The same for a smaller crowd on real sockets, whose service answers 503 for a minute."""
    pacing = seeded(initial=8.0, max=10.0)
    tasks = [emulator.add_task([(0, "QUEUED"), (70, "COMPLETED")]) for _ in range(500)]
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=pacing) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in tasks]
        await asyncio.sleep(DOWN - now())
        emulator.down = fault.status(503)
        await asyncio.sleep(UP - now())
        emulator.down = None
        results = await asyncio.gather(*waits)
        assert_nothing_runs(client)
    assert len({result.id for result in results}) == 500
    assert now() < UP + 25
    failing = [request.time for request in emulator.requests if request.status == 503]
    assert_is_spared([request.time for request in emulator.requests], failing[4])


@pytest.mark.looptime
async def test_a_service_that_is_gone_for_a_minute(emulator: Emulator) -> None:
    """Two hundred waits get their results though nobody listens for a minute, and every connection is refused."""
    tasks = [emulator.add_task([(0, "QUEUED"), (70, "COMPLETED")]) for _ in range(200)]
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=seeded()) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in tasks]
        await asyncio.sleep(DOWN)
        await emulator.__aexit__(None, None, None)
        await asyncio.sleep(UP - DOWN)
        before = len(emulator.requests)
        await emulator.__aenter__()
        results = await asyncio.gather(*waits)
    assert len({result.id for result in results}) == 200
    returning = [request.time for request in emulator.requests[before:]]
    assert returning[0] - UP <= 5.1
    assert len([at for at in returning if at < returning[1] + 1]) <= 11


# One among many.


def depends_on_task(behaviours: dict[str, Behaviour], otherwise: Behaviour) -> Behaviour:
    """Another behaviour for some tasks."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        task_id = json.loads(request.partition(b"\r\n\r\n")[2])["id"]
        await behaviours.get(task_id, otherwise)(reader, writer, request)

    return behave


def from_time(at: float, behaviour: Behaviour, before: Behaviour) -> Behaviour:
    """Another behaviour from some time on."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        await (behaviour if now() >= at else before)(reader, writer, request)

    return behave


QUEUED, COMPLETED = bad.good(body("QUEUED")), bad.good(body())


POISONS = {"500": bad.status(500), "502": bad.status(502), "cut": bad.close, "silence": bad.silence()}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("poison", "pacing", "lasts"),
    [("500", EVERY_SECOND, 6), ("502", EVERY_SECOND, 6), *((poison, RARELY, 120) for poison in POISONS)],
)
async def test_a_poisonous_task_hurts_nobody_else(poison: str, pacing: Pacing, lasts: float) -> None:
    """Beside a task whose every poll fails, a hundred others are asked at the same times as without it."""
    poisonous, *healthy = ids(101)

    async def times_of(others: list[str]) -> dict[str, list[float]]:
        began = now()
        behaviour = depends_on_task({poisonous: POISONS[poison]}, from_time(began + lasts, COMPLETED, QUEUED))
        settings = {"pacing": pacing, "retry": Retry(max=0.5), "limits": Limits(exchange_timeout=0.5)}
        async with MisbehavingServer(behaviour) as server, new_client(server.url, **settings) as client:
            beside = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in others]
            await turns(1)
            await asyncio.gather(*(client.wait_for_result(task_id) for task_id in healthy))
            assert not any(wait.done() for wait in beside)
            failed = [request for request in server.requests if request.task_id == poisonous]
            assert len(failed) > 5 or not others
            for wait in beside:
                wait.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            return {
                task_id: [round(request.at - began, 3) for request in server.requests if request.task_id == task_id]
                for task_id in healthy
            }

    assert await times_of([poisonous]) == await times_of([])


@pytest.mark.looptime
@pytest.mark.parametrize("others", [0, 1])
async def test_one_of_two_tasks_is_no_outage(others: int) -> None:
    """Five failures in a row close the gate where one task is watched; where two are, both must have failed."""
    poisonous, *healthy = ids(1 + others)
    behaviour = depends_on_task({poisonous: bad.status(502)}, good(body("QUEUED")))
    async with (
        MisbehavingServer(behaviour) as server,
        new_client(server.url, pacing=RARELY) as client,
        asyncio.TaskGroup() as group,
    ):
        waits = [group.create_task(client.wait_for_result(task_id)) for task_id in (poisonous, *healthy)]
        await asyncio.sleep(20)
        assert len(server.requests) >= 5 + others
        assert (client.stats().outage_for is None) == bool(others)
        for wait in waits:
            wait.cancel()


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(3))
async def test_a_thousand_waits_on_one_task(seed: int, emulator: Emulator, client: DistributeClient) -> None:
    """They cost the requests of one, however many of them are cancelled, the one that asks too; the rest see it all."""
    path = ["CREATED", "QUEUED", "POSTPONED", "QUEUED", "ASSIGNED_CONNECTIONS", "PROCESSING", "COMPLETED"]
    life = [(12.0 * n, status) for n, status in enumerate(path)]
    slowly = [fault.delay(0.3)] * 100
    await listed(client.watch(emulator.add_task(life, faults=slowly)))
    of_one = len(emulator.requests)

    chance = random.Random(seed)
    task_id = emulator.add_task(life, faults=slowly)
    readers = [asyncio.create_task(listed(client.watch(task_id))) for _ in range(500)]
    waits = [asyncio.create_task(client.wait_for_result(task_id)) for _ in range(500)]
    everybody = [*readers, *waits]
    survivors = set(chance.sample(everybody[1:], 300))
    await asyncio.sleep(0.1)
    everybody[0].cancel()  # it came first, so the request under way is its
    leaving = [reader for reader in everybody[1:] if reader not in survivors]
    chance.shuffle(leaving)
    while leaving:
        await asyncio.sleep(chance.random())
        for _ in range(min(len(leaving), chance.randrange(1, 20))):
            leaving.pop().cancel()
    ended = await asyncio.gather(*everybody, return_exceptions=True)
    for reader, end in zip(everybody, ended, strict=True):
        if reader not in survivors:
            assert isinstance(end, asyncio.CancelledError)
        elif reader in waits:
            assert isinstance(end, ChatResult)
        else:
            assert end == path
    assert len(emulator.requests) - of_one <= 1.1 * of_one + 1
    assert_nothing_runs(client)


# A pause.


@pytest.mark.looptime
async def test_a_crowd_keeps_a_pause(emulator: Emulator) -> None:
    """While the service asks for a pause none of a crowd asks; all of it gets its results after it."""
    tasks = [emulator.add_task([(0, "QUEUED"), (15, "COMPLETED")]) for _ in range(200)]
    limited = fault.status(429, headers={"Retry-After": "10"})
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in tasks]
        await asyncio.sleep(0.1)
        emulator.faults.append(limited)
        await asyncio.gather(*waits)
        assert_nothing_runs(client)
    paused = next(request.time for request in emulator.requests if request.status == 429)
    asked = [request.time for request in emulator.requests if request.time > paused + 0.001]
    assert asked[0] == pytest.approx(paused + 10, abs=0.001)


@pytest.mark.looptime
async def test_after_a_pause_they_come_one_by_one() -> None:
    """After a pause one request is under way until it is answered, and the first seconds are rationed."""
    limited = bad.status(429, Retry_After="10")
    slow = bad.in_turn(bad.pause(0.5), QUEUED)
    async with MisbehavingServer(limited, slow) as server, new_client(server.url) as client:
        first = asyncio.create_task(client.wait_for_result(ids(1)[0]))
        await asyncio.sleep(1)
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(100)[1:]]
        await asyncio.sleep(11.9)
        first.cancel()
        for wait in waits:
            wait.cancel()
        await asyncio.gather(first, *waits, return_exceptions=True)
        asked = server.times[1:]
    assert asked[0] == 10.0
    assert 10.5 <= asked[1] < asked[2]
    seconds = Counter(math.floor(at) for at in asked)
    assert 3 <= seconds[10] <= 10
    assert seconds[10] < seconds[11] <= 20


@pytest.mark.looptime
@pytest.mark.parametrize("waits", [50, 300])
async def test_what_was_under_way_as_a_pause_began_is_no_reason_to_come_back_at_once(waits: int) -> None:
    """Good answers that come in during a pause change nothing about the gentle return from it."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        is_first = len(server.requests) == 1
        await asyncio.sleep(0.1 if is_first else 0.5)
        writer.write(bad.answer({}, 429, {"Retry-After": "10"}) if is_first else bad.answer(body("QUEUED")))

    async with MisbehavingServer(behave) as server, new_client(server.url) as client:
        waiting = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(waits)]
        await asyncio.sleep(13)
        for wait in waiting:
            wait.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    after = [at - 10.1 for at in server.times if at > 9]
    assert min(after) == pytest.approx(0, abs=0.01)
    assert 2 <= sum(at < 1 for at in after) <= 10
    assert sum(1 <= at < 2 for at in after) <= 20


@pytest.mark.looptime
async def test_the_longest_pause_counts() -> None:
    """Where two answers ask for pauses, the one that ends last is kept, whichever came first."""
    for first, second in [(20, 2), (2, 20)]:
        script = [
            bad.status(429, Retry_After=str(first)),
            bad.in_turn(bad.pause(0.5), bad.status(503, Retry_After=str(second))),
            COMPLETED,
        ]
        async with MisbehavingServer(*script) as server, new_client(server.url) as client:
            began = now()
            await asyncio.gather(*(client.wait_for_result(task_id) for task_id in ids(2)))
            assert server.times[2] == pytest.approx(began + 20 + (0.5 if second == 20 else 0.0), abs=0.01)


@pytest.mark.looptime
async def test_an_outage_in_a_pause(emulator: Emulator) -> None:
    """Where the service goes down within a pause nobody asks before the pause is over, and then one probe at a time."""
    tasks = [emulator.add_task([(0, "QUEUED"), (60, "COMPLETED")]) for _ in range(50)]
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND) as client:
        hold = fault.status(503, headers={"Retry-After": "20"})
        emulator.faults.extend([hold, *[fault.silence(1.0)] * 49])
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in tasks]
        await asyncio.sleep(2)
        assert len(emulator.requests) == 50
        emulator.down = fault.status(502)
        await asyncio.sleep(38)
        asked = [request.time for request in emulator.requests[50:]]
        assert asked[0] == pytest.approx(20.0, abs=0.01)
        assert all(later - earlier >= 0.25 for earlier, later in pairwise(asked))
        assert len(asked) < 12
        emulator.down = None
        assert len({result.id for result in await asyncio.gather(*waits)}) == 50


@pytest.mark.looptime
async def test_a_pause_in_an_outage(emulator: Emulator) -> None:
    """Where a probe is answered by a call for a pause there is no other probe until it is over."""
    tasks = [emulator.add_task([(0, "QUEUED"), (60, "COMPLETED")]) for _ in range(50)]
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND) as client:
        emulator.down = fault.status(503)
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in tasks]
        await asyncio.sleep(10)
        asked = len(emulator.requests)
        emulator.down = fault.status(503, headers={"Retry-After": "30"})
        await asyncio.sleep(40)
        paused, *later = [request.time for request in emulator.requests[asked:]]
        assert 10 < paused < 15
        assert later[0] == pytest.approx(paused + 30, abs=2.6)
        assert later[0] >= paused + 30
        emulator.down = None
        assert len({result.id for result in await asyncio.gather(*waits)}) == 50


# Deadlines and outages.


@pytest.mark.looptime
async def test_deadlines_are_met_in_an_outage(emulator: Emulator) -> None:
    """Each of five hundred waits ends at its own deadline while the service is down, and says why it got nothing."""
    emulator.down = fault.status(503)
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=seeded()) as client:

        async def late_by(task_id: str, timeout: float) -> float:
            error = await caught(client.wait_for_result(task_id, timeout=timeout), WaitTimeoutError)
            assert error.last_error is None or isinstance(error.last_error, InternalServerError)
            return now() - timeout

        late = await asyncio.gather(*(late_by(task_id, n / 10) for n, task_id in enumerate(ids(500), start=1)))
        assert min(late) >= -0.001
        assert max(late) <= 0.05
        assert_nothing_runs(client)
    assert len(emulator.requests) <= 100 + 30


@pytest.mark.looptime
@pytest.mark.parametrize("kind", ["503", "silence"])
async def test_an_outage_that_lasts_too_long_ends_all_on_time(kind: str, emulator: Emulator) -> None:
    """Every wait ends `max_outage` after the outage began, or after it began itself within it, with the last fault."""
    emulator.down = fault.status(503) if kind == "503" else fault.silence()
    settings = {"retry": Retry(max_outage=40.0), "limits": Limits(exchange_timeout=1.0), "pacing": EVERY_SECOND}
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, **settings) as client:  # type: ignore[arg-type]
        expected = InternalServerError if kind == "503" else APITimeoutError
        since = 0.0 if kind == "503" else 1.0  # the first failure

        async def ended_at(task_id: str) -> float:
            await caught(client.wait_for_result(task_id), expected)
            return now()

        first = [asyncio.create_task(ended_at(task_id)) for task_id in ids(300)]
        await asyncio.sleep(15)
        late = [asyncio.create_task(ended_at(task_id)) for task_id in ids(400)[300:]]
        assert await asyncio.gather(*first) == [pytest.approx(since + 40.0, abs=0.05)] * 300
        assert await asyncio.gather(*late) == [pytest.approx(55.0, abs=0.05)] * 100
        assert_nothing_runs(client)
        assert len(emulator.requests) <= 100 + 30


@pytest.mark.looptime
async def test_a_probe_cut_by_a_deadline_says_nothing() -> None:
    """Probes that end with their waits' deadlines neither end the outage nor lengthen it for others."""
    silent = from_time(30.0, COMPLETED, bad.silence())
    limits = Limits(exchange_timeout=1.0)
    hasty, patient = ids(200)[:-1], ids(200)[-1]
    async with MisbehavingServer(silent) as server, new_client(server.url, limits=limits) as client:
        lasting = asyncio.create_task(client.wait_for_result(patient))
        waits = [client.wait_for_result(task_id, timeout=2.0 + n / 10) for n, task_id in enumerate(hasty)]
        ended = asyncio.gather(*waits, return_exceptions=True)
        assert (await lasting).text
        # Each probe takes 1 s, and after it there are 5 s at most.
        assert now() <= 30 + 6 + 0.1
        assert {type(end) for end in await ended} <= {WaitTimeoutError, ChatResult}
        probes = [at for at in server.times if 3 < at < 30]
        assert all(later - earlier >= 0.25 for earlier, later in pairwise(probes))


@pytest.mark.looptime
async def test_probes_cut_by_deadlines_do_not_lengthen_the_backoff() -> None:
    """However many probes end with their waits' deadlines, the next one comes as soon as the first one did."""
    tasks = ids(8)
    script = [*[bad.status(502)] * len(tasks), bad.silence()]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        # The fifth failure closes the gate: its task and those after it queue as probes at once, the others a little
        # later. The n-th of them is the probe at 0.5 · n s, and leaves 0.1 s after that.
        turns_of = dict(zip([*tasks[4:], *tasks[:4]], range(1, 9), strict=True))
        waits = [client.wait_for_result(task_id, timeout=0.5 * turns_of[task_id] + 0.1) for task_id in tasks]
        ended = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(end) for end in ended} == {WaitTimeoutError}
    assert server.times[8:] == [pytest.approx(0.5 * n) for n in range(1, 9)]


@pytest.mark.looptime
async def test_those_who_queue_as_an_outage_begins_end_with_it() -> None:
    """Where the outage outlasts `max_outage`, those too end on time who were never asked for."""
    script = [*[bad.in_turn(bad.pause(1.0), bad.status(502))] * 5, bad.silence()]
    settings: dict[str, Any] = {"limits": Limits(max_in_flight=1), "retry": Retry(max_outage=10.0)}
    async with MisbehavingServer(*script) as server, new_client(server.url, **settings) as client:
        began = now()

        async def end_of(task_id: str) -> float:
            await caught(client.wait_for_result(task_id), DistributeError)
            return now() - began

        *ends, of_the_probe = sorted(await asyncio.gather(*(end_of(task_id) for task_id in ids(12))))
    assert ends == [pytest.approx(1.0 + 10.0)] * 11
    assert of_the_probe == pytest.approx(5.5 + 30.0, abs=0.3)  # it was under way, and ends with its exchange


@pytest.mark.looptime
@pytest.mark.parametrize("readers", [0, 3])
async def test_a_submission_is_no_probe_where_a_read_can_be_one(readers: int) -> None:
    """While the service is down nothing is submitted to it: without readers a task that nobody made is asked for."""
    down = [bad.status(503)] * 5 + [bad.status(502)] * 12
    script = [*down, bad.status(404, {}), good({**body(), "id": ids(1)[0]})]
    async with MisbehavingServer(*script) as server, new_client(server.url, retry=Retry(attempts=20)) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(readers or 5)]
        await asyncio.sleep(3)
        assert client.stats().outage_for is not None
        if not readers:
            for wait in waits:
                wait.cancel()
        before = len(server.requests)
        submitting = asyncio.ensure_future(client.submit(model="m", messages=[{"role": "user", "content": "Hello!"}]))
        if readers:
            await asyncio.gather(*waits)
        await asyncio.wait([submitting])
        submitted = [request for request in server.requests[before:] if b"messages" in request.body]
        assert len(submitted) == 1
        assert server.requests.index(submitted[0]) > len(down)
        if not readers:
            assert {request.path for request in server.requests[before : len(down)]} == {"/async/chat/result"}
            assert {request.task_id for request in server.requests[before : len(down)]}.isdisjoint(ids(5))
        assert (await submitting).task_id == ids(1)[0]


@pytest.mark.looptime
async def test_probes_go_round() -> None:
    """In an outage each task has its turn as the probe before another one has its second."""
    tasks = ids(7)
    async with MisbehavingServer(bad.status(502)) as server, new_client(server.url) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in tasks]
        await asyncio.sleep(100)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    probes = [request.task_id for request in server.requests[7:]]
    assert len(probes) > 20
    for n in range(7, len(probes) - 6):
        assert len(set(probes[n : n + 7])) == 7


@pytest.mark.looptime
async def test_a_poisonous_task_does_not_prolong_an_outage() -> None:
    """Where one task alone still fails after an outage the others have their results within a probe or two."""
    poisonous, *others = ids(5)
    recovered = from_time(40.0, COMPLETED, bad.status(502))
    behaviour = depends_on_task({poisonous: bad.status(502)}, recovered)
    async with MisbehavingServer(behaviour) as server, new_client(server.url) as client:
        beside = asyncio.create_task(client.wait_for_result(poisonous))
        results = await asyncio.gather(*(client.wait_for_result(task_id) for task_id in others))
        assert [result.text for result in results] == ["the answer"] * 4
        assert now() <= 40 + 5 + 5 + 2
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)


# Fetching beside them.


@pytest.mark.looptime
async def test_a_fetch_takes_its_turn_in_an_outage(emulator: Emulator) -> None:
    """In an outage a fetch is a probe like any other, and has its answer when the service is back."""
    tasks = [emulator.add_task([(0, "QUEUED"), (60, "COMPLETED")]) for _ in range(3)]
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND) as client:
        emulator.down = fault.status(502)
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in tasks]
        await asyncio.sleep(20)
        asked = len(emulator.requests)
        fetching = asyncio.create_task(client.fetch(tasks[0]))
        await asyncio.sleep(0.2)
        assert len(emulator.requests) <= asked + 1
        emulator.down = None
        assert (await fetching).status == "QUEUED"
        assert now() <= 20 + 4 * 5
        assert len(await asyncio.gather(*waits)) == 3
        assert all(later.time - earlier.time >= 0.25 for earlier, later in pairwise(emulator.requests[5:asked]))


@pytest.mark.looptime
async def test_fetches_fail_in_an_outage_that_goes_on(emulator: Emulator) -> None:
    """A fetch in an outage ends with the last fault once it has had its attempts, or at its deadline before."""
    emulator.down = fault.status(502)
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(3)]
        await asyncio.sleep(20)
        asked, began = len(emulator.requests), now()
        patient = asyncio.create_task(client.fetch(ids(1)[0]))
        hasty = [client.fetch(task_id, timeout=1.0) for task_id in ids(50)]
        ended = await asyncio.gather(*hasty, return_exceptions=True)
        assert {type(end) for end in ended} <= {WaitTimeoutError, InternalServerError}
        assert now() == pytest.approx(began + 1.0, abs=0.05) or now() == began
        assert len(emulator.requests) <= asked + 1
        error = await caught(patient, InternalServerError)
        assert error.attempts == 3
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert_nothing_runs(client)


@pytest.mark.looptime
async def test_a_fetch_waits_for_the_end_of_a_pause(emulator: Emulator) -> None:
    """A fetch that comes in a pause asks when it is over; one that can't wait so long is refused at once."""
    task_id = emulator.add_task([(0, "QUEUED")], faults=[fault.status(429, headers={"Retry-After": "20"})])
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND) as client:
        await caught(client.fetch(task_id, timeout=10), RateLimitError)
        began = now()
        error = await caught(client.fetch(task_id, timeout=5), RateLimitError)
        assert error.retry_after == pytest.approx(20, abs=0.05)
        assert now() == began
        assert (await client.fetch(task_id, timeout=60)).status == "QUEUED"
        assert now() == pytest.approx(began + 20, abs=0.05)
