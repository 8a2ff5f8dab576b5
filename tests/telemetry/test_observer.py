"""What an observer is told of waits and exchanges, and that it can't harm them."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from distribute_async import (
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    DistributeClient,
    DistributeError,
    NotFoundError,
    ObservedWait,
    Observer,
    RateLimitError,
    Retry,
    TaskFailedError,
    WaitTimeoutError,
)
from distribute_async.emulator import Emulator
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.telemetry.conftest import Recorder, client_of
from tests.waiting import ID, KEY, OTHER_ID, assert_nothing_runs, body, caught, listed, new_client, says, turns

# Waits.


@pytest.mark.looptime
async def test_a_wait_is_told_from_its_start_to_its_result(emulator: Emulator, recorder: Recorder) -> None:
    """An observer hears the start, each new status and the result, with what they took and cost."""
    task_id = emulator.add_task([(0, "CREATED"), (3, "QUEUED"), (9, "COMPLETED")])
    async with client_of(emulator, observer=recorder) as client:
        result = await client.wait_for_result(task_id)
    assert recorder.told == [("started", 0), ("CREATED", 0), ("QUEUED", 0), ("COMPLETED", 0), ("result", 0)]
    (wait,) = recorder.waits
    assert (wait.kind, wait.task_id, wait.is_fetch, wait.started) == ("chat", task_id, False, 0.0)
    assert f"http://{wait.server_address}:{wait.server_port}" == emulator.base_url
    (ending,) = recorder.endings
    assert ending.result is result
    assert ending.error is None
    assert ending.elapsed == pytest.approx(9.0, abs=0.1)
    assert ending.polls == ending.attempts == len(emulator.requests) == len(recorder.exchanges)
    assert ending.interval == pytest.approx(1.0, abs=0.1)


ENDINGS: dict[str, tuple[list[Behaviour], type[DistributeError]]] = {
    "failed": (says("ERROR"), TaskFailedError),
    "timeout": (says("QUEUED"), WaitTimeoutError),
    "refused": ([bad.status(401)], AuthenticationError),
    "missing": ([bad.status(404)], NotFoundError),
    "a pause that is longer than the wait": ([bad.status(429, Retry_After="200")], RateLimitError),
}


@pytest.mark.looptime
@pytest.mark.parametrize(("script", "kind"), ENDINGS.values(), ids=ENDINGS)
async def test_a_wait_may_end_in_an_error(
    script: list[Behaviour], kind: type[DistributeError], recorder: Recorder
) -> None:
    """The error that a wait ends in is told as it is raised; a second await tells nothing more."""
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=recorder, timeout=10) as client:
        watch = client.watch(ID)
        await caught(watch, kind)
        await caught(watch, kind)
    assert recorder.told[0] == ("started", 0)
    assert recorder.told[-1] == ("error", 0)
    (ending,) = recorder.endings
    assert type(ending.error) is kind
    assert ending.error.task_id == ID


@pytest.mark.looptime
@pytest.mark.parametrize("last", ["COMPLETED", "ERROR"])
@pytest.mark.parametrize("breaks", [False, True])
async def test_an_iteration_ends_with_its_last_status(last: str, breaks: bool, recorder: Recorder) -> None:
    """A loop is over with the terminal status, whether it comes back for more or not; ERROR is an error there too."""
    async with (
        MisbehavingServer(*says("QUEUED", last)) as server,
        new_client(server.url, observer=recorder) as client,
    ):
        watch = client.watch(ID)
        async for status in watch:
            if breaks and status.is_terminal:
                break
        assert recorder.told[-1] == ("result" if last == "COMPLETED" else "error", 0)
        if last == "COMPLETED":
            await watch
        else:
            assert isinstance(recorder.endings[0].error, TaskFailedError)
            await caught(watch, TaskFailedError)
    assert recorder.told[:-1] == [("started", 0), ("QUEUED", 0), (last, 0)]


@pytest.mark.looptime
async def test_closing_the_client_ends_its_waits(recorder: Recorder) -> None:
    """A wait whose client is closed ends in that error, and its exchange was cut."""
    async with MisbehavingServer(bad.silence()) as server:
        client = new_client(server.url, observer=recorder)
        waiting = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(1)
        await client.close()
        await caught(waiting, ClientClosedError)
    assert recorder.told == [("started", 0), ("error", 0)]
    assert isinstance(recorder.endings[0].error, ClientClosedError)
    assert [exchange.fault for exchange in recorder.exchanges] == ["cut"]


@pytest.mark.looptime
async def test_a_fetch_is_a_wait_of_one_poll(recorder: Recorder) -> None:
    """A fetch is a wait too, ends with a result whatever the status, and never with the end of a task."""
    async with MisbehavingServer(*says("ERROR")) as server, new_client(server.url, observer=recorder) as client:
        await client.fetch(ID)
    assert recorder.told == [("started", 0), ("ERROR", 0), ("result", 0)]
    assert recorder.waits[0].is_fetch
    assert [exchange.is_last for exchange in recorder.exchanges] == [False]


@pytest.mark.looptime
async def test_a_cancelled_wait_ends_and_another_may_begin(recorder: Recorder) -> None:
    """Cancelling ends a wait; awaiting the same watch again is another one, which is told the newest status first."""
    async with (
        MisbehavingServer(*says("QUEUED", "QUEUED", "COMPLETED")) as server,
        new_client(server.url, observer=recorder) as client,
    ):
        watch = client.watch(ID)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch, 0.5)
        assert recorder.told == [("started", 0), ("QUEUED", 0), ("cancelled", 0)]
        await watch
    assert recorder.told[3:] == [("started", 1), ("QUEUED", 1), ("COMPLETED", 1), ("result", 1)]
    assert [ending.polls for ending in recorder.endings] == [1, 2]
    assert recorder.waits[1].started == 0.5


@pytest.mark.looptime
async def test_a_watch_that_several_await_is_one_wait(recorder: Recorder) -> None:
    """One watch awaited twice at once is one wait, which goes on while one of the two is left."""
    async with (
        MisbehavingServer(*says("QUEUED", "QUEUED", "COMPLETED")) as server,
        new_client(server.url, observer=recorder) as client,
    ):
        watch = client.watch(ID)
        leaving, staying = (asyncio.ensure_future(watch) for _ in range(2))
        await asyncio.sleep(0.5)
        leaving.cancel()
        await staying
    assert recorder.told == [("started", 0), ("QUEUED", 0), ("COMPLETED", 0), ("result", 0)]


@pytest.mark.looptime
async def test_a_loop_that_is_left_is_noticed_when_its_watch_is_dropped(recorder: Recorder) -> None:
    """After `break` the wait goes on for the observer until the watch is gone, and then was left."""
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, observer=recorder) as client:
        watch = client.watch(ID)
        async for _ in watch:
            break
        await asyncio.sleep(5)
        assert recorder.told == [("started", 0), ("QUEUED", 0)]
        del watch
        await turns(2)
        assert recorder.told[2:] == [("left", 0)]
        assert recorder.endings[0].elapsed == pytest.approx(5.0, abs=0.1)
        assert recorder.endings[0].error is None
        assert_nothing_runs(client)


@pytest.mark.looptime
@pytest.mark.parametrize(("statuses", "last"), [(2, ("left", 0)), (3, ("result", 0))])
async def test_a_slow_reader_s_wait_goes_on_while_there_is_more_to_tell(
    statuses: int, last: tuple[str, int], recorder: Recorder
) -> None:
    """Where others have seen the end already, a reader that is behind isn't at its own, and may still leave."""
    async with (
        MisbehavingServer(*says("CREATED", "QUEUED", "COMPLETED")) as server,
        new_client(server.url, observer=recorder) as client,
    ):
        watch = client.watch(ID)
        assert await anext(watch) == "CREATED"
        await client.wait_for_result(ID)
        for _ in range(statuses - 1):
            await anext(watch)
        del watch
        await turns(2)
        assert recorder.told[-2:] == [("result", 1), last]


@pytest.mark.looptime
async def test_a_watch_may_be_dropped_in_another_thread(recorder: Recorder) -> None:
    """Wherever the garbage collector finds a watch that was left, the observer is told on the loop's thread."""
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, observer=recorder) as client:
        watch = client.watch(ID)
        await anext(watch)
        cycle: list[Any] = [watch]
        cycle.append(cycle)
        gc.disable()
        try:
            del watch, cycle
            thread = threading.Thread(target=gc.collect)
            thread.start()
            thread.join()
        finally:
            gc.enable()
        assert recorder.endings == []
        await turns(2)
        assert recorder.told[-1] == ("left", 0)  # the recorder itself checks for the loop's thread


def test_a_watch_may_outlive_its_loop(recorder: Recorder) -> None:
    """A watch that is dropped after its loop was closed is dropped in silence."""

    async def leave() -> Any:
        async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, observer=recorder) as client:
            watch = client.watch(ID)
            await anext(watch)
            return watch

    asyncio.run(leave())
    gc.collect()
    assert recorder.told == [("started", 0), ("QUEUED", 0)]


@pytest.mark.looptime
async def test_many_waits_share_one_poll_sequence(emulator: Emulator, recorder: Recorder) -> None:
    """Fifty waits on one task are fifty waits to an observer, and the exchanges are told once."""
    task_id = emulator.add_task([(0, "CREATED"), (5, "COMPLETED")])
    async with client_of(emulator, observer=recorder) as client:
        await asyncio.gather(*(client.wait_for_result(task_id) for _ in range(50)))
    for what in ("started", "CREATED", "COMPLETED", "result"):
        assert sorted(told[1] for told in recorder.told if told[0] == what) == list(range(50))
    assert len(recorder.exchanges) == len(emulator.requests)
    assert [exchange.is_last for exchange in recorder.exchanges].count(True) == 1
    assert {ending.polls for ending in recorder.endings} == {len(emulator.requests)}


@pytest.mark.looptime
async def test_one_that_joins_is_told_the_newest_status(recorder: Recorder) -> None:
    """A wait that joins another hears the newest status at once, also where the task is over already."""
    async with (
        MisbehavingServer(*says("CREATED", "QUEUED", "COMPLETED")) as server,
        new_client(server.url, observer=recorder) as client,
    ):
        first = asyncio.create_task(listed(watch := client.watch(ID)))
        await asyncio.sleep(1.5)
        await client.wait_for_result(ID)
        await client.wait_for_result(ID)
        await first
        assert watch.status == "COMPLETED"
    assert [what for what, which in recorder.told if which == 1] == ["started", "QUEUED", "COMPLETED", "result"]
    assert [what for what, which in recorder.told if which == 2] == ["started", "COMPLETED", "result"]
    assert [ending.polls for ending in recorder.endings if ending.elapsed == 0] == [0]


# Exchanges.


@pytest.mark.looptime
async def test_each_exchange_is_told_with_what_it_came_to(recorder: Recorder) -> None:
    """An exchange has its attempt's number, a code or one word, and the interval between good ones."""
    script = [*says("QUEUED"), bad.status(500), bad.raw_and_close(b"HTTP/1.1 200 OK\r\n"), *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=recorder) as client:
        await client.wait_for_result(ID)
    assert [(told.attempt, told.status_code, told.fault) for told in recorder.exchanges] == [
        (1, 200, None),
        (2, 500, "500"),
        (3, None, "disconnected"),
        (4, 200, None),
    ]
    assert [told.is_last for told in recorder.exchanges] == [False, False, False, True]
    first, second, third, last = recorder.exchanges
    assert first.interval is second.interval is third.interval is None
    assert last.interval == pytest.approx(server.times[3] - server.times[0], abs=0.05)
    assert recorder.endings[0].interval == last.interval
    assert (recorder.endings[0].polls, recorder.endings[0].attempts) == (2, 4)
    assert {(told.kind, told.task_id, told.is_probe) for told in recorder.exchanges} == {("chat", ID, False)}
    assert all(0 <= told.seconds < 0.1 for told in recorder.exchanges)


@pytest.mark.looptime
async def test_an_exchange_takes_its_own_time(recorder: Recorder) -> None:
    """The seconds of an exchange are those between its start and its end, however it ends; an interval begins there."""
    slowly = bad.pause(2.0)
    script = [bad.in_turn(slowly, bad.good(body("QUEUED"))), bad.in_turn(slowly, bad.close), *says("QUEUED")]
    async with MisbehavingServer(*script, bad.silence()) as server, new_client(server.url, observer=recorder) as client:
        await caught(client.wait_for_result(ID, timeout=20), WaitTimeoutError)
    assert [told.fault for told in recorder.exchanges] == [None, "stale", None, "cut"]
    seconds = [told.seconds for told in recorder.exchanges]
    assert seconds == pytest.approx([2.0, 2.0, 0.0, 20.0 - server.times[3]], abs=0.05)
    assert recorder.exchanges[2].interval == pytest.approx(server.times[2] - server.times[0], abs=0.05)


@pytest.mark.looptime
async def test_an_exchange_that_is_repeated_at_once_is_told_too(recorder: Recorder) -> None:
    """Each request is told, that on a stale connection too, though it doesn't count as an attempt."""
    script = [*says("QUEUED"), bad.close, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=recorder) as client:
        await client.wait_for_result(ID)
    assert [(told.attempt, told.fault) for told in recorder.exchanges] == [(1, None), (2, "stale"), (2, None)]
    assert len(server.requests) == 3


@pytest.mark.looptime
async def test_pauses_and_outages_are_told(recorder: Recorder) -> None:
    """An observer hears of a pause once, of an outage as it begins, of the probes, and of the return."""
    script = [bad.status(429, Retry_After="20"), *[bad.status(502)] * 7, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=recorder) as client:
        await client.wait_for_result(ID)
    began = server.times[1]
    assert recorder.told == [
        ("started", 0),
        ("paused", 20.0),
        ("down", None),
        ("up", pytest.approx(server.times[-1] - began, abs=0.05)),
        ("COMPLETED", 0),
        ("result", 0),
    ]
    assert [told.is_probe for told in recorder.exchanges] == [False] * 6 + [True] * 3


@pytest.mark.looptime
async def test_a_pause_within_a_pause_is_not_told(recorder: Recorder) -> None:
    """Where several exchanges under way are told to pause, that is one pause."""
    script = [bad.in_turn(bad.pause(1.0), bad.status(503, Retry_After="10"))] * 2
    async with (
        MisbehavingServer(*script, *says("COMPLETED")) as server,
        new_client(server.url, observer=recorder) as client,
    ):
        await asyncio.gather(client.wait_for_result(ID), client.wait_for_result(OTHER_ID))
    assert [told for told in recorder.told if told[0] == "paused"] == [("paused", 10.0)]


@pytest.mark.looptime
async def test_a_pause_is_told_as_it_is_obeyed(recorder: Recorder) -> None:
    """Of a pause beyond all measure an observer hears how long of it the client obeys."""
    script = [bad.status(429, Retry_After="200"), *says("COMPLETED")]
    async with (
        MisbehavingServer(*script) as server,
        new_client(server.url, observer=recorder, retry=Retry(max_retry_after=15.0)) as client,
    ):
        await caught(client.wait_for_result(ID), RateLimitError)
    assert recorder.told == [("started", 0), ("paused", 15.0), ("error", 0)]


# Headers.


@pytest.mark.looptime
async def test_an_observer_may_add_headers(recorder: Recorder) -> None:
    """What an observer gives goes out with each request, and it is told the waits that this serves, oldest first."""
    recorder.headers = {"x-trace": "abc"}
    async with (
        MisbehavingServer(*says("QUEUED", "COMPLETED")) as server,
        new_client(server.url, observer=recorder, headers={"x-own": "mine"}) as client,
    ):
        await asyncio.gather(client.wait_for_result(ID), client.wait_for_result(ID))
    assert [request.header("x-trace") for request in server.requests] == [["abc"]] * 2
    assert [request.header("x-own") for request in server.requests] == [["mine"]] * 2
    assert [request.header("authorization") for request in server.requests] == [[KEY]] * 2
    assert recorder.served == [tuple(recorder.waits)] * 2


@pytest.mark.looptime
@pytest.mark.parametrize(
    "headers", [{"Authorization": "mine"}, {"x": "a\r\nb"}, {"x": 5}, {"host": "other"}, ["x"], 5], ids=str
)
async def test_headers_that_may_not_be_added_are_not(
    headers: Any, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """An observer can't replace the key or smuggle a header in: the request goes out without what it gave."""
    recorder.headers = headers
    async with (
        MisbehavingServer(*says("QUEUED", "COMPLETED")) as server,
        new_client(server.url, observer=recorder) as client,
    ):
        await client.wait_for_result(ID)
    assert [request.header("authorization") for request in server.requests] == [[KEY]] * 2
    assert [request.header("x") for request in server.requests] == [[]] * 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# Observers that do harm.

METHODS = [name for name in vars(Observer) if not name.startswith("_")]


def broken(name: str, error: Exception) -> Observer:
    def fail(*arguments: Any) -> None:
        raise error

    fail.__name__ = name
    observer: Observer = type("Broken", (Observer,), {name: fail})()
    return observer


@pytest.mark.looptime
@pytest.mark.parametrize("name", METHODS)
async def test_an_observer_that_raises_breaks_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an observer's method raises is logged once for a client, and every wait goes on as if it had not."""
    script = [
        *says("CREATED"),
        *[bad.status(502)] * 6,
        *says("QUEUED"),
        *[bad.status(502)] * 6,
        bad.status(429, Retry_After="5"),
        bad.in_turn(bad.pause(30.0), bad.good(body("PROCESSING"))),
        *says("COMPLETED"),
    ]
    told = []
    for observer in (None, broken(name, ValueError("a mistake"))):
        async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
            waiting = asyncio.create_task(client.wait_for_result(ID))
            statuses = await listed(client.watch(ID))
            await waiting
            left = client.watch(OTHER_ID)
            async for _ in left:
                break
            del left
            await turns(2)
            assert_nothing_runs(client)
            told.append((statuses, len(server.requests), client.stats()))
    assert told[0] == told[1]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info is not None and record.exc_info[0] for record in errors] == [ValueError]
    assert name in errors[0].getMessage()


async def test_an_observer_is_an_observer() -> None:
    """What is no `Observer` is refused as the client is made."""
    with pytest.raises(ConfigurationError, match="observer"):
        DistributeClient(KEY, observer=print)  # type: ignore[arg-type]


@pytest.mark.looptime
async def test_the_start_is_told_in_the_context_of_the_caller() -> None:
    """An observer finds the context variables of whoever waits as a wait starts."""
    from contextvars import ContextVar

    whose: ContextVar[str] = ContextVar("whose")
    seen = []

    class Curious(Observer):
        def wait_started(self, wait: ObservedWait) -> None:
            seen.append(whose.get())

        def request_headers(self, waits: tuple[ObservedWait, ...]) -> Mapping[str, str]:
            seen.append(whose.get("nobody"))
            return {}

    async def wait(name: str) -> None:
        whose.set(name)
        await client.wait_for_result(ID)

    async with MisbehavingServer(*says("COMPLETED")) as server, new_client(server.url, observer=Curious()) as client:
        await asyncio.gather(wait("one"), wait("two"))
    assert seen in (["one", "two", "nobody"], ["one", "nobody", "two"])
