"""The module-level functions: what they share on one event loop, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from distribute_async import (
    ChatResult,
    ClientClosedError,
    ConfigurationError,
    DistributeClient,
    InvalidTaskIdError,
    NotFoundError,
    TaskFailedError,
    WaitTimeoutError,
    Watch,
    as_completed,
    fetch,
    wait_for_result,
    watch,
    watch_many,
)
from distribute_async.emulator import Emulator
from tests import misbehaving as bad
from tests.api.test_crowds import depends_on_task
from tests.misbehaving import MisbehavingServer
from tests.seams import has_shared_client, shared_clients
from tests.waiting import (
    ID,
    KEY,
    OTHER_ID,
    assert_silence,
    body,
    caught,
    connections_at,
    ids,
    listed,
    now,
    says,
    tasks,
    timers,
    turns,
)

LIFE = [(0, "CREATED"), (5, "QUEUED"), (30, "COMPLETED")]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings but the test's own, and no client left over."""
    monkeypatch.delenv("DISTRIBUTE_API_KEY", raising=False)
    monkeypatch.delenv("DISTRIBUTE_BASE_URL", raising=False)
    yield
    gc.collect()
    assert shared_clients() == []


@pytest.fixture
def goes_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[Emulator | MisbehavingServer], None]:
    """Sets the environment so that the calls go to a server."""

    def set_environment(server: Emulator | MisbehavingServer) -> None:
        monkeypatch.setenv("DISTRIBUTE_API_KEY", server.api_key if isinstance(server, Emulator) else KEY)
        monkeypatch.setenv("DISTRIBUTE_BASE_URL", server.base_url if isinstance(server, Emulator) else server.url)

    return set_environment


GoesTo = Callable[[Emulator | MisbehavingServer], None]


async def assert_nothing_is_left(server: MisbehavingServer) -> None:
    """No asyncio task, timer or connection of the library is left, and nothing more is asked."""
    assert tasks() == set()
    assert timers() == []
    await turns(10)  # the server's own, to see that its connections are closed
    assert connections_at(server) == 0
    await assert_silence(server, 30.0)


# What they do.


@pytest.mark.looptime
async def test_a_task_is_followed_without_a_client(emulator: Emulator, goes_to: GoesTo) -> None:
    """With the environment set, the three functions need nothing but the id."""
    goes_to(emulator)
    task_id = emulator.add_task(LIFE, text="yes")
    assert (await fetch(task_id)).status == "CREATED"
    assert await listed(watch(task_id)) == ["CREATED", "QUEUED", "COMPLETED"]
    assert (await wait_for_result(task_id)).text == "yes"
    assert (await watch(task_id)).text == "yes"
    await caught(wait_for_result(emulator.add_task([(0, "ERROR")])), TaskFailedError)
    await caught(fetch(ID), NotFoundError)


@pytest.mark.looptime
async def test_settings_are_read_at_the_first_await(emulator: Emulator, goes_to: GoesTo) -> None:
    """Making a watch needs no environment and no loop; the first wait reads it, and says what is missing in it."""
    task_id = emulator.add_task(LIFE)
    early = watch(task_id)
    for call in (wait_for_result(task_id), fetch(task_id), watch(task_id), anext(watch(task_id))):
        error = await caught(call, ConfigurationError)
        assert "DISTRIBUTE_API_KEY" in str(error)
    goes_to(emulator)
    assert (await early).text


@pytest.mark.looptime
async def test_ids_and_timeouts_are_checked_at_the_call(emulator: Emulator, goes_to: GoesTo) -> None:
    """What can't work is refused by the call itself, before the environment is even looked at."""
    with pytest.raises(InvalidTaskIdError):
        watch("no id")
    with pytest.raises(ConfigurationError, match="timeout"):
        watch(ID, timeout=-1)
    for call in (wait_for_result("no id"), fetch("no id")):
        await caught(call, InvalidTaskIdError)
    goes_to(emulator)
    task_id = emulator.add_task([(0, "QUEUED")])
    began = now()
    await caught(wait_for_result(task_id, timeout=3), WaitTimeoutError)
    assert now() - began == pytest.approx(3, abs=0.05)
    await caught(wait_for_result(task_id), WaitTimeoutError)
    assert now() - began == pytest.approx(603, abs=0.1)


@pytest.mark.looptime
async def test_a_client_may_be_given(emulator: Emulator, client: DistributeClient) -> None:
    """With `client=` the calls are that client's, its timeout too, and no other client is made."""
    task_id = emulator.add_task(LIFE)
    results = await asyncio.gather(
        wait_for_result(task_id, client=client), watch(task_id, client=client), client.wait_for_result(task_id)
    )
    assert results[0] is results[1] is results[2]
    assert (await fetch(task_id, client=client)).text
    assert not has_shared_client(asyncio.get_running_loop())
    hasty = DistributeClient(emulator.api_key, base_url=emulator.base_url, timeout=2)
    began = now()
    await caught(watch(emulator.add_task([(0, "QUEUED")]), client=hasty), WaitTimeoutError)
    assert now() - began == pytest.approx(2, abs=0.05)
    await hasty.close()
    await caught(wait_for_result(task_id, client=hasty), ClientClosedError)


def test_what_kind_of_functions_they_are() -> None:
    """`wait_for_result` and `fetch` are coroutine functions; `watch` is not, and its watch is no coroutine."""
    assert inspect.iscoroutinefunction(wait_for_result)
    assert inspect.iscoroutinefunction(fetch)
    assert not inspect.iscoroutinefunction(watch)
    unused = watch(ID)
    assert isinstance(unused, Watch)
    assert inspect.isawaitable(unused)
    assert not asyncio.iscoroutine(unused)


@pytest.mark.looptime
async def test_asyncios_ways_of_waiting(emulator: Emulator, goes_to: GoesTo) -> None:
    """Watches and calls work in `gather`, `wait_for`, `as_completed`, `ensure_future`, `timeout` and `TaskGroup`."""
    goes_to(emulator)
    task_id = emulator.add_task(LIFE)
    first, second = await asyncio.gather(watch(task_id), wait_for_result(task_id))
    assert first is second
    assert (await asyncio.wait_for(watch(task_id), 60)).text
    for done in asyncio.as_completed([watch(task_id), watch(task_id)]):
        assert (await done).text
    assert (await asyncio.ensure_future(watch(task_id))).text
    async with asyncio.timeout(60):
        assert (await watch(task_id)).text
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait_for_result(task_id))
    assert isinstance(waiting.result(), ChatResult)


@pytest.mark.looptime
async def test_a_failing_task_ends_its_task_group(emulator: Emulator, goes_to: GoesTo) -> None:
    """In a `TaskGroup` the error of one call cancels its siblings, as with any coroutine."""
    goes_to(emulator)
    failing = emulator.add_task([(0, "QUEUED"), (1, "ERROR")])
    endless = emulator.add_task([(0, "QUEUED")])
    calls: list[asyncio.Task[ChatResult]] = []

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            calls.extend(group.create_task(wait_for_result(task_id, timeout=None)) for task_id in (endless, failing))

    with pytest.raises(ExceptionGroup) as raised:
        await together()
    assert [type(error) for error in raised.value.exceptions] == [TaskFailedError]
    assert calls[0].cancelled()


# What they share.


@pytest.mark.looptime
async def test_a_hundred_calls_share_polls_and_connections(goes_to: GoesTo) -> None:
    """A hundred calls at once on one id make one poll sequence over one connection."""
    async with MisbehavingServer(*says("CREATED", "CREATED", "QUEUED", "COMPLETED")) as server:
        goes_to(server)
        calls: list[Awaitable[ChatResult]] = [wait_for_result(ID) for _ in range(50)]
        calls += [watch(ID) for _ in range(50)]
        results = await asyncio.gather(*calls)
        assert [result is results[0] for result in results] == [True] * 100
        assert (len(server.requests), server.connections) == (4, 1)
        await assert_nothing_is_left(server)


@pytest.mark.looptime
async def test_different_tasks_share_connections(goes_to: GoesTo) -> None:
    """Twenty calls on twenty ids, fifty polls each, use no more connections than there are polls at once."""
    async with MisbehavingServer(*says(*["QUEUED"] * 1_000, "COMPLETED")) as server:
        goes_to(server)
        await asyncio.gather(*(wait_for_result(task_id) for task_id in ids(20)))
        assert len(server.requests) > 1_000
        assert server.connections <= 20
        await assert_nothing_is_left(server)


@pytest.mark.looptime
async def test_a_pause_holds_back_all_calls(goes_to: GoesTo) -> None:
    """A Retry-After that one call received holds back the others of its event loop too."""
    async with MisbehavingServer(bad.status(429, Retry_After="20"), *says("COMPLETED")) as server:
        goes_to(server)
        first = asyncio.create_task(wait_for_result(ID))
        await asyncio.sleep(1)
        await asyncio.gather(first, wait_for_result(OTHER_ID))
        assert [at >= 20.0 for at in server.times] == [False, True, True]
        await assert_nothing_is_left(server)


@pytest.mark.looptime
async def test_a_late_call_joins(goes_to: GoesTo) -> None:
    """A call that comes while another one waits on the same id gets what is known, without a request."""
    async with MisbehavingServer(*says("QUEUED"), bad.in_turn(bad.pause(9.0), *says("COMPLETED"))) as server:
        goes_to(server)
        first = asyncio.create_task(wait_for_result(ID))
        await asyncio.sleep(5)
        late = watch(ID)
        assert await anext(late) == "QUEUED"
        assert len(server.requests) == 2
        assert await listed(late) == ["COMPLETED"]
        assert await first is late.result
        assert len(server.requests) == 2
        del late
        await assert_nothing_is_left(server)


# What stays: nothing.


@pytest.mark.looptime
async def test_nothing_stays_open_between_the_steps_of_a_loop(goes_to: GoesTo) -> None:
    """While no call is suspended nothing is open, in a loop's body too; the next step goes on."""
    async with MisbehavingServer(*says("CREATED", "QUEUED", "COMPLETED")) as server:
        goes_to(server)
        seen: list[str] = []
        async for status in watch(ID):
            seen.append(status)
            await assert_nothing_is_left(server)
        assert seen == ["CREATED", "QUEUED", "COMPLETED"]
        await assert_nothing_is_left(server)


@pytest.mark.looptime
async def test_a_held_watch_keeps_its_ending_and_nothing_open(goes_to: GoesTo) -> None:
    """A watch that is kept after its end gives it again, with no connection open, whatever the environment says now."""
    async with MisbehavingServer(*says("COMPLETED")) as server:
        goes_to(server)
        held = watch(ID)
        result = await held
        await assert_nothing_is_left(server)
        assert await held is result
        assert await wait_for_result(ID) is result  # somebody knows it still
        assert server.connections == 1
        del held
        gc.collect()
        assert await wait_for_result(ID) is not result
        assert server.connections == 2


WAYS_OUT: dict[str, Callable[[], Awaitable[Any]]] = {
    "a result": lambda: wait_for_result(ID),
    "a fetch": lambda: fetch(ID),
    "an iteration": lambda: listed(watch(ID)),
    "a break": lambda: anext(watch(ID)),
    "a timeout": lambda: wait_for_result(ID, timeout=1.5),
    "asyncio's timeout": lambda: asyncio.wait_for(watch(ID), 1.5),
}


@pytest.mark.looptime
@pytest.mark.parametrize("way_out", WAYS_OUT.values(), ids=WAYS_OUT)
@pytest.mark.parametrize(
    "script",
    [says("QUEUED", "COMPLETED"), says("ERROR"), [bad.status(401)], [bad.silence()], [*says("QUEUED"), bad.close]],
    ids=["completes", "fails", "is refused", "hangs", "breaks"],
)
async def test_nothing_stays_after_a_call(
    script: list[bad.Behaviour], way_out: Callable[[], Awaitable[Any]], goes_to: GoesTo
) -> None:
    """However a call ends, nothing is left running or open after it."""
    async with MisbehavingServer(*script) as server:
        goes_to(server)
        await asyncio.gather(asyncio.wait_for(way_out(), 60.0), return_exceptions=True)
        await assert_nothing_is_left(server)


@pytest.mark.looptime
@pytest.mark.parametrize("seconds", [0.0, 0.4, 0.5])
@pytest.mark.parametrize("behaviour", [bad.silence(), *says("QUEUED")], ids=["asking", "between polls"])
async def test_nothing_stays_after_a_cancelled_call(behaviour: bad.Behaviour, seconds: float, goes_to: GoesTo) -> None:
    """A call may be cancelled at any point, once or twice, and leaves nothing."""
    async with MisbehavingServer(behaviour) as server:
        goes_to(server)
        for count in range(15):
            for between in (None, 1, 2):
                waiting = asyncio.create_task(wait_for_result(ID))
                await asyncio.sleep(seconds)
                await turns(count)
                waiting.cancel()
                if between is not None:
                    await turns(between)
                    waiting.cancel()
                await asyncio.wait([waiting])
                assert waiting.cancelled()
                if between is not None:
                    await turns(5)  # whose cleaning up is cancelled doesn't wait for it
                await assert_nothing_is_left(server)


@pytest.mark.looptime
async def test_the_last_one_out_closes_the_door_behind_all(goes_to: GoesTo) -> None:
    """Connections stay while any call waits, whichever ends first, and go with the last one."""
    async with MisbehavingServer(*says("QUEUED")) as server:
        goes_to(server)
        waits = [asyncio.create_task(wait_for_result(task_id, timeout=None)) for task_id in ids(3)]
        for left in (3, 3, 3):
            await asyncio.sleep(2.5)
            assert connections_at(server) == left
            leaving = waits.pop(0)
            leaving.cancel()
            await asyncio.wait([leaving])
        await assert_nothing_is_left(server)
        assert server.connections == 3


@pytest.mark.looptime
async def test_a_call_may_begin_while_the_last_one_ends(goes_to: GoesTo) -> None:
    """Calls that come in any moment of another one's end work, and leave nothing either."""
    async with MisbehavingServer(*says("COMPLETED")) as server:
        goes_to(server)
        for count in range(25):
            first = asyncio.create_task(wait_for_result(ID))
            await turns(count)
            assert (await wait_for_result(OTHER_ID)).text == "the answer"
            assert (await first).text == "the answer"
            await assert_nothing_is_left(server)


# Loops and threads.


async def one_run(goes_to: GoesTo) -> str | None:
    async with Emulator(seed=3) as emulator:
        goes_to(emulator)
        task_id = emulator.add_task([(0, "CREATED"), (0.1, "COMPLETED")], text="yes")
        results = await asyncio.gather(*(wait_for_result(task_id) for _ in range(10)))
        assert len(emulator.requests) < 10
        return results[0].text


def test_several_runs_in_a_row(goes_to: GoesTo) -> None:
    """Each `asyncio.run` has a client of its own, made from the environment as it is then."""
    assert [asyncio.run(one_run(goes_to)) for _ in range(3)] == ["yes"] * 3


async def test_several_threads_at_once(goes_to: GoesTo) -> None:
    """Event loops in different threads don't get in each other's way, nor share a connection."""
    async with MisbehavingServer(*[bad.good(body("QUEUED"))] * 8, *says("COMPLETED")) as server:
        goes_to(server)

        def run(task_id: str) -> str | None:
            return asyncio.run(wait_for_result(task_id)).text

        texts = await asyncio.gather(*(asyncio.to_thread(run, task_id) for task_id in (*ids(3), *ids(1))))
        assert texts == ["the answer"] * 4
        assert server.connections >= 4
        while connections_at(server):  # noqa: ASYNC110 - it hears of the last end a moment later
            await asyncio.sleep(0.01)


def test_a_watch_belongs_to_the_loop_that_began_it(goes_to: GoesTo) -> None:
    """A watch that began on one event loop and is used on another one says so; to look at it is allowed."""
    begun, ended = watch(ID), watch(OTHER_ID)

    async def begin() -> None:
        async with MisbehavingServer(*says("QUEUED"), bad.good(body())) as server:
            goes_to(server)
            assert await anext(begun) == "QUEUED"
            await ended

    async def go_on() -> None:
        await caught(asyncio.wait_for(ended, 5), ConfigurationError)
        await caught(asyncio.wait_for(anext(begun), 5), ConfigurationError)
        assert (begun.status, ended.status) == ("QUEUED", "COMPLETED")

    asyncio.run(begin())
    asyncio.run(go_on())


def test_a_loop_may_end_within_a_call(goes_to: GoesTo) -> None:
    """Where `asyncio.run` ends while calls wait, they are cancelled like any, and nothing is left to warn about."""

    async def main() -> asyncio.Task[ChatResult]:
        async with Emulator(seed=3) as emulator:
            goes_to(emulator)
            waiting = asyncio.create_task(wait_for_result(emulator.add_task([(0, "QUEUED")])))
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(emulator.requests) == 1
            return waiting

    assert asyncio.run(main()).cancelled()


@pytest.mark.looptime
async def test_the_client_is_gone_when_nobody_waits(goes_to: GoesTo) -> None:
    """Without any call and any watch left the client is gone at once, so that the next call reads the environment."""
    gc.disable()
    try:
        for _ in range(2):
            async with MisbehavingServer(*says("COMPLETED")) as server:
                goes_to(server)
                assert (await wait_for_result(ID, timeout=5)).text == "the answer"
                assert len(server.requests) == 1
    finally:
        gc.enable()


# Streams that are left.

LEAVE = """
import asyncio, gc, importlib, sys
from distribute_async import as_completed, watch_many

loop, *ids = sys.argv[1:]
kept = []

async def leave(way):
    match way:
        case "break":
            async for _ in as_completed(ids):
                break
        case "break without gc":
            gc.disable()
            async for _ in watch_many(ids):
                break
        case "break with nothing under way":
            async for _ in as_completed(ids[:2]):
                break
        case "break and keep":
            kept.append(as_completed(ids))
            async for _ in kept[0]:
                break
        case "break, keep and go on":
            kept.append(as_completed(ids))
            async for _ in kept[0]:
                break
            await asyncio.sleep(0.5)
        case "break, drop and go on":
            async for _ in as_completed(ids):
                break
            await asyncio.sleep(0.01)
        case "raise":
            async for _ in as_completed(ids):
                raise ZeroDivisionError
        case "cancel":
            kept.append(as_completed(ids[1:]))
            async with asyncio.timeout(0.1):
                await anext(kept[0])
        case "aclose":
            stream = as_completed(ids)
            await anext(stream)
            await stream.aclose()
        case _:
            raise NameError(way)

for way in sys.stdin.read().splitlines():
    try:
        with asyncio.Runner(loop_factory=importlib.import_module(loop).new_event_loop) as runner:
            runner.run(leave(way))
    except (ZeroDivisionError, TimeoutError):
        pass
    kept.clear()
    gc.enable()
    gc.collect()
    print(way, file=sys.stderr)
"""
WAYS = """
break
break without gc
break with nothing under way
break and keep
break, keep and go on
break, drop and go on
raise
cancel
aclose
""".lstrip()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_stream_that_is_left_leaves_nothing_to_warn_about(
    loop: str, emulator: Emulator, goes_to: GoesTo
) -> None:
    """However the loop over a stream is left, and however soon the event loop ends after it, nothing is left open."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    goes_to(emulator)
    everyone = [emulator.add_task([(0, end)]) for end in ("COMPLETED", *["QUEUED"] * 30)]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", LEAVE, loop, *everyone),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(program.communicate(WAYS.encode()), 60)
    finally:
        if program.returncode is None:
            program.kill()
    assert said.decode() == WAYS
    assert program.returncode == 0


@pytest.mark.looptime
@pytest.mark.parametrize("follow", [as_completed, watch_many])
async def test_nothing_stays_open_in_the_body_of_a_stream(follow: Callable[..., Any], goes_to: GoesTo) -> None:
    """While the loop's body runs what is under way ends, and no connection stays; the next step goes on."""
    script = [bad.in_turn(bad.pause(0.3), *says(status)) for status in (*["QUEUED"] * 15, "COMPLETED")]
    async with MisbehavingServer(*script) as server:
        goes_to(server)
        everyone, ended = ids(9), set()
        async for item in follow(everyone):
            if item.result.is_over:
                ended.add(item.task_id)
            await asyncio.sleep(0.5)  # what is under way may end
            assert tasks() == set()
            assert connections_at(server) == 0
            await assert_silence(server, 30.0)
        assert ended == set(everyone)
        await assert_nothing_is_left(server)


@pytest.mark.looptime
async def test_a_call_beside_a_stream_keeps_its_connection(goes_to: GoesTo) -> None:
    """Leaving a stream closes nothing that another call is suspended on."""
    async with MisbehavingServer(*says(*["QUEUED"] * 40, "COMPLETED")) as server:
        goes_to(server)
        waiting = asyncio.create_task(wait_for_result(ID))
        await asyncio.sleep(0.1)
        async for _ in watch_many([OTHER_ID]):
            break
        assert (await waiting).text == "the answer"
        assert server.connections == 1
        await assert_nothing_is_left(server)


@pytest.mark.looptime
async def test_a_stream_keeps_its_connections_while_it_waits(goes_to: GoesTo) -> None:
    """A call that ends beside a suspended stream leaves it its connection."""
    async with MisbehavingServer(*says(*["QUEUED"] * 40, "COMPLETED")) as server:
        goes_to(server)
        reading = asyncio.ensure_future(listed(as_completed([ID])))
        await asyncio.sleep(0.1)
        await fetch(OTHER_ID)
        assert [outcome.error for outcome in await reading] == [None]
        assert server.connections == 1
        await assert_nothing_is_left(server)


@pytest.mark.looptime
@pytest.mark.parametrize("turn", range(12))
async def test_a_step_may_be_cancelled_at_any_turn(turn: int, goes_to: GoesTo) -> None:
    """A step that is cancelled while it closes what it opened loses no item, and leaves nothing."""
    async with MisbehavingServer(*says("COMPLETED")) as server:
        goes_to(server)
        stream = as_completed([ID])
        reading = asyncio.ensure_future(anext(stream))
        while not server.requests:  # noqa: ASYNC110 - which is no event, and each turn counts
            await asyncio.sleep(0)
        await turns(turn)
        reading.cancel()
        await asyncio.wait([reading])
        ended = [] if reading.cancelled() else [reading.result()]
        assert len([*ended, *await listed(stream)]) == 1
        await assert_nothing_is_left(server)


@pytest.mark.looptime
async def test_what_is_under_way_in_the_body_comes_in(goes_to: GoesTo) -> None:
    """An exchange that is under way as the body of a stream's loop begins has its answer, on the connection it has."""
    slow = bad.in_turn(bad.pause(5.0), *says("COMPLETED"))
    async with MisbehavingServer(depends_on_task({ID: slow}, *says("COMPLETED"))) as server:
        goes_to(server)
        stream = as_completed([ID, OTHER_ID])
        assert (await anext(stream)).task_id == OTHER_ID
        await asyncio.sleep(10.0)
        assert connections_at(server) == 0
        assert [(outcome.task_id, outcome.error) for outcome in await listed(stream)] == [(ID, None)]
        assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.looptime
async def test_a_poll_that_is_cut_before_it_began_leaves_nothing(goes_to: GoesTo) -> None:
    """A stream that is closed in the same turn in which a step started a poll keeps nothing open, then or later."""
    async with MisbehavingServer(depends_on_task({ID: says("QUEUED")[0]}, *says("COMPLETED"))) as server:
        goes_to(server)
        stream = as_completed([ID, *ids(2)])
        await anext(stream)
        await asyncio.sleep(100.0)
        asked = len(server.requests)
        await anext(stream)
        await stream.aclose()
        await assert_nothing_is_left(server)
        assert len(server.requests) == asked
        assert (await fetch(ID)).status == "QUEUED"
        await assert_nothing_is_left(server)


def test_a_stream_belongs_to_the_loop_that_began_it(goes_to: GoesTo) -> None:
    """A stream that began on one event loop and is used on another one says so."""
    begun = as_completed(ids(2))

    async def begin() -> None:
        async with MisbehavingServer(*says("COMPLETED"), bad.silence()) as server:
            goes_to(server)
            assert (await anext(begun)).error is None

    async def go_on() -> None:
        await caught(asyncio.wait_for(anext(begun), 5), ConfigurationError)

    asyncio.run(begin())
    asyncio.run(go_on())
