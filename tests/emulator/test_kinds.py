"""The kinds of task: what each says, and that none of them answers for another."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from distribute_async.emulator import Emulator, fault
from distribute_async.emulator._checks import Shape
from distribute_async.emulator._fates import draw_lot
from distribute_async.emulator._kinds import KINDS, Kind
from tests.emulator import calls

EPOCH = 1_700_000_000
DONE = [(0, "COMPLETED")]


@pytest.mark.looptime
async def test_the_whole_answer_of_images(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Images have results in the place of choices, from the start, and times as ISO strings in UTC."""
    emulator.add_task()
    await asyncio.sleep(1.25)
    task_id = emulator.add_task([(0, "QUEUED"), (2, "COMPLETED")], kind="images", request={"prompt": "A fox"})
    pending = {
        "id": task_id,
        "status": "QUEUED",
        "created": "2023-11-14T22:13:21.250Z",
        "model": "Flux.1 [dev]",
        "results": [],
    }
    assert await calls.result(session, task_id, "images") == pending
    await asyncio.sleep(2)
    assert await calls.result(session, task_id, "images") == {
        **pending,
        "status": "COMPLETED",
        "finished": "2023-11-14T22:13:23.250Z",
        "results": [{"url": f"{emulator.files_url}/{task_id}/0.png", "revised_prompt": "A fox"}],
    }


@pytest.mark.looptime
async def test_the_whole_answer_of_speech(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Speech has results in the place of choices, from the start, and times as numbers."""
    task_id = emulator.add_task([(0, "QUEUED"), (2, "COMPLETED")], kind="speech")
    pending = {"id": task_id, "status": "QUEUED", "created": EPOCH, "model": "Chatterbox", "results": []}
    assert await calls.result(session, task_id, "speech") == pending
    await asyncio.sleep(2)
    assert await calls.result(session, task_id, "speech") == {
        **pending,
        "status": "COMPLETED",
        "finished": EPOCH + 2,
        "results": [{"url": f"{emulator.files_url}/{task_id}/0.wav"}],
    }


@pytest.mark.parametrize(("kind", "finished"), [("images", "2023-11-14T22:13:20.000Z"), ("speech", EPOCH)])
async def test_an_error_has_an_end_and_no_results(
    emulator: Emulator, session: aiohttp.ClientSession, kind: str, finished: object
) -> None:
    """A task of whatever kind that ended in ERROR says when, and nothing else."""
    answer = await calls.result(session, emulator.add_task([(0, "ERROR")], kind=kind), kind)
    assert (answer["status"], answer["finished"], answer["results"]) == ("ERROR", finished, [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", KINDS)
async def test_a_kind_answers_for_itself_alone(
    emulator: Emulator, session: aiohttp.ClientSession, kind: str, asked: str
) -> None:
    """An id of one kind is unknown to the others."""
    ids = [emulator.add_task(DONE, kind=kind), await calls.create(session, kind)]
    expected = 200 if asked == kind else 404
    path = f"/async/{asked}/result"
    assert [(await calls.post(session, path, {"id": task_id}))[0] for task_id in ids] == [expected] * 2


@pytest.mark.looptime
@pytest.mark.parametrize("kind", KINDS)
async def test_a_created_task_of_any_kind_lives_a_drawn_life(session: aiohttp.ClientSession, kind: str) -> None:
    """A task created over HTTP has the model that was asked for, and the id and the life of its number."""
    lot = draw_lot(7, 0)
    task_id = await calls.create(session, kind)
    assert task_id == lot.task_id
    offsets, statuses = zip(*lot.timeline, strict=True)
    assert await calls.statuses(session, task_id, kind, at=offsets) == list(statuses)
    assert (await calls.result(session, task_id, kind))["model"] == calls.BODIES[kind]["model"]


@pytest.mark.looptime
@pytest.mark.parametrize("kind", KINDS)
async def test_scripts_serve_any_kind(emulator: Emulator, session: aiohttp.ClientSession, kind: str) -> None:
    """Faults, `visible_after` and `answer` do for every kind what they do for chat."""
    task_id = emulator.add_task(
        DONE,
        kind=kind,
        faults=[fault.status(503)],
        visible_after=1,
        answer={"eta": 5},
        model=calls.BODIES[kind]["model"],
    )
    assert [await calls.status(session, task_id, kind) for _ in range(2)] == ["503", "404"]
    await asyncio.sleep(1)
    assert (await calls.result(session, task_id, kind))["eta"] == 5


async def test_several_pictures(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A task makes as many pictures as it is asked for, within reason."""
    for asked, made in [(1, 1), (3, 3), (2.5, 2), (0, 1), (-1e999, 1), (1e999, 10)]:
        task_id = emulator.add_task(DONE, kind="images", request={"n": asked}, text="A red fox")
        results = (await calls.result(session, task_id, "images"))["results"]
        assert len({result["url"] for result in results}) == made
        assert {result["revised_prompt"] for result in results} == {"A red fox"}


async def test_what_is_strange_but_text_is_taken(session: aiohttp.ClientSession) -> None:
    """A prompt that is no text to a computer, half a character, is one to JSON."""
    prompt = json.loads('"\\ud800"')
    for kind, field in [("images", "prompt"), ("speech", "input")]:
        await calls.create(session, kind, **{field: prompt + prompt})


async def test_the_epoch_is_the_callers() -> None:
    """Every kind goes by the epoch that was given."""
    async with (
        Emulator("key", epoch=0.5) as early,
        aiohttp.ClientSession(early.base_url, headers={"Authorization": "key"}) as session,
    ):
        ids = {kind: early.add_task(DONE, kind=kind) for kind in KINDS}
        created = {kind: (await calls.result(session, task_id, kind))["created"] for kind, task_id in ids.items()}
    assert created["images"].startswith("1970-01-01T00:00:00.5")
    assert created["chat"] == pytest.approx(0.5, abs=0.1)
    assert created["speech"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ({"kind": "video"}, "kind must be one of chat, images, speech"),
        ({"kind": "images", "request": {"size": "big"}}, "'size'"),
        ({"kind": "speech", "model": "Llama-3.1 8B"}, "'model'"),
        ({"request": {"prompt": "A fox"}}, "additional properties"),
    ],
)
async def test_a_script_must_be_one_that_could_be(emulator: Emulator, script: dict[str, Any], complaint: str) -> None:
    """A kind that there isn't, and a request that the create call refuses, are refused in a script."""
    with pytest.raises(ValueError, match=complaint):
        emulator.add_task(**script)


async def test_a_fourth_kind_is_one_entry(
    emulator: Emulator, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an entry in the table its calls are there, and nothing else has to know of it."""
    shape = Shape({"model": lambda value: isinstance(value, str)}, {"model"})
    kind = Kind(create=shape, example={"model": "m"}, outcome="pages", result=lambda task, urls: {"pages": [1]})
    monkeypatch.setitem(KINDS, "layout", kind)
    monkeypatch.setattr(Emulator, "listeners", [])  # nothing specifies it
    code, answer = await calls.post(session, "/async/layout/create", {"model": "m"})
    assert code == 200
    assert (await calls.result(session, answer["id"], "layout"))["pages"] == []
    assert (await calls.result(session, emulator.add_task(DONE, kind="layout"), "layout"))["pages"] == [1]
