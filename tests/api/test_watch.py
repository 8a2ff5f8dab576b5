"""One reader of one task: what a watch yields, how it ends, and what it knows."""

from __future__ import annotations

import asyncio
import inspect
import random
from itertools import groupby
from typing import Any

import pytest

from distribute_async import (
    APIConnectionError,
    AuthenticationError,
    ChatResult,
    DistributeClient,
    TaskFailedError,
    TaskStatus,
    WaitTimeoutError,
)
from distribute_async.emulator import Emulator
from tests import misbehaving as bad
from tests import seams
from tests.misbehaving import MisbehavingServer
from tests.waiting import ID, assert_nothing_runs, body, caught, listed, new_client, now, says

STATUSES = [status.value for status in TaskStatus if not status.is_terminal]


def without_repeats(statuses: list[str]) -> list[str]:
    return [status for status, _ in groupby(statuses)]


# What is yielded.


@pytest.mark.looptime
async def test_every_visible_change_is_yielded(emulator: Emulator, client: DistributeClient) -> None:
    """A task that goes through all seven statuses slowly enough shows each of them once, in order."""
    path = [*STATUSES, "COMPLETED"]
    task_id = emulator.add_task([(20.0 * n, status) for n, status in enumerate(path)])
    watch = client.watch(task_id)
    assert await listed(watch) == path
    assert [change.status for change in watch.history] == path
    assert [change.previous for change in watch.history] == [None, *path[:-1]]


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(40))
async def test_a_random_life_is_told_as_it_was_shown(seed: int, emulator: Emulator, client: DistributeClient) -> None:
    """Whatever a task does between the polls, the watch yields what the answers showed, without repeats."""
    chance = random.Random(seed)
    timeline, at = [], 0.0
    for _ in range(chance.randint(0, 12)):
        timeline.append((at, chance.choice([*STATUSES, "A_NEW_WORD"])))
        at += chance.choice([0.01, 0.3, 1.0, 5.0, 30.0]) * chance.random()
    end = chance.choice(["COMPLETED", "ERROR"])
    # What comes after the end is never asked for.
    timeline += [(at, end), (at + 20.0, chance.choice(STATUSES))]
    born = now()
    watch = client.watch(emulator.add_task(timeline))
    yielded = await listed(watch)
    shown = [
        [status for offset, status in timeline if born + offset <= request.time + 1e-6][-1]
        for request in emulator.requests
    ]
    assert yielded == without_repeats(shown)
    assert yielded[-1] == end
    assert now() < born + at + 20.0
    assert [change.status for change in watch.history] == yielded


@pytest.mark.looptime
@pytest.mark.parametrize(
    "shown",
    [
        ["COMPLETED"],
        ["ERROR"],
        ["PROCESSING", "COMPLETED"],
        ["CREATED", "CREATED", "CREATED", "COMPLETED"],
        ["QUEUED", "POSTPONED", "QUEUED", "POSTPONED", "QUEUED", "COMPLETED"],
        ["PROCESSING", "CREATED", "PROCESSING", "ASSIGNED_CONNECTIONS", "ERROR"],
        ["in between", "queued", "QUEUED", "A_NEW_WORD", "A_NEW_WORD", "COMPLETED"],
    ],
    ids=" ".join,
)
async def test_statuses_may_be_skipped_repeated_or_go_back(shown: list[str]) -> None:
    """Each change is yielded once and repeats never, whatever the order, and the first terminal status ends it."""
    async with MisbehavingServer(*says(*shown, "QUEUED")) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        assert await listed(watch) == without_repeats(shown)
        assert [(change.task_id, change.error) for change in watch.history] == [(ID, None)] * len(watch.history)
        assert [change.polls for change in watch.history] == [
            n + 1 for n, status in enumerate(shown) if n == 0 or status != shown[n - 1]
        ]
        assert [change.elapsed for change in watch.history] == [change.polls - 1.0 for change in watch.history]
        assert len(server.requests) == len(shown)


@pytest.mark.looptime
async def test_yielded_statuses_are_statuses(emulator: Emulator, client: DistributeClient) -> None:
    """What is yielded is a `TaskStatus`, also for a word that the library doesn't know."""
    task_id = emulator.add_task([(0, "CREATED"), (1, "A_NEW_WORD"), (9, "COMPLETED")])
    known = [(type(status), status.is_known) async for status in client.watch(task_id)]
    assert known == [(TaskStatus, True), (TaskStatus, False), (TaskStatus, True)]


# How it ends.


@pytest.mark.looptime
async def test_error_is_yielded_and_raised_only_by_awaiting(emulator: Emulator, client: DistributeClient) -> None:
    """ERROR is a status like others to an iteration; awaiting raises, with the whole last answer."""
    watch = client.watch(emulator.add_task([(0, "QUEUED"), (5, "ERROR")]))
    assert await listed(watch) == ["QUEUED", "ERROR"]
    first, second = await caught(watch, TaskFailedError), await caught(watch, TaskFailedError)
    assert first.result is watch.result
    assert first.result.status == "ERROR"
    assert first.last_status == "ERROR"
    assert first.attempts == watch.history[-1].polls
    assert first is not second
    assert first.result == second.result
    assert watch.result is not None


@pytest.mark.looptime
async def test_a_fetch_takes_any_status(emulator: Emulator, client: DistributeClient) -> None:
    """`fetch` tells how a task is: one that ended in ERROR is an answer like others."""
    for status in ("CREATED", "COMPLETED", "ERROR"):
        assert (await client.fetch(emulator.add_task([(0, status)]))).status == status


@pytest.mark.looptime
async def test_wait_for_result_raises_where_the_task_failed(emulator: Emulator, client: DistributeClient) -> None:
    """`wait_for_result` never gives back a failed task as a result."""
    error = await caught(client.wait_for_result(emulator.add_task([(0, "ERROR")])), TaskFailedError)
    assert "ended in ERROR" in str(error)


@pytest.mark.looptime
@pytest.mark.parametrize("has_output", [True, False])
async def test_an_unknown_status_with_finished_set_is_over(has_output: bool) -> None:
    """A new word for an ending ends the watch: with choices it is the result, without them it failed."""
    choices = body()["choices"] if has_output else []
    last = bad.good(body("CANCELLED", finished=1_700_000_009, choices=choices))
    async with MisbehavingServer(*says("QUEUED"), last) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        assert await listed(watch) == ["QUEUED", "CANCELLED"]
        if has_output:
            assert (await watch).text == "the answer"
        else:
            error = await caught(watch, TaskFailedError)
            assert error.result.status == "CANCELLED"
            assert "CANCELLED" in str(error)


@pytest.mark.looptime
@pytest.mark.parametrize("finished", [{}, {"finished": None}])
async def test_an_unknown_status_alone_goes_on(finished: dict[str, Any]) -> None:
    """A new word without `finished`, choices or not, is one more status on the way."""
    first = bad.good(body("STREAMING", choices=body()["choices"], **finished))
    async with MisbehavingServer(first, *says("COMPLETED")) as server, new_client(server.url) as client:
        assert await listed(client.watch(ID)) == ["STREAMING", "COMPLETED"]


@pytest.mark.looptime
async def test_known_statuses_are_not_over_for_a_finished_field() -> None:
    """`finished` says nothing beside a known status: QUEUED goes on, whatever stands beside it."""
    first = bad.good(body("QUEUED", finished=1_700_000_009))
    async with MisbehavingServer(first, *says("COMPLETED")) as server, new_client(server.url) as client:
        assert await listed(client.watch(ID)) == ["QUEUED", "COMPLETED"]


@pytest.mark.looptime
async def test_completed_without_choices_is_a_result() -> None:
    """COMPLETED is the service's word for success, also where the model said nothing."""
    async with (
        MisbehavingServer(bad.good(body("COMPLETED", choices=[]))) as server,
        new_client(server.url) as client,
    ):
        assert (await client.wait_for_result(ID)).text is None


@pytest.mark.looptime
async def test_what_the_library_does_not_know_passes_through() -> None:
    """Unknown fields, roles, finish reasons, tool types and ids that are no task's reach the caller as sent."""
    call = {"id": "1", "type": "web_search", "function": {"name": "f", "arguments": "{", "strict": True}}
    message = {"role": "critic", "content": None, "tool_calls": [call], "mood": "good"}
    choice = {"finish_reason": "content_filter", "index": 0, "message": message, "logprobs": [1]}
    sent = body("COMPLETED", choices=[choice], id="another id", cost={"usd": 0.1}, service_tier="flex")
    async with MisbehavingServer(bad.good(sent)) as server, new_client(server.url) as client:
        result = await client.wait_for_result(ID)
    assert result.to_dict() == sent
    assert (result.choices[0].finish_reason, result.choices[0].message.role) == ("content_filter", "critic")
    assert result.extra == {"cost": {"usd": 0.1}}
    assert result.choices[0].message.extra == {"mood": "good"}
    assert result.id == "another id"


@pytest.mark.looptime
async def test_a_mistake_of_the_library_hangs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Should the library itself break within an exchange, that is a fault like others, and is logged."""
    async with MisbehavingServer(*says("COMPLETED")) as server, new_client(server.url) as client:
        with seams.decoding_raises(ZeroDivisionError):
            error = await caught(client.fetch(ID), APIConnectionError)
        assert (error.reason, error.attempts) == ("unexpected", 3)
        assert "ZeroDivisionError" in str(error)
        assert [record.levelname for record in caplog.records if record.name == "distribute_async"] == ["ERROR"] * 3
        assert (await client.wait_for_result(ID)).text == "the answer"


# One object, three ways.


@pytest.mark.looptime
async def test_awaiting_does_not_move_the_cursor(emulator: Emulator, client: DistributeClient) -> None:
    """An iteration after awaiting tells the whole story, and awaiting again gives the same result, for no request."""
    watch = client.watch(emulator.add_task([(0, "CREATED"), (5, "PROCESSING"), (9, "COMPLETED")]))
    result = await watch
    asked = len(emulator.requests)
    assert await listed(watch) == ["CREATED", "PROCESSING", "COMPLETED"]
    assert await watch is result
    assert await listed(watch) == []
    assert len(emulator.requests) == asked


@pytest.mark.looptime
async def test_awaiting_inside_the_loop(emulator: Emulator, client: DistributeClient) -> None:
    """Awaiting within an iteration's body gives the result, and the iteration then goes on where it was."""
    watch = client.watch(emulator.add_task([(0, "CREATED"), (5, "PROCESSING"), (9, "COMPLETED")]))
    seen: list[str] = []
    async for status in watch:
        seen.append(status)
        assert (await watch).text
    assert seen == ["CREATED", "PROCESSING", "COMPLETED"]


@pytest.mark.looptime
async def test_a_second_loop_goes_on_where_the_first_stopped(emulator: Emulator, client: DistributeClient) -> None:
    """There is one cursor: what one loop took, the next one doesn't repeat."""
    watch = client.watch(emulator.add_task([(0, "CREATED"), (5, "QUEUED"), (9, "PROCESSING"), (20, "COMPLETED")]))
    async for status in watch:
        if status == "QUEUED":
            break
    assert [await anext(watch)] == ["PROCESSING"]
    assert await listed(watch) == ["COMPLETED"]
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


@pytest.mark.looptime
async def test_two_iterations_at_once_are_refused(emulator: Emulator, client: DistributeClient) -> None:
    """A second `__anext__` while one is suspended is a mistake that is told; the first one isn't disturbed by it."""
    watch = client.watch(emulator.add_task([(0, "CREATED"), (9, "COMPLETED")]))
    first = asyncio.create_task(listed(watch))
    await asyncio.sleep(1)
    with pytest.raises(RuntimeError, match="being iterated already"):
        await anext(watch)
    with pytest.raises(RuntimeError, match="being iterated already"):
        await anext(watch.transitions())
    assert (await watch).text  # awaiting is allowed at any time
    assert await first == ["CREATED", "COMPLETED"]


@pytest.mark.looptime
async def test_many_may_await_one_watch(emulator: Emulator, client: DistributeClient) -> None:
    """Twenty asyncio tasks may await one watch beside its iteration; all get the same result for the same requests."""
    watch = client.watch(emulator.add_task([(0, "CREATED"), (9, "COMPLETED")]))

    async def awaited() -> ChatResult:
        return await watch

    statuses, *results = await asyncio.gather(listed(watch), *(awaited() for _ in range(20)))
    assert statuses == ["CREATED", "COMPLETED"]
    assert results == [watch.result] * 20
    assert len(emulator.requests) == watch.history[-1].polls


@pytest.mark.looptime
async def test_awaiting_again_gives_the_same_error() -> None:
    """Each waiter gets its own copy of the error that ended the watch, and no further request is made for it."""
    async with MisbehavingServer(bad.status(401), *says("COMPLETED")) as server, new_client(server.url) as client:
        watch = client.watch(ID)

        async def awaited() -> ChatResult:
            return await watch

        errors = await asyncio.gather(awaited(), awaited(), listed(watch), return_exceptions=True)
        again = [await caught(watch, type(errors[0])), await caught(listed(watch), type(errors[0]))]  # type: ignore[type-var]
        assert len({id(error) for error in (*errors, *again)}) == 5
        assert len({(type(error), str(error)) for error in (*errors, *again)}) == 1
        assert len(server.requests) == 1


@pytest.mark.looptime
async def test_a_timeout_stays_that_watchs_ending(emulator: Emulator, client: DistributeClient) -> None:
    """A watch that timed out says so again; another watch on the same id goes on."""
    task_id = emulator.add_task([(0, "QUEUED"), (20, "COMPLETED")])
    watch = client.watch(task_id, timeout=5)
    errors = [await caught(watch, WaitTimeoutError) for _ in range(3)]
    assert len({id(error) for error in errors}) == 3
    assert {(error.task_id, error.last_status, str(error)) for error in errors} == {(task_id, "QUEUED", str(errors[0]))}
    assert (await client.wait_for_result(task_id)).text
    await caught(watch, WaitTimeoutError)


@pytest.mark.looptime
async def test_looking_costs_nothing(emulator: Emulator, client: DistributeClient) -> None:
    """`latest`, `result`, `status` and `history` tell what is known without a request, from nothing to the end."""
    task_id = emulator.add_task([(0, "QUEUED"), (5, "COMPLETED")], text="yes")
    watch = client.watch(task_id)
    assert (watch.task_id, watch.latest, watch.status, watch.history) == (task_id, None, None, ())
    assert emulator.requests == []
    assert repr(watch) == f"<Watch {task_id} not asked yet>"
    await anext(watch)
    assert (watch.status, watch.latest and watch.latest.status, len(watch.history)) == ("QUEUED", "QUEUED", 1)
    assert not watch.result
    result = await watch
    assert (watch.status, watch.latest and watch.latest.text, len(watch.history)) == ("COMPLETED", "yes", 2)
    assert [watch.result, watch.history[-1].result] == [result] * 2
    assert repr(watch) == f"<Watch {task_id} COMPLETED>"


@pytest.mark.looptime
@pytest.mark.parametrize("end", ["COMPLETED", "ERROR", "CANCELLED"])
async def test_the_result_is_that_of_a_task_that_is_over(end: str) -> None:
    """`result` is None as long as the task goes on, and the last response once it is over, however it ended."""
    path = [*STATUSES, "A_NEW_WORD"]
    last = bad.good(body(end, finished=1_700_000_009))
    async with MisbehavingServer(*says(*path), last) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        for status in path:
            assert await anext(watch) == status
            assert (watch.latest and watch.latest.status, watch.result) == (status, None)
        assert await listed(watch) == [end]
        assert watch.latest is watch.result is not None
        assert watch.result.status == end


@pytest.mark.looptime
async def test_a_wait_that_ends_early_has_no_result() -> None:
    """Where only the following ended, by a timeout or an error, `latest` is kept and there is no `result`."""
    script = [*says("QUEUED", "QUEUED"), bad.status(401)]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        late, refused = client.watch(ID, timeout=0.5), client.watch(ID)
        await caught(late, WaitTimeoutError)
        await caught(refused, AuthenticationError)
    for watch in (late, refused):
        assert (watch.latest and watch.latest.status, watch.result) == ("QUEUED", None)


@pytest.mark.looptime
async def test_transitions_tell_everything(emulator: Emulator, client: DistributeClient) -> None:
    """`transitions()` gives each change once with what is known of it, through ERROR without raising."""
    watch = client.watch(emulator.add_task([(0, "CREATED"), (5, "PROCESSING"), (9, "ERROR")]))
    changes = await listed(watch.transitions())
    assert [(change.previous, change.status) for change in changes] == [
        (None, "CREATED"),
        ("CREATED", "PROCESSING"),
        ("PROCESSING", "ERROR"),
    ]
    assert changes == list(watch.history)
    assert [change.result and change.result.status for change in changes] == ["CREATED", "PROCESSING", "ERROR"]
    assert {change.task_id for change in changes} == {watch.task_id}
    assert await listed(watch.transitions()) == []


@pytest.mark.looptime
async def test_transitions_share_the_cursor(emulator: Emulator, client: DistributeClient) -> None:
    """Statuses and transitions are two views of one iteration: what one took, the other doesn't repeat."""
    watch = client.watch(emulator.add_task([(0, "CREATED"), (5, "QUEUED"), (9, "PROCESSING"), (20, "COMPLETED")]))
    assert await anext(watch) == "CREATED"
    changes = watch.transitions()
    assert aiter(changes) is changes
    assert (await anext(changes)).status == "QUEUED"
    assert await anext(watch) == "PROCESSING"
    assert [change.status for change in await listed(changes)] == ["COMPLETED"]
    assert await listed(watch) == []


@pytest.mark.looptime
async def test_leaving_transitions_needs_no_clean_up(emulator: Emulator, client: DistributeClient) -> None:
    """They are an object and no generator: nothing runs in the loop's body, nor after it was left."""
    watch = client.watch(emulator.add_task([(0, "QUEUED"), (500, "COMPLETED")]))
    async for change in watch.transitions():
        assert change.status == "QUEUED"
        assert_nothing_runs(client)
        break
    asked = len(emulator.requests)
    await asyncio.sleep(100)
    assert len(emulator.requests) == asked
    assert not inspect.isasyncgen(watch.transitions())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await anext(watch.transitions())
    assert_nothing_runs(client)
    assert [change.status for change in await listed(watch.transitions())] == ["COMPLETED"]


@pytest.mark.looptime
async def test_the_latest_is_the_newest_answer() -> None:
    """Between changes `latest` follows the answers, also where only another field moved."""
    script = [bad.good(body("QUEUED", position=n)) for n in (3, 2, 1)]
    async with MisbehavingServer(*script, *says("COMPLETED")) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        ending = asyncio.ensure_future(watch)
        positions = []
        for _ in range(3):
            await asyncio.sleep(0.5)
            positions.append(watch.latest and watch.latest.extra["position"])
            await asyncio.sleep(0.5)
        await ending
    assert positions == [3, 2, 1]
    assert len(watch.history) == 2


@pytest.mark.looptime
async def test_history_keeps_the_newest_thousand() -> None:
    """A task that changes for ever fills no memory: the newest 1,000 changes are kept, and the iteration sees all."""
    path = [f"S{n}" for n in range(1_350)]
    async with MisbehavingServer(*says(*path, "COMPLETED")) as server, new_client(server.url, timeout=None) as client:
        watch = client.watch(ID)
        assert await listed(watch) == [*path, "COMPLETED"]
        assert [change.status for change in watch.history] == [*path[-999:], "COMPLETED"]
        assert await listed(watch) == []
