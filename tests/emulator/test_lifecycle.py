"""The lives of tasks, as plain HTTP shows them."""

from __future__ import annotations

import asyncio
import math
import statistics
from itertools import pairwise

import aiohttp
import pytest

from distribute_async.emulator import Emulator
from distribute_async.emulator._fates import draw_lot
from distribute_async.emulator._lifecycle import STATUSES, Task
from tests.emulator import calls
from tests.emulator.specification import DOCUMENT

EPOCH = 1_700_000_000.0
ID = "4FD6B0A6-6b6c-4a3e-8f1e-0d8f6a1c2b3d"


@pytest.mark.looptime
async def test_a_scripted_life_is_lived_to_the_second(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Each status is there from its offset on, and not a moment before."""
    task_id = emulator.add_task([(0, "CREATED"), (1.5, "QUEUED"), (1.8, "PROCESSING"), (4, "COMPLETED")])
    assert await calls.statuses(session, task_id, at=[0, 1.499, 1.5, 1.799, 1.8, 3.999, 4, 1000]) == [
        *("CREATED", "CREATED", "QUEUED", "QUEUED", "PROCESSING", "PROCESSING", "COMPLETED", "COMPLETED")
    ]


def test_clock_arithmetic_hides_no_change() -> None:
    """A change 0.2 s after 0.1 s is there at 0.3 s, though to a computer 0.1 + 0.2 is more."""
    task = Task(
        id=ID,
        kind="chat",
        born=0.1,
        timeline=[(0, "CREATED"), (0.2, "QUEUED")],
        model="a-model",
        text="",
        prompt_tokens=1,
        tool_calls=(),
        files=(),
        visible_after=0.2,
        answer={},
    )
    assert task.is_visible(0.3)
    assert task.stand(0.3) == (0.2, "QUEUED")


@pytest.mark.looptime
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(["CREATED", "QUEUED", "POSTPONED", "QUEUED", "PROCESSING", "COMPLETED"], id="postponed, requeued"),
        pytest.param(["QUEUED", "COMPLETED"], id="skipped"),
        pytest.param(["COMPLETED"], id="done at once"),
        pytest.param(["PROCESSING", "CREATED", "QUEUED", "ERROR"], id="backwards"),
        pytest.param(["QUEUED", "PAUSED", "", "COMPLETED"], id="unknown"),
    ],
)
async def test_any_path_can_be_scripted(emulator: Emulator, session: aiohttp.ClientSession, path: list[str]) -> None:
    """A task goes through exactly the statuses of its script, known or not."""
    task_id = emulator.add_task(list(enumerate(path)))
    assert await calls.statuses(session, task_id, at=[float(n) for n in range(len(path))]) == path


@pytest.mark.looptime
async def test_before_its_first_offset_a_task_has_its_first_status(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A timeline that begins late has no gap before."""
    assert await calls.status(session, emulator.add_task([(5, "QUEUED"), (6, "PROCESSING")])) == "QUEUED"


async def test_the_whole_answer_before_the_end(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A task under way has no choices, no usage and no end, but all required fields."""
    task_id = emulator.add_task([(0, "QUEUED")], id=ID, model="a-model")
    assert await calls.result(session, task_id) == {
        "id": ID,
        "status": "QUEUED",
        "created": EPOCH,
        "model": "a-model",
        "choices": [],
    }


@pytest.mark.looptime
async def test_the_whole_answer_of_a_completed_task(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A completed task says when it ended, what it cost and what the model said."""
    await asyncio.sleep(1)
    emulator.add_task([(0, "QUEUED")])
    await asyncio.sleep(2)
    task_id = emulator.add_task([(0, "QUEUED"), (1.5, "COMPLETED"), (2, "COMPLETED")], text="Four words of text.")
    await asyncio.sleep(3)
    answer = await calls.result(session, task_id)
    prompt = answer["usage"]["prompt_tokens"]
    assert answer == {
        "id": task_id,
        "status": "COMPLETED",
        "created": EPOCH + 2,
        "finished": EPOCH + 3.5,
        "model": "Llama-3.1 8B",
        "service_tier": "default",
        "usage": {"completion_tokens": 4, "prompt_tokens": prompt, "total_tokens": prompt + 4},
        "choices": [
            {"finish_reason": "stop", "index": 0, "message": {"content": "Four words of text.", "role": "assistant"}}
        ],
    }
    assert prompt > 0


@pytest.mark.looptime
async def test_an_error_has_an_end_and_no_choices(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A task that ended in ERROR says when, and nothing else: the specification has no field for a reason."""
    task_id = emulator.add_task([(0, "PROCESSING"), (2, "ERROR")])
    await asyncio.sleep(2)
    assert await calls.result(session, task_id) == {
        "id": task_id,
        "status": "ERROR",
        "created": EPOCH,
        "finished": EPOCH + 2,
        "model": "Llama-3.1 8B",
        "choices": [],
    }


async def test_tool_calls(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A model that asks for tools says so in the finish reason, with an empty content, as that is required."""
    task_id = emulator.add_task([(0, "COMPLETED")], tool_calls=[("look_up", '{"city": "Bern"}'), ("stop", "{}")])
    (choice,) = (await calls.result(session, task_id))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == ""
    assert [(call["type"], call["function"]) for call in choice["message"]["tool_calls"]] == [
        ("function", {"name": "look_up", "arguments": '{"city": "Bern"}'}),
        ("function", {"name": "stop", "arguments": "{}"}),
    ]
    assert len({call["id"] for call in choice["message"]["tool_calls"]}) == 2


async def test_tool_calls_beside_a_text(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A text that was scripted stays beside the tool calls."""
    task_id = emulator.add_task([(0, "COMPLETED")], tool_calls=[("stop", "{}")], text="One moment.")
    (choice,) = (await calls.result(session, task_id))["choices"]
    assert choice["message"]["content"] == "One moment."


@pytest.mark.looptime
async def test_a_task_can_be_invisible_at_first(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Before `visible_after` the service doesn't know the task; its life goes on meanwhile."""
    task_id = emulator.add_task([(0, "CREATED"), (1, "QUEUED")], visible_after=2)
    assert await calls.statuses(session, task_id, at=[0, 1.9, 2]) == ["404", "404", "QUEUED"]


async def test_fields_beyond_the_specification(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """`answer` replaces and adds fields of the answer as they are."""
    task_id = emulator.add_task([(0, "QUEUED")], answer={"created": "then", "eta": 5})
    answer = await calls.result(session, task_id)
    assert (answer["created"], answer["eta"], answer["status"]) == ("then", 5, "QUEUED")


async def test_an_id_is_the_same_in_upper_and_lower_case(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A task is found by any spelling of its id, and keeps the one that it was given."""
    emulator.add_task([(0, "QUEUED")], id=ID)
    assert {(await calls.result(session, spelling))["id"] for spelling in (ID, ID.lower(), ID.upper())} == {ID}


async def test_the_same_id_twice_is_refused(emulator: Emulator) -> None:
    """An id is given once, in whatever spelling."""
    emulator.add_task(id=ID)
    with pytest.raises(ValueError, match="already"):
        emulator.add_task(id=ID.lower())


@pytest.mark.parametrize("task_id", ["", "1", ID + "\n", ID.replace("-4", "-5"), ID.replace("-8", "-c")])
async def test_an_id_must_be_a_version_4_uuid(emulator: Emulator, task_id: str) -> None:
    """What the specification's pattern refuses can't be a task's id."""
    with pytest.raises(ValueError, match="version 4 UUID"):
        emulator.add_task(id=task_id)


@pytest.mark.parametrize(
    "timeline",
    [
        [],
        [(1, "CREATED"), (0, "QUEUED")],
        [(-1, "CREATED")],
        [(0, "CREATED"), (math.nan, "ERROR")],
        [(math.inf, "ERROR")],
    ],
)
async def test_a_timeline_must_be_in_order(emulator: Emulator, timeline: list[tuple[float, str]]) -> None:
    """A timeline that is empty, goes backwards, begins before the task or has no time is refused."""
    with pytest.raises(ValueError, match="timeline"):
        emulator.add_task(timeline)


async def test_a_refused_task_takes_no_number() -> None:
    """The n-th task stays the n-th, whatever was refused before it."""
    emulator, other = Emulator(), Emulator()
    with pytest.raises(ValueError, match="timeline"):
        emulator.add_task([])
    assert emulator.add_task() == other.add_task()


def test_a_task_needs_a_running_loop() -> None:
    """Without an event loop there is no clock to live by."""
    with pytest.raises(RuntimeError):
        Emulator().add_task()


def test_the_statuses_are_those_of_the_specification() -> None:
    """The emulator knows the specification's statuses, and no others."""
    schema = DOCUMENT["paths"][calls.RESULT]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]["status"]["enum"]) == STATUSES


LOTS = [draw_lot(7, number) for number in range(3000)]


def test_drawn_lives_are_possible() -> None:
    """A drawn life begins CREATED at 0, goes forward in time through statuses of the specification, and ends once."""
    for lot in LOTS:
        assert lot.timeline[0] == (0.0, "CREATED")
        assert all(a < b for (a, _), (b, _) in pairwise(lot.timeline))
        statuses = [status for _, status in lot.timeline]
        assert set(statuses) <= STATUSES
        assert all(before != after for before, after in pairwise(statuses))
        assert [status in {"COMPLETED", "ERROR"} for status in statuses] == [False] * (len(statuses) - 1) + [True]


def test_drawn_lives_are_varied() -> None:
    """Of many tasks a few end in ERROR, some are postponed and queued again, some skip a status."""
    lives = [[status for _, status in lot.timeline] for lot in LOTS]

    def share(count: int) -> float:
        return count / len(lives)

    assert 0.02 < share(sum(life[-1] == "ERROR" for life in lives)) < 0.06
    assert 0.09 < share(sum("POSTPONED" in life for life in lives)) < 0.16
    assert all(life[life.index("POSTPONED") + 1] == "QUEUED" for life in lives if "POSTPONED" in life)
    assert 0.2 < share(sum("ASSIGNED_CONNECTIONS" not in life for life in lives)) < 0.4
    assert 0.05 < share(sum("QUEUED" not in life for life in lives)) < 0.15


def test_drawn_durations_have_a_heavy_tail() -> None:
    """Most tasks take seconds, the mean lies above the median, and one in a hundred takes several times as long."""
    durations = [lot.timeline[-1][0] for lot in LOTS]
    median = statistics.median(durations)
    assert 3 < median < 12
    assert statistics.mean(durations) > 1.15 * median
    assert statistics.quantiles(durations, n=100)[-1] > 4 * median


@pytest.mark.looptime
async def test_a_created_task_lives_a_drawn_life(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A task created over HTTP has the model that was asked for, and the life and the answer of its number."""
    lot = draw_lot(7, 0)
    task_id = await calls.create(session)
    assert task_id == lot.task_id
    assert await calls.statuses(session, task_id, at=[offset for offset, _ in lot.timeline]) == [
        status for _, status in lot.timeline
    ]
    answer = await calls.result(session, task_id)
    assert answer["model"] == calls.A_CHAT["model"]
    assert answer["choices"][0]["message"]["content"] == lot.text


@pytest.mark.looptime
async def test_speed_shortens_drawn_lives_only() -> None:
    """A drawn life runs so many times faster; a scripted one keeps to its script."""
    async with (
        Emulator("key", seed=7, speed=10) as emulator,
        aiohttp.ClientSession(emulator.base_url, headers={"Authorization": "key"}) as session,
    ):
        end = draw_lot(7, 0).timeline[-1][0]
        task_id = emulator.add_task()
        scripted = emulator.add_task([(0, "QUEUED"), (end / 10 + 1, "COMPLETED")])
        assert await calls.statuses(session, task_id, at=[end / 10 - 0.001, end / 10]) == ["PROCESSING", "COMPLETED"]
        assert await calls.status(session, scripted) == "QUEUED"


async def test_a_seed_settles_everything() -> None:
    """The n-th task of a seed has the same id, life and answer, however the others came about; and so has the key."""

    async def three(emulator: Emulator) -> tuple[str, list[object]]:
        async with (
            emulator,
            aiohttp.ClientSession(emulator.base_url, headers={"Authorization": emulator.api_key}) as session,
        ):
            ids = [await calls.create(session), emulator.add_task([(0, "COMPLETED")]), await calls.create(session)]
            answer = await calls.result(session, ids[1])
            del answer["created"], answer["finished"]
            return emulator.api_key, [*ids, answer]

    one, again, other = [await three(Emulator(seed=seed)) for seed in (3, 3, 4)]
    assert one == again
    assert one[0] != other[0]
    assert not set(map(str, one[1])) & set(map(str, other[1]))
    assert len(one[0]) == 32
