"""Kinds of task: pictures and sounds, and that a fourth kind is a line, a request and a model."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import field, frozen

from distribute_async import (
    APIResponseValidationError,
    DistributeClient,
    File,
    ImageResult,
    InvalidRequestError,
    NotFoundError,
    SpeechResult,
    TaskFailedError,
    Watch,
)
from distribute_async._engine.kinds import Kind
from distribute_async._wire.models import TaskResult
from distribute_async._wire.requests import TaskRequest
from distribute_async.emulator import Emulator
from distribute_async.emulator import _kinds as emulated
from distribute_async.emulator._checks import Shape
from tests import misbehaving as bad
from tests import seams
from tests.misbehaving import MisbehavingServer
from tests.waiting import ID, caught, listed, new_client, now

LIFE = [(0, "QUEUED"), (3, "PROCESSING"), (6, "COMPLETED")]
DONE = [(0, "COMPLETED")]
FAILED = [(0, "QUEUED"), (2, "ERROR")]
FILE = {"url": "https://files.example/0.png", "revised_prompt": "A red fox"}
PICTURE: dict[str, Any] = {
    "id": ID,
    "status": "COMPLETED",
    "created": "2023-11-14T22:13:20.500Z",
    "finished": "2023-11-14T23:13:20+01:00",
    "model": "Flux.1 [dev]",
    "results": [FILE],
}
SOUND: dict[str, Any] = {
    "id": ID,
    "status": "COMPLETED",
    "created": 1_700_000_000,
    "finished": 1_700_000_002.5,
    "model": "Chatterbox",
    "results": [{"url": "https://files.example/0.wav"}],
}
ANSWERS: dict[str, tuple[dict[str, Any], type[TaskResult]]] = {
    "images": (PICTURE, ImageResult),
    "speech": (SOUND, SpeechResult),
}


async def fetched(kind: str, said: Any) -> Any:
    """What the client makes of an answer."""
    async with MisbehavingServer(bad.good(said)) as server, new_client(server.url) as client:
        return await getattr(client, kind).fetch(ID)


@pytest.mark.looptime
@pytest.mark.parametrize("kind", ["chat", "images", "speech"])
async def test_a_kind_by_its_name(emulator: Emulator, client: DistributeClient, kind: str) -> None:
    """The tasks of a kind can be had by its name, as by the client's attribute of that name."""
    task_id = emulator.add_task(DONE, kind=kind)
    assert await client.tasks(kind).wait_for_result(task_id) == await getattr(client, kind).fetch(task_id)
    assert repr(client.tasks(kind)) == repr(getattr(client, kind))


@pytest.mark.parametrize("kind", ["pictures", "", "CHAT", None, []])
async def test_a_name_of_no_kind(client: DistributeClient, kind: Any) -> None:
    """A kind that there isn't is refused with the names of those that there are."""
    with pytest.raises(ValueError, match="kind must be one of chat, images, speech, not "):
        client.tasks(kind)


# A fourth kind: this much, and nothing else.


@frozen(kw_only=True)
class VideoRequest(TaskRequest):
    """A task that makes videos."""

    model: str
    scenes: list[str] = field(factory=list)
    seconds: float | None = None


@frozen(kw_only=True)
class VideoResult(TaskResult):
    """An answer of `/async/videos/result`."""

    frames: tuple[File, ...] = ()

    @property
    def has_output(self) -> bool:
        return bool(self.frames)


VIDEOS = Kind("videos", "async/videos", VideoRequest, VideoResult)


@pytest.fixture
def video_emulator(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An emulator that has videos too."""
    kind = emulated.Kind(
        create=Shape(
            {
                "model": lambda value: isinstance(value, str),
                "scenes": lambda value: isinstance(value, list),
                "seconds": lambda value: isinstance(value, int | float),
            },
            {"model", "scenes"},
        ),
        example={"model": "a-model", "scenes": []},
        outcome="frames",
        result=lambda task, urls: {"frames": [{"url": f"https://files.example/{task.id}"}]},
    )
    monkeypatch.setitem(emulated.KINDS, "videos", kind)
    monkeypatch.setattr(Emulator, "listeners", [])  # nothing specifies them
    return emulator


@pytest.mark.looptime
async def test_a_fourth_kind_is_submitted(video_emulator: Emulator, client: DistributeClient) -> None:
    """A new kind is created from its own fields, and its handle is a `Watch` of its own result."""
    videos = seams.tasks_of(client, VIDEOS)
    task = await videos.submit(model="a-model", scenes=["a fox"], seconds=2, timeout=None)
    assert isinstance(task, Watch)
    assert (await listed(task))[-1] == "COMPLETED"
    result = await task
    assert isinstance(result, VideoResult)
    assert result.frames == (File(url=f"https://files.example/{task.id}"),)
    assert (await videos.submit_and_wait(model="a-model")).has_output
    assert {request.path for request in video_emulator.requests} == {"/async/videos/create", "/async/videos/result"}
    assert "videos" in repr(videos)
    with pytest.raises(TypeError, match="prompt"):
        await videos.submit(model="a-model", prompt="a fox")
    await caught(videos.submit(model="a-model", extra_body={"scenes": object()}), InvalidRequestError)


@pytest.mark.looptime
async def test_a_fourth_kind_is_followed(video_emulator: Emulator, client: DistributeClient) -> None:
    """Every way of following a task works for a new kind: fetch, watch, wait, many at once."""
    videos = seams.tasks_of(client, VIDEOS)
    ids = [video_emulator.add_task(LIFE, kind="videos") for _ in range(3)]
    failing = video_emulator.add_task(FAILED, kind="videos")
    assert (await videos.fetch(ids[0])).status == "QUEUED"
    assert await listed(videos.watch(ids[0])) == ["QUEUED", "PROCESSING", "COMPLETED"]
    assert isinstance(await videos.wait_for_result(ids[1]), VideoResult)
    with pytest.raises(TaskFailedError) as raised:
        await videos.wait_for_result(failing)
    assert isinstance(raised.value.result, VideoResult)
    outcomes = {outcome.task_id: outcome async for outcome in videos.as_completed([*ids, failing])}
    assert all(isinstance(outcomes[task_id].unwrap(), VideoResult) for task_id in ids)
    assert isinstance(outcomes[failing].error, TaskFailedError)
    later = video_emulator.add_task(LIFE, kind="videos")
    changes = [change async for change in videos.watch_many([later])]
    assert [change.status for change in changes] == ["QUEUED", "PROCESSING", "COMPLETED"]
    assert isinstance(changes[-1].result, VideoResult)
    await caught(client.fetch(later), NotFoundError)


# Images and speech.


@pytest.mark.looptime
@pytest.mark.parametrize(("kind", "result_type"), [(kind, answer[1]) for kind, answer in ANSWERS.items()])
async def test_pictures_and_sounds_are_followed(
    kind: str, result_type: type[Any], emulator: Emulator, client: DistributeClient
) -> None:
    """Every way of following a task works for images and for speech."""
    tasks = getattr(client, kind)
    ids = [emulator.add_task(LIFE, kind=kind) for _ in range(2)]
    failing = emulator.add_task(FAILED, kind=kind)
    first = await tasks.fetch(ids[0])
    assert (first.status, first.results, first.finished_at, first.has_output) == ("QUEUED", (), None, False)
    assert await listed(tasks.watch(ids[0])) == ["QUEUED", "PROCESSING", "COMPLETED"]
    result = await tasks.wait_for_result(ids[1])
    assert type(result) is result_type
    assert result.results[0].url.startswith(emulator.files_url)
    assert isinstance((await caught(tasks.wait_for_result(failing), TaskFailedError)).result, result_type)
    outcomes = [outcome async for outcome in tasks.as_completed([*ids, failing])]
    assert sorted(type(outcome.error).__name__ for outcome in outcomes) == ["NoneType", "NoneType", "TaskFailedError"]
    later = emulator.add_task(LIFE, kind=kind)
    assert [change.status async for change in tasks.watch_many([later])] == ["QUEUED", "PROCESSING", "COMPLETED"]


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_round_trips(kind: str) -> None:
    """A result gives back what was sent, pickles, and may be in a set; fields that nobody knows stay in `extra`."""
    said, result_type = ANSWERS[kind]
    odd = {**said, "eta": [1, {"n": None}], "results": [{**said["results"][0], "seed": 7}, {"seed": 8}, {}]}
    for one in (said, odd):
        result = await fetched(kind, one)
        assert type(result) is result_type
        assert result.to_dict() == one
        assert json.loads(json.dumps(result.to_dict())) == one
        twin = pickle.loads(pickle.dumps(result))
        assert (twin, hash(twin)) == (result, hash(result))
        assert len({result, twin}) == 1
    result = await fetched(kind, odd)
    assert result.extra == {"eta": [1, {"n": None}]}
    assert result.results[0].extra == {"seed": 7}
    assert [file.url for file in result.results] == [said["results"][0]["url"], None, None]
    with pytest.raises(AttributeError):
        result.model = "other"


@pytest.mark.parametrize("kind", ANSWERS)
async def test_a_repr_shows_no_url_and_no_prompt(kind: str) -> None:
    """Who has a file's URL can read it, so no repr has it."""
    result = await fetched(kind, ANSWERS[kind][0])
    for shown in (repr(result), repr(result.results[0]), repr(result.results), str(TaskFailedError(result))):
        assert "files.example" not in shown
        assert "fox" not in shown
    assert "<1>" in repr(result)


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is in Tokyo."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_utc")
async def test_times_may_be_text_or_numbers() -> None:
    """`created_at` and `finished_at` are in UTC whatever form they come in; what they can't be is None."""
    for kind in ANSWERS:
        stamps: list[tuple[Any, datetime | None]] = [
            ("2023-11-14T22:13:20.500Z", datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)),
            ("2023-11-14T23:13:20+01:00", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
            ("2023-11-14T22:13:20", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
            (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
            (1_700_000_000_500, datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)),
            ("", None),
            ("yesterday", None),
            ("9999-12-31T23:59:59-14:00", None),
            ("0001-01-01T00:00:00+14:00", None),
            (1e300, None),
        ]
        for stamp, moment in stamps:
            result = await fetched(kind, {**ANSWERS[kind][0], "created": stamp, "finished": stamp})
            assert (result.created_at, result.finished_at) == (moment, moment), stamp
            assert (result.created, result.finished) == (stamp, stamp)


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("change", [{"finished": None}, {"results": None}, {"id": None}, {"results": []}], ids=str)
async def test_null_is_left_out(kind: str, change: dict[str, Any]) -> None:
    """Null for what may be missing, and no results yet, are a sound answer."""
    said = {**ANSWERS[kind][0], "status": "QUEUED", **change}
    result = await fetched(kind, said)
    expected = {"results": [], **{name: value for name, value in said.items() if value is not None}}
    assert result.to_dict() == expected


@pytest.mark.looptime
@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(
    "change",
    [
        {"results": {}},
        {"results": "https://files.example"},
        {"results": ["https://files.example"]},
        {"results": [{"url": 7}]},
        {"results": [None]},
        {"created": True},
        {"created": []},
        {"created": None},
        {"status": 1},
        {"model": None},
        {"finished": {}},
    ],
    ids=str,
)
async def test_the_wrong_shape_is_an_error(kind: str, change: dict[str, Any]) -> None:
    """An answer of another shape is told by the path of its field, without its value."""
    async with MisbehavingServer(bad.good({**ANSWERS[kind][0], **change})) as server, new_client(server.url) as client:
        error = await caught(getattr(client, kind).fetch(ID), APIResponseValidationError)
        (name,) = change
        assert name in str(error)
        assert "files.example" not in str(error)


@pytest.mark.looptime
async def test_completed_without_files_is_completed() -> None:
    """COMPLETED is the end whether there are results or not; an unknown ending without any failed."""
    async with MisbehavingServer(bad.good({**PICTURE, "results": []})) as server, new_client(server.url) as client:
        assert (await client.images.wait_for_result(ID)).results == ()
    for results, is_failed in (([], True), ([FILE], False)):
        said = {**PICTURE, "status": "EXPIRED", "results": results}
        async with MisbehavingServer(bad.good(said)) as server, new_client(server.url) as client:
            if is_failed:
                await caught(client.images.wait_for_result(ID), TaskFailedError)
            else:
                assert (await client.images.wait_for_result(ID)).results[0].url == FILE["url"]


@pytest.mark.looptime
async def test_kinds_do_not_share_what_they_know() -> None:
    """Two tasks of different kinds with the same id are two tasks: each is asked for on its own path."""

    async def answer(reader: Any, writer: Any, request: bytes) -> None:
        said = PICTURE if b"/images/" in request else SOUND
        is_over = now() - began > (2 if said is PICTURE else 4)
        writer.write(bad.answer({**said, "status": "COMPLETED" if is_over else "QUEUED"}))

    async with MisbehavingServer(answer) as server, new_client(server.url) as client:
        began = now()
        waits = [
            client.images.wait_for_result(ID),
            client.speech.wait_for_result(ID),
            client.speech.wait_for_result(ID),
        ]
        picture, *sounds = await asyncio.gather(*waits)
        assert isinstance(picture, ImageResult)
        assert [type(sound) for sound in sounds] == [SpeechResult] * 2
        assert now() - began > 4
        assert client.images.watch(ID).status is None
    paths = [request.path for request in server.requests]
    assert 3 <= paths.count("/async/images/result") < paths.count("/async/speech/result") <= 6


async def test_the_kinds_of_a_client() -> None:
    """A client has chat, images and speech, which its own methods are short for chat."""
    client = DistributeClient("a-key", base_url="http://127.0.0.1:9")
    for kind in ("chat", "images", "speech"):
        assert repr(getattr(client, kind)) == f"<{kind} tasks of <DistributeClient for 127.0.0.1>>"
    await client.close()


@pytest.mark.looptime
async def test_all_kinds_at_once(emulator: Emulator, client: DistributeClient) -> None:
    """One client follows tasks of all kinds beside each other, and mixes none up."""
    ids = {kind: emulator.add_task(DONE, kind=kind) for kind in ("chat", "images", "speech")}
    chat = await client.wait_for_result(ids["chat"])
    image = await client.images.wait_for_result(ids["images"])
    speech = await client.speech.wait_for_result(ids["speech"])
    assert chat.text
    assert image.results[0].revised_prompt
    assert speech.results[0].revised_prompt is None
    for kind in ids:
        for other, task_id in ids.items():
            if kind != other:
                assert (await caught(getattr(client, kind).fetch(task_id), NotFoundError)).task_id == task_id
