"""Many tasks as one stream: `as_completed` and `watch_many`."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import count, pairwise
from typing import Any

import pytest

import distribute_async
from distribute_async import (
    ChatResult,
    ClientClosedError,
    ConfigurationError,
    DistributeClient,
    DistributeError,
    InvalidTaskIdError,
    Limits,
    NotFoundError,
    ObservedEnding,
    ObservedWait,
    Observer,
    Outcome,
    Retry,
    TaskFailedError,
    TaskStream,
    Transition,
    WaitTimeoutError,
)
from distribute_async.emulator import Emulator
from tests import misbehaving as bad
from tests.api.test_crowds import depends_on_task
from tests.misbehaving import MisbehavingServer, good
from tests.seams import exchanges_answered_by, live_subscriptions
from tests.waiting import (
    EVERY_SECOND,
    KEY,
    OTHER_ID,
    RARELY,
    assert_is_ours,
    assert_nothing_runs,
    body,
    caught,
    ids,
    listed,
    new_client,
    now,
    says,
    tasks,
    turns,
)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[DistributeClient]:
    """Polls every second."""
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND) as client:
        yield client


def life(*ends: tuple[float, str]) -> list[tuple[float, str]]:
    """Queued at first."""
    return [(0.0, "QUEUED"), *ends]


def brief(change: Transition[ChatResult]) -> tuple[str, str | None]:
    return change.task_id, change.status


@pytest.mark.looptime
async def test_outcomes_come_as_tasks_end(emulator: Emulator, client: DistributeClient) -> None:
    """Each task gives one outcome when it ends, with its result or the error that a wait for it would raise."""
    slow = emulator.add_task(life((9.5, "COMPLETED")))
    failing = emulator.add_task(life((4.5, "ERROR")))
    quick = emulator.add_task(life((1.5, "COMPLETED")))
    unknown = str(uuid.uuid4())
    outcomes = await listed(client.as_completed([slow, failing, quick, unknown]))
    assert [outcome.task_id for outcome in outcomes] == [quick, unknown, failing, slow]
    done, missing, failed, last = outcomes
    assert (done.error, last.error) == (None, None)
    assert done.unwrap() is done.result
    assert isinstance(missing.error, NotFoundError)
    assert isinstance(failed.error, TaskFailedError)
    assert failed.result is None
    for outcome in (missing, failed):
        assert isinstance(outcome.error, distribute_async.DistributeError)
        assert outcome.error.task_id == outcome.task_id
        assert_is_ours(outcome.error)
        for _ in range(2):
            with pytest.raises(type(outcome.error)) as raised:
                outcome.unwrap()
            assert len(raised.traceback) == 2
    assert_nothing_runs(client)


@pytest.mark.looptime
async def test_transitions_of_all_come_as_they_are_seen(emulator: Emulator, client: DistributeClient) -> None:
    """Each change of any task is told once; the end of one that can't be followed is told with its error."""
    one = emulator.add_task(life((2.5, "PROCESSING"), (6.5, "COMPLETED")))
    other = emulator.add_task(life((1.5, "POSTPONED"), (3.5, "ERROR")))
    unknown = str(uuid.uuid4())
    changes = await listed(client.watch_many([one, other, unknown]))
    assert [brief(change) for change in changes if change.task_id != unknown] == [
        (one, "QUEUED"),
        (other, "QUEUED"),
        (other, "POSTPONED"),
        (one, "PROCESSING"),
        (other, "ERROR"),
        (one, "COMPLETED"),
    ]
    [lost] = [change for change in changes if change.task_id == unknown]
    assert (lost.status, lost.result) == (None, None)
    assert isinstance(lost.error, NotFoundError)
    assert lost.elapsed == lost.error.elapsed
    assert_nothing_runs(client)


@pytest.mark.looptime
async def test_bad_ids_are_outcomes(emulator: Emulator, client: DistributeClient) -> None:
    """What is no task id gives an item with the reason, sends nothing, and disturbs no other."""
    good_id = uuid.UUID(emulator.add_task(life((0.5, "COMPLETED"))))
    outcomes = await listed(client.as_completed(["", good_id, "no id\n", None]))  # type: ignore[list-item]
    assert [outcome.task_id for outcome in outcomes] == ["", "no id\n", "None", str(good_id)]
    assert [type(outcome.error) for outcome in outcomes[:3]] == [InvalidTaskIdError] * 3
    assert {request.task_id for request in emulator.requests} == {str(good_id)}
    [change] = await listed(client.watch_many(["nonsense"]))
    assert (change.task_id, change.status, type(change.error)) == ("nonsense", None, InvalidTaskIdError)


@pytest.mark.looptime
async def test_an_id_given_twice_is_told_twice_and_asked_once(emulator: Emulator, client: DistributeClient) -> None:
    """Each place in the ids has its outcome, and the polls are shared."""
    task_id = emulator.add_task(life((3.5, "COMPLETED")))
    outcomes = await listed(client.as_completed([task_id, task_id]))
    assert [outcome.task_id for outcome in outcomes] == [task_id, task_id]
    assert len(emulator.requests) == 5


@pytest.mark.looptime
@pytest.mark.parametrize("end", ["COMPLETED", "ERROR"])
async def test_everybody_is_told_the_id_as_given(end: str, emulator: Emulator, client: DistributeClient) -> None:
    """An id may be written in either case: outcomes, transitions and errors have it as their own caller wrote it."""
    lower = emulator.add_task(life((3.5, end)))
    upper = lower.upper()
    watches = {given: client.watch(given) for given in (lower, upper)}
    following: list[Awaitable[Any]] = [
        listed(client.watch_many([upper, lower])),
        listed(client.as_completed([upper, lower])),
        *(listed(watch.transitions()) for watch in watches.values()),
    ]
    changes, outcomes, *awaited = await asyncio.gather(*following)
    assert sorted(map(brief, changes)) == sorted((given, status) for given in watches for status in ("QUEUED", end))
    assert sorted(outcome.task_id for outcome in outcomes) == sorted(watches)
    for (given, watch), seen in zip(watches.items(), awaited, strict=True):
        assert [change.task_id for change in (*seen, *watch.history)] == [given] * 4
        assert watch.task_id == given
        if end == "ERROR":
            assert (await caught(watch, TaskFailedError)).task_id == given
    for outcome in outcomes:
        assert outcome.error is None or outcome.task_id in str(outcome.error)


@pytest.mark.looptime
async def test_errors_have_the_id_as_given(emulator: Emulator, client: DistributeClient) -> None:
    """Where following a task ends early, each caller's error and last transition have the id as it was given there."""
    lower = str(uuid.uuid4())
    following: list[Awaitable[Any]] = [
        listed(client.watch_many([lower, lower.upper()])),
        listed(client.as_completed([lower.upper(), lower])),
        caught(client.watch(lower), NotFoundError),
        caught(client.watch(lower.upper()), NotFoundError),
    ]
    changes, outcomes, *errors = await asyncio.gather(*following)
    assert [error.task_id for error in errors] == [lower, lower.upper()]
    for items in (changes, outcomes):
        assert {item.task_id for item in items} == {lower, lower.upper()}
        assert [item.error.task_id for item in items] == [item.task_id for item in items]
    late = client.watch(lower.upper(), timeout=0)
    assert (await caught(late, WaitTimeoutError)).task_id == lower.upper()


@pytest.mark.looptime
async def test_the_timeout_is_each_tasks_own(emulator: Emulator, client: DistributeClient) -> None:
    """A task is given up its timeout after it was taken, while the others go on; with None none is."""
    first, second = (emulator.add_task(life((1000.0, "COMPLETED"))) for _ in range(2))
    began = now()
    ended = []
    async for outcome in client.as_completed([first, second], timeout=5.0, window=1):
        assert isinstance(outcome.error, WaitTimeoutError)
        assert outcome.error.elapsed == pytest.approx(5.0)
        ended.append((outcome.task_id, round(now() - began, 2)))
    assert ended == [(first, 5.0), (second, 10.0)]
    [outcome] = await listed(client.as_completed([first], timeout=None))
    assert outcome.error is None
    [outcome] = await listed(client.as_completed([OTHER_ID], timeout=0))
    assert isinstance(outcome.error, WaitTimeoutError)
    assert OTHER_ID not in {request.task_id for request in emulator.requests}


async def elapsed_at_timeout(stream: TaskStream[Any]) -> float:
    """The seconds after which the last task of a stream is given up."""
    *_, last = await listed(stream)
    assert isinstance(last.error, WaitTimeoutError)
    return round(last.error.elapsed, 1)


@pytest.mark.looptime
async def test_the_default_timeout_is_the_clients(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the call names no timeout each task has the client's, 600 s without any; None means none here too."""
    task_id = emulator.add_task(life())
    hasty = DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND, timeout=3)
    async with hasty as client:
        for follow in (client.as_completed, client.watch_many, client.chat.as_completed, client.chat.watch_many):
            assert await elapsed_at_timeout(follow([task_id])) == 3
            assert await elapsed_at_timeout(follow([task_id], timeout=5)) == 5
        for follow in (distribute_async.as_completed, distribute_async.watch_many):
            assert await elapsed_at_timeout(follow([task_id], client=client)) == 3
            assert await elapsed_at_timeout(follow([task_id], client=client, timeout=5)) == 5
        late = emulator.add_task(life((1000, "COMPLETED")))
        [outcome] = await listed(client.as_completed([late], timeout=None))
        assert outcome.error is None
    monkeypatch.setenv("DISTRIBUTE_API_KEY", emulator.api_key)
    monkeypatch.setenv("DISTRIBUTE_BASE_URL", emulator.base_url)
    for follow in (distribute_async.as_completed, distribute_async.watch_many):
        assert await elapsed_at_timeout(follow([task_id])) == 600
        assert await elapsed_at_timeout(follow([task_id], timeout=5)) == 5


@pytest.mark.looptime
async def test_what_is_known_is_told_at_once(emulator: Emulator, client: DistributeClient) -> None:
    """Beside others who wait, a stream begins with the newest status that they know, without a request."""
    running = emulator.add_task(life((0.5, "PROCESSING"), (100.0, "COMPLETED")))
    over = emulator.add_task([(0.0, "COMPLETED")])
    finished = client.watch(over)
    await finished
    waiting = asyncio.create_task(client.wait_for_result(running))
    await asyncio.sleep(2)
    before = len(emulator.requests)
    stream = client.watch_many([running, over])
    assert [brief(await anext(stream)), brief(await anext(stream))] == [(running, "PROCESSING"), (over, "COMPLETED")]
    assert len(emulator.requests) == before
    [outcome] = await listed(client.as_completed([over]))
    assert outcome.result is await finished
    assert len(emulator.requests) == before
    waiting.cancel()


# Which ids, and when they are taken.


@pytest.mark.looptime
async def test_ids_are_taken_lazily(emulator: Emulator, client: DistributeClient) -> None:
    """At most `window` tasks are followed at once, and an endless supply is taken only as there is room."""
    taken = 0

    def supply() -> Iterator[str]:
        nonlocal taken
        for n in count():
            taken += 1
            yield emulator.add_task(life((1.5 + n % 3, "COMPLETED")))

    stream = client.as_completed(supply(), window=10)
    for done in range(50):
        await anext(stream)
        assert taken <= done + 10
        assert stream.progress.waiting <= 10
    await stream.aclose()
    assert_nothing_runs(client)


@pytest.mark.looptime
async def test_async_ids_are_taken_lazily(emulator: Emulator, client: DistributeClient) -> None:
    """An async supply is asked only while there is room and somebody waits for an item."""
    taken = []

    async def supply() -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(0.2)
            taken.append(emulator.add_task(life((0.7, "COMPLETED"))))
            yield taken[-1]

    stream = client.as_completed(supply(), window=3)
    for done in range(20):
        await anext(stream)
        assert len(taken) <= done + 4
    before = len(taken)
    await asyncio.sleep(100)  # the loop's body: one that was asked for may come in
    assert len(taken) <= before + 1
    await stream.aclose()
    assert_nothing_runs(client)


@pytest.mark.looptime
async def test_async_ids_lose_nothing(emulator: Emulator, client: DistributeClient) -> None:
    """An id that comes while nobody waits is kept, and the stream ends after the last outcome."""

    async def supply() -> AsyncIterator[str]:
        for _ in range(5):
            await asyncio.sleep(1)
            yield emulator.add_task(life((0.5, "COMPLETED")))

    outcomes = []
    async for outcome in client.as_completed(supply()):
        outcomes.append(outcome)
        await asyncio.sleep(0.7)
    assert len({outcome.task_id for outcome in outcomes}) == 5
    assert all(outcome.error is None for outcome in outcomes)
    assert_nothing_runs(client)


class _SupplyError(Exception):
    pass


@pytest.mark.looptime
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_broken_supply_is_told_and_loses_nothing(
    is_async: bool, emulator: Emulator, client: DistributeClient
) -> None:
    """What the iterable of ids raises comes out as it is; those that were taken before it can still be had."""
    task_id = emulator.add_task(life((5.0, "COMPLETED")))

    def now_supply() -> Iterator[str]:
        yield task_id
        raise _SupplyError

    async def later_supply() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        yield task_id
        raise _SupplyError

    stream = client.as_completed(later_supply() if is_async else now_supply())
    began = now()
    with pytest.raises(_SupplyError):
        await anext(stream)
    assert now() - began < 1
    assert [outcome.task_id for outcome in await listed(stream)] == [task_id]


async def cancelled_wait() -> None:
    """What a source meets that awaits an asyncio task which somebody else cancelled."""
    task = asyncio.ensure_future(asyncio.sleep(1))
    task.cancel()
    await task


@pytest.mark.looptime
@pytest.mark.parametrize("kind", ["sync", "async", "not started"])
async def test_a_source_that_is_cancelled_is_an_error(kind: str, emulator: Emulator, client: DistributeClient) -> None:
    """Ids that end in a `CancelledError` of their own are neither exhausted nor a cancellation of the loop."""
    task_id = emulator.add_task(life((5.0, "COMPLETED")))

    def now_source() -> Iterator[str]:
        yield task_id
        raise asyncio.CancelledError

    async def later_source() -> AsyncIterator[str]:
        yield task_id
        await cancelled_wait()

    async def short_source() -> AsyncIterator[str]:
        yield task_id

    sources: dict[str, Callable[[], Iterator[str] | AsyncIterator[str]]] = {
        "sync": now_source,
        "async": later_source,
        "not started": short_source,
    }
    stream = client.as_completed(sources[kind]())
    others = asyncio.all_tasks()
    reading = asyncio.ensure_future(anext(stream))
    if kind == "not started":
        await asyncio.sleep(0)  # the reader's first turn
        for pulling in asyncio.all_tasks() - others - {reading}:
            pulling.cancel()
    error = await caught(reading, DistributeError)
    assert "CancelledError" in str(error)
    assert [outcome.task_id for outcome in await listed(stream)] == [task_id]


@pytest.mark.looptime
async def test_what_looks_like_an_end_is_an_error(client: DistributeClient) -> None:
    """A plain iterable that raises `StopAsyncIteration` doesn't end the loop in silence."""

    class Ids:
        def __iter__(self) -> Ids:
            return self

        def __next__(self) -> str:
            raise StopAsyncIteration

    error = await caught(listed(client.as_completed(Ids())), DistributeError)
    assert "StopAsyncIteration" in str(error)


class _SourceExit(BaseException):
    pass


@pytest.mark.looptime
async def test_any_exception_of_an_async_source_is_told(client: DistributeClient) -> None:
    """What is no `Exception` but ends the ids comes out as it is, too."""

    async def source() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        if client:
            raise _SourceExit
        yield ""

    with pytest.raises(_SourceExit):
        await listed(client.as_completed(source()))


@pytest.mark.looptime
async def test_a_cancelled_step_does_not_end_the_source(emulator: Emulator, client: DistributeClient) -> None:
    """Who is cancelled while the source is awaited is cancelled, and the next step goes on with the same source."""

    async def source() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(10)
            yield emulator.add_task(life((0.5, "COMPLETED")))

    stream = client.as_completed(source())
    for _ in range(2):
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(3)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    assert [outcome.error for outcome in await listed(stream)] == [None] * 3


@pytest.mark.looptime
async def test_a_source_between_two_ids_stays_usable(emulator: Emulator, client: DistributeClient) -> None:
    """A stream that is closed doesn't touch an async generator that it isn't waiting for."""

    async def source() -> AsyncIterator[str]:
        for _ in range(4):
            await asyncio.sleep(0)
            yield emulator.add_task(life((0.5, "COMPLETED")))

    given = source()
    stream = client.as_completed(given, window=1)
    await anext(stream)
    await stream.aclose()
    assert len(await listed(given)) == 3


@pytest.mark.looptime
async def test_closing_awaits_the_source(client: DistributeClient) -> None:
    """A source that is waited for is cancelled once, and has ended when `aclose` returns, whoever else calls it."""
    ended = []

    async def source() -> AsyncIterator[str]:
        yield ids(1)[0]
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(2)
            ended.append(now())

    stream = client.as_completed(source())
    reading = asyncio.ensure_future(listed(stream))
    await asyncio.sleep(1)

    async def close_after(seconds: float) -> None:
        await asyncio.sleep(seconds)
        await stream.aclose()
        assert ended == [3.0]

    await asyncio.gather(close_after(0), close_after(1), close_after(5))
    assert await reading == []
    assert_nothing_runs(client)


@pytest.mark.looptime
async def test_closing_lets_go_of_the_ids(emulator: Emulator, client: DistributeClient) -> None:
    """An id that came while the loop's body ran is neither kept nor followed once the stream is closed."""
    comes = asyncio.Event()
    late = []

    async def source() -> AsyncIterator[uuid.UUID]:
        yield uuid.UUID(emulator.add_task(life((0.5, "COMPLETED"))))
        await comes.wait()
        given = [uuid.UUID(emulator.add_task(life((0.5, "COMPLETED"))))]
        late.append(weakref.ref(given[0]))
        yield given.pop()

    stream = client.as_completed(source())
    await anext(stream)
    comes.set()
    await turns(10)
    assert late[0]() is not None
    asked = len(emulator.requests)
    await stream.aclose()
    assert await listed(stream) == []
    assert len(emulator.requests) == asked
    gc.collect()
    assert late[0]() is None


@pytest.mark.looptime
async def test_a_closed_stream_is_over(emulator: Emulator, client: DistributeClient) -> None:
    """After `aclose` neither an outcome that was there already comes, nor the error of the ids behind it."""

    def source() -> Iterator[str]:
        yield from (emulator.add_task([(0.0, "COMPLETED")]) for _ in range(5))
        yield "no id"
        raise _SupplyError

    stream = client.as_completed(source())
    assert (await anext(stream)).task_id == "no id"
    await asyncio.sleep(5)
    await stream.aclose()
    assert await listed(stream) == []
    assert stream.progress.waiting == 0


@pytest.mark.looptime
async def test_an_id_that_comes_in_spite_of_closing_is_not_followed(
    emulator: Emulator, client: DistributeClient
) -> None:
    """A source that answers its cancellation with an id doesn't make a closed stream follow it."""

    async def source() -> AsyncIterator[str]:
        yield emulator.add_task(life((0.5, "COMPLETED")))
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        yield emulator.add_task(life((0.5, "COMPLETED")))

    stream = client.as_completed(source())
    await anext(stream)
    asked = len(emulator.requests)
    await stream.aclose()
    assert await listed(stream) == []
    assert len(emulator.requests) == asked


@pytest.mark.parametrize("ids", ["0b7dbd53-71f5-4d2b-9c0e-4dd3a2f7d6f1", b"", 5, None])
def test_what_is_no_supply_is_refused(ids: object) -> None:
    """One id in place of many, and what can't be iterated over, are refused at the call; so are bad arguments."""
    client = DistributeClient(KEY)
    with pytest.raises(ConfigurationError, match="iterable"):
        client.as_completed(ids)  # type: ignore[arg-type]
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ConfigurationError, match="window"):
            client.watch_many([], window=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="timeout"):
        client.watch_many([], timeout=-1)


@pytest.mark.looptime
async def test_no_ids_no_items(client: DistributeClient) -> None:
    """An empty supply ends at once, again and again."""
    stream = client.as_completed([])
    assert await listed(stream) == []
    assert await listed(stream) == []


# The loop's body, and leaving.


@pytest.mark.looptime
async def test_while_the_body_runs_nothing_new_starts(emulator: Emulator, client: DistributeClient) -> None:
    """In the loop's body no poll is started; the next step starts what came due, and nothing is lost."""
    everyone = [emulator.add_task(life((n + 0.5, "COMPLETED"))) for n in range(20)]
    stream = client.as_completed(everyone)
    found = [await anext(stream)]
    await asyncio.sleep(0.5)
    before = len(emulator.requests)
    await asyncio.sleep(100)
    assert len(emulator.requests) == before
    found += await listed(stream)
    assert sorted(outcome.task_id for outcome in found) == sorted(everyone)
    assert len(emulator.requests) - before <= 20
    assert_nothing_runs(client)


@pytest.mark.looptime
async def test_a_slow_body_keeps_others_going(emulator: Emulator, client: DistributeClient) -> None:
    """Each step starts what is due before it gives an item that is there already, so that a slow body costs little."""
    everyone = [emulator.add_task(life((5.0 + n % 2, "COMPLETED"))) for n in range(30)]
    began = now()
    async for _ in client.as_completed(everyone):
        await asyncio.sleep(0.1)
    assert now() - began == pytest.approx(6.0 + 30 * 0.1, abs=1.5)


@pytest.mark.looptime
@pytest.mark.parametrize("how", ["break", "drop", "aclose", "cancel"])
async def test_leaving_leaves_nothing(how: str) -> None:
    """After the loop was left nothing is asked any more; dropping the stream, or `aclose`, cuts what is under way."""
    async with (
        MisbehavingServer(*says("COMPLETED"), bad.silence()) as server,
        new_client(server.url, limits=Limits(exchange_timeout=1000.0)) as client,
    ):
        stream = client.as_completed(ids(20))
        if how == "cancel":
            await anext(stream)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await anext(stream)
        else:
            async for _ in stream:
                break
        requests = len(server.requests)
        if how == "aclose":
            await stream.aclose()
            assert_nothing_runs(client)
        elif how == "drop":
            del stream
        if how in {"break", "cancel"}:
            assert client.stats().exchanges == 19  # they may finish
            del stream
        await turns(10)
        gc.collect()
        await turns(10)
        assert_nothing_runs(client)
        await asyncio.sleep(500)
        assert len(server.requests) == requests


@pytest.mark.looptime
async def test_a_cancelled_step_loses_nothing(emulator: Emulator, client: DistributeClient) -> None:
    """A step may be given up and taken again: every outcome still comes, once."""
    everyone = [emulator.add_task(life((n + 0.5, "COMPLETED"))) for n in range(5)]
    stream = client.as_completed(everyone)
    found: list[Outcome[ChatResult]] = []
    while len(found) < 5:
        try:
            async with asyncio.timeout(0.3):
                found.append(await anext(stream))
        except TimeoutError:
            pass
    assert [outcome.task_id for outcome in found] == everyone
    assert await listed(stream) == []


@pytest.mark.looptime
async def test_closing_the_client_ends_the_stream(emulator: Emulator) -> None:
    """Closing gives each task that is followed its outcome; where there are more ids, the error is raised after it."""
    first, second = (emulator.add_task(life((0.5 + 100 * n, "COMPLETED"))) for n in range(2))

    def supply() -> Iterator[str]:
        yield from (first, second)
        yield from ids(10)

    client = DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND)
    stream = client.as_completed(supply(), window=2)
    asyncio.get_running_loop().call_later(0.2, lambda: asyncio.ensure_future(client.close()))
    ended = [await anext(stream), await anext(stream)]
    assert [type(outcome.error) for outcome in ended] == [ClientClosedError] * 2
    with pytest.raises(ClientClosedError):
        await anext(stream)


@pytest.mark.looptime
async def test_a_stream_is_for_one_loop(emulator: Emulator, client: DistributeClient) -> None:
    """Two loops over one stream at once are an error, which disturbs neither the stream nor the other loop."""
    stream = client.as_completed([emulator.add_task(life((2.5, "COMPLETED")))])
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(1)
    with pytest.raises(RuntimeError, match="iterated already"):
        await anext(stream)
    assert (await waiting).error is None


# Together with the rest.


@pytest.mark.looptime
async def test_one_poisonous_task_ends_nobody_else(emulator: Emulator) -> None:
    """A task whose polls fail for ever ends in its error at `max_outage`; the others neither end nor wait for it."""
    poisonous, *healthy = ids(30)
    behaviour = depends_on_task({poisonous: bad.status(500)}, good(body("COMPLETED")))
    retry = Retry(max_outage=20.0)
    async with MisbehavingServer(behaviour) as server, new_client(server.url, retry=retry) as client:
        began = now()
        async for outcome in client.as_completed([poisonous, *healthy]):
            if outcome.task_id == poisonous:
                assert now() - began == pytest.approx(20.0, abs=0.5)
                assert outcome.error is not None
            else:
                assert now() - began < 1
                assert outcome.error is None


@pytest.mark.looptime
async def test_a_stream_is_one_caller_while_it_is_suspended(emulator: Emulator, client: DistributeClient) -> None:
    """`stats().waiting` counts who is suspended: a stream once, however many tasks it follows, and not in its body."""
    everyone = [emulator.add_task(life((n + 0.5, "COMPLETED"))) for n in range(9)]
    stream, statuses = client.as_completed(everyone), client.watch(everyone[-1])
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.1)
    assert (client.stats().waiting, client.stats().tasks) == (1, 9)
    beside: list[asyncio.Future[Any]] = [asyncio.ensure_future(client.watch(everyone[-1])) for _ in range(3)]
    beside.append(asyncio.ensure_future(listed(client.watch_many(everyone[5:]))))
    await asyncio.sleep(0.1)
    assert (client.stats().waiting, client.stats().tasks) == (5, 9)
    await waiting
    await turns(2)
    assert (client.stats().waiting, client.stats().tasks) == (4, 8)
    assert await anext(statuses) == "QUEUED"
    assert client.stats().waiting == 4
    await asyncio.wait(beside)
    assert (client.stats().waiting, client.stats().tasks) == (0, 4)  # which the first stream minds still
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(client.watch(emulator.add_task(life())))
    assert client.stats().waiting == 0
    await stream.aclose()
    assert (client.stats().waiting, client.stats().tasks) == (0, 0)


async def calls_of(acting: Awaitable[object]) -> int:
    """How many Python functions are entered until it is done, those of generators included."""
    entered = 0

    def count_call(_frame: object, event: str, _argument: object) -> None:
        nonlocal entered
        entered += event == "call"

    sys.setprofile(count_call)
    try:
        await acting
    finally:
        sys.setprofile(None)
    return entered


@pytest.mark.looptime
async def test_ending_a_stream_does_not_look_at_others() -> None:
    """What it takes to end a stream depends on its own tasks, and not on how many others the client follows."""

    async def end_one(others: int) -> int:
        first, *rest = ids(others + 1)
        async with MisbehavingServer(bad.silence()) as server, new_client(server.url) as client:
            reading = asyncio.ensure_future(listed(client.as_completed(rest)))
            stream = client.as_completed([first])
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.1)
            assert client.stats().tasks == others + 1
            waiting.cancel()
            await asyncio.wait([waiting])
            entered = await calls_of(stream.aclose())
            assert client.stats().tasks == others
            reading.cancel()
            await asyncio.wait([reading])
            return entered

    assert await end_one(2_000) < await end_one(100) + 500


class Ears(Observer):
    """Writes down how waits begin and end."""

    def __init__(self) -> None:
        self.started: list[str | None] = []
        self.ended: list[tuple[str | None, str]] = []

    def wait_started(self, wait: ObservedWait) -> None:
        self.started.append(wait.task_id)

    def wait_ended(self, wait: ObservedWait, ending: ObservedEnding) -> None:
        self.ended.append((wait.task_id, ending.outcome))


@pytest.mark.looptime
async def test_an_observer_hears_of_each_task(emulator: Emulator) -> None:
    """To telemetry each task of a stream is a wait: it ends with its result, its error, or when the stream is left."""
    done = emulator.add_task(life((0.5, "COMPLETED")))
    failed = emulator.add_task(life((1.5, "ERROR")))
    running = emulator.add_task(life())
    ears = Ears()
    async with DistributeClient(
        emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND, observer=ears
    ) as client:
        stream = client.as_completed([done, failed, running])
        await anext(stream)
        await anext(stream)
        assert ears.started == [done, failed, running]
        assert ears.ended == [(done, "result"), (failed, "error")]
        await stream.aclose()
        assert ears.ended[2:] == [(running, "left")]


@pytest.mark.looptime
@pytest.mark.parametrize("first", [[0, 1], [2, 3], [5, 4], [0, 5], [3, 1, 4], [5, 0, 4, 1, 3, 2]], ids=str)
async def test_closing_leaves_those_that_are_left(first: list[int], emulator: Emulator) -> None:
    """Whichever tasks of a stream have ended, and in whatever order, closing it leaves each of the others once."""
    ends = {n: turn + 0.5 for turn, n in enumerate(first)}
    everyone = [emulator.add_task(life((ends.get(n, 1000.0), "COMPLETED"))) for n in range(6)]
    ears = Ears()
    async with DistributeClient(
        emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND, observer=ears
    ) as client:
        stream = client.as_completed(everyone)
        assert [(await anext(stream)).task_id for _ in first] == [everyone[n] for n in first]
        await stream.aclose()
        assert client.stats().tasks == stream.progress.waiting == 0
    left = sorted(set(everyone) - {everyone[n] for n in first})
    assert ears.ended[: len(first)] == [(everyone[n], "result") for n in first]
    assert sorted(ears.ended[len(first) :]) == [(task_id, "left") for task_id in left]


@pytest.mark.looptime
async def test_many_async_ids_at_once_do_not_hold_up_the_loop(client: DistributeClient) -> None:
    """A supply that never waits itself lets others have their turns, and all of its ids are taken."""
    supplied = 0
    seen = []

    async def supply() -> AsyncIterator[str]:
        nonlocal supplied
        for task_id in ids(550):
            supplied += 1
            yield task_id

    async def look_on() -> None:
        while supplied < 550:
            seen.append(supplied)
            await asyncio.sleep(0)

    looking_on = asyncio.create_task(look_on())
    assert len(await listed(client.as_completed(supply(), timeout=5.0))) == 550
    await looking_on
    assert all(later - earlier <= 100 for earlier, later in pairwise([*seen, supplied]))


@pytest.mark.looptime
async def test_a_long_list_does_not_hold_up_the_loop(client: DistributeClient) -> None:
    """Ids that are all there at once are taken a hundred at a time, and others have their turns between."""
    taken = 0
    seen = []

    def source() -> Iterator[str]:
        nonlocal taken
        for task_id in ids(550):
            taken += 1
            yield task_id

    async def look_on() -> None:
        while taken < 550:
            seen.append(taken)
            await asyncio.sleep(0)

    looking_on = asyncio.create_task(look_on())
    await asyncio.sleep(0)
    assert len(await listed(client.as_completed(source(), timeout=5.0))) == 550
    await looking_on
    assert all(later - earlier <= 100 for earlier, later in pairwise([*seen, taken]))


@pytest.mark.looptime
async def test_a_step_minds_only_what_came_due_since_the_last(emulator: Emulator, client: DistributeClient) -> None:
    """What a step takes doesn't grow with the steps before it."""
    restless = [(2.0 * n, ("QUEUED", "POSTPONED")[n % 2]) for n in range(200)]
    stream = client.watch_many([emulator.add_task(restless) for _ in range(5)])
    taken = []
    for _ in range(40):
        await anext(stream)
        await asyncio.sleep(5)  # the others' changes come in, and their next polls come due
        taken.append(await calls_of(anext(stream)))
    await stream.aclose()
    assert max(taken[30:]) <= 2 * max(taken[:10])


@pytest.mark.looptime
async def test_a_task_that_is_late_at_once_ends_once(emulator: Emulator, client: DistributeClient) -> None:
    """Beside others who know the task already, one that is given no time has one outcome: that its time is up."""
    task_id = emulator.add_task(life())
    beside = client.watch(task_id)
    assert await anext(beside) == "QUEUED"
    for follow in (client.as_completed, client.watch_many):
        stream: TaskStream[Any] = follow([task_id], timeout=0)
        *_, last = items = await listed(stream)
        assert isinstance(last.error, WaitTimeoutError)
        assert [item.error for item in items[:-1]] == [None] * (len(items) - 1)
        assert (stream.progress.waiting, stream.progress.failed) == (0, 1)


@pytest.mark.looptime
async def test_progress(emulator: Emulator, client: DistributeClient) -> None:
    """`progress` tells what waits, what is done, how many polls it took, and when it will be over at this rate."""
    everyone = [emulator.add_task(life((2.0 * n + 1.5, "ERROR" if n == 0 else "COMPLETED"))) for n in range(4)]
    stream = client.as_completed(everyone)
    fresh = stream.progress
    assert (fresh.waiting, fresh.done, fresh.failed, fresh.polls, fresh.rate, fresh.eta) == (0, 0, 0, 0, 0.0, None)
    await anext(stream)
    await anext(stream)
    progress = stream.progress
    assert (progress.waiting, progress.done, progress.failed) == (2, 1, 1)
    assert progress.polls == len(emulator.requests)
    assert progress.rate == pytest.approx(2 / 4.0, rel=0.01)
    assert progress.eta == pytest.approx(4.0, rel=0.01)
    await listed(stream)
    assert (stream.progress.waiting, stream.progress.done, stream.progress.eta) == (0, 3, 0.0)
    assert "done=3" in repr(stream)
    progress_polls = len(emulator.requests)
    endless = client.as_completed(iter(everyone))
    await anext(endless)
    assert endless.progress.eta is None
    assert endless.progress.polls == len(emulator.requests) - progress_polls
    await endless.aclose()


@pytest.mark.looptime
async def test_the_module_level_streams(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a client in hand the streams use the environment's, and close what they opened."""
    monkeypatch.setenv("DISTRIBUTE_API_KEY", emulator.api_key)
    monkeypatch.setenv("DISTRIBUTE_BASE_URL", emulator.base_url)
    task_id = emulator.add_task(life((0.5, "COMPLETED")))
    [outcome] = await listed(distribute_async.as_completed([task_id]))
    assert outcome.error is None
    changes = await listed(distribute_async.watch_many([task_id]))
    assert [change.status for change in changes] == ["COMPLETED"]
    async for _ in distribute_async.watch_many([emulator.add_task(life())]):
        break
    await turns(20)
    assert tasks() == set()
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url) as client:
        [outcome] = await listed(distribute_async.as_completed([task_id], client=client))
        assert len(await listed(distribute_async.watch_many([task_id], client=client))) == 1
        assert client.stats().polls == 2
    monkeypatch.delenv("DISTRIBUTE_API_KEY")
    with pytest.raises(ConfigurationError, match="DISTRIBUTE_API_KEY"):
        await anext(distribute_async.as_completed([task_id]))


@pytest.mark.looptime
async def test_a_budget_that_is_too_small_stretches_all_alike(emulator: Emulator) -> None:
    """Under a budget the polls of no task lie further apart than twice what each one's share of it is."""
    tasks_, budget = 40, 4.0
    everyone = [emulator.add_task(life((100.0, "COMPLETED"))) for _ in range(tasks_)]
    limits = Limits(max_requests_per_second=budget)
    async with DistributeClient(
        emulator.api_key, base_url=emulator.base_url, limits=limits, pacing=EVERY_SECOND
    ) as client:
        await listed(client.as_completed(everyone))
    times = [request.time for request in emulator.requests]
    assert all(later - earlier >= 1 / budget - 1e-6 for earlier, later in pairwise(times))
    for task_id in everyone:
        own = [request.time for request in emulator.requests if request.task_id == task_id]
        assert max(later - earlier for earlier, later in pairwise(own)) <= 2 * tasks_ / budget


@pytest.mark.looptime(noop_cycles=0)
async def test_what_has_ended_leaves_nothing_behind() -> None:
    """Of an endless supply only the window is kept."""
    finished = json.dumps(body("COMPLETED")).encode()

    async def answer() -> bytes:
        await asyncio.sleep(0.1)
        return finished

    def supply() -> Iterator[str]:
        for n in range(20_000):
            yield f"{n:08x}-0000-4000-8000-000000000000"

    before, sizes = live_subscriptions(), []
    with exchanges_answered_by(answer):
        async with DistributeClient(KEY, base_url="https://service.example", pacing=RARELY) as client:
            done = 0
            async for _ in client.as_completed(supply(), window=1_000):
                done += 1
                if done % 5_000 == 0:
                    sizes.append(live_subscriptions())
    assert done == 20_000
    assert max(sizes) - before <= 1_000
