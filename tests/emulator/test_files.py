"""The files behind the URLs of results: what they are, when they are there, and who may have them."""

from __future__ import annotations

import asyncio
import io
import struct
import wave
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from distribute_async.emulator import Emulator, fault
from tests.emulator import calls

DONE = [(0, "COMPLETED")]


@pytest.fixture
async def stranger() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that has no key."""
    async with aiohttp.ClientSession() as session:
        yield session


async def urls(session: aiohttp.ClientSession, task_id: str, kind: str) -> list[str]:
    return [result["url"] for result in (await calls.result(session, task_id, kind))["results"]]


async def files(session: aiohttp.ClientSession, emulator: Emulator, kind: str, **request: Any) -> list[bytes]:
    """The files of a new task."""
    task_id = emulator.add_task(DONE, kind=kind, request=request)
    found = []
    async with aiohttp.ClientSession() as stranger:
        for url in await urls(session, task_id, kind):
            async with stranger.get(url) as response:
                assert response.status == 200
                found.append(await response.read())
    return found


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and the colours of all pixels, red, green and blue each; by the PNG specification."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(kind + data),)
        chunks.append((kind, data))
        at += 12 + length
    assert at == len(png)
    assert [kind for kind, _ in chunks] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    (_, head), (_, palette), (_, packed), (_, end) = chunks
    width, height, depth, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", head)
    assert (depth, colour, packing, filtering, interlace, end) == (8, 3, 0, 0, 0, b"")
    rows = zlib.decompress(packed)
    assert len(rows) == height * (width + 1)
    assert set(rows[:: width + 1]) == {0}
    indexes = b"".join(rows[start + 1 : start + 1 + width] for start in range(0, len(rows), width + 1))
    assert 3 * max(indexes) < len(palette) == 768
    return width, height, b"".join(palette[3 * index : 3 * index + 3] for index in indexes)


@pytest.mark.parametrize("size", ["1x1", "1x300", "300x1", "64x48", None, "1024x1024"])
async def test_a_picture_is_a_png(emulator: Emulator, session: aiohttp.ClientSession, size: str | None) -> None:
    """A picture is a PNG, whole to its last checksum, of the size that was asked for, 768 by 768 by default."""
    (png,) = await files(session, emulator, "images", **({} if size is None else {"size": size}))
    width, height, _ = pixels(png)
    assert f"{width}x{height}" == (size or "768x768")


async def test_a_picture_is_worth_looking_at(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """It has many colours, which run into each other: no pixel is far from the next one."""
    (png,) = await files(session, emulator, "images", size="256x256")
    width, _, colours = pixels(png)
    assert len({colours[n : n + 3] for n in range(0, len(colours), 3)}) > 50
    for step in (3, 3 * width):
        near = [abs(a - b) for a, b in zip(colours, colours[step:], strict=False)]
        assert sum(near) / len(near) < 10


async def test_a_sound_is_a_wav(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A sound is a WAV of one second in which something is heard, without a click where it ends."""
    (wav,) = await files(session, emulator, "speech")
    with wave.open(io.BytesIO(wav)) as reader:
        assert reader.getnframes() == reader.getframerate()
        assert (reader.getnchannels(), reader.getsampwidth()) == (1, 2)
        samples = struct.unpack(f"<{reader.getnframes()}h", reader.readframes(reader.getnframes()))
    assert max(samples) > 5_000
    assert min(samples) < -5_000
    assert max(abs(a - b) for a, b in zip((0, *samples), (*samples, 0), strict=True)) < 10_000


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        pytest.param({}, {}, False, id="another task"),
        pytest.param({"seed": 1}, {"seed": 1}, True, id="the same seed"),
        pytest.param({"seed": 1}, {"seed": 2}, False, id="another seed"),
        pytest.param({"seed": 1}, {"seed": 1, "prompt": "Two foxes"}, False, id="another prompt"),
    ],
)
async def test_pictures_differ(
    emulator: Emulator, session: aiohttp.ClientSession, one: dict[str, Any], other: dict[str, Any], are_equal: bool
) -> None:
    """Two tasks make different pictures, unless they have the same prompt and seed."""
    pictures = [await files(session, emulator, "images", size="16x16", **request) for request in (one, other)]
    assert (pictures[0] == pictures[1]) is are_equal


async def test_sounds_differ(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Two tasks make different sounds."""
    assert await files(session, emulator, "speech") != await files(session, emulator, "speech")


async def test_several_pictures_differ(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """The pictures of one task are not one and the same."""
    assert len(set(await files(session, emulator, "images", n=4, size="16x16", seed=1))) == 4


async def test_a_seed_settles_files_too(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """The n-th task of an emulator's seed always makes the same file."""
    made = await files(session, emulator, "images", size="16x16")
    async with (
        Emulator(seed=7) as twin,
        aiohttp.ClientSession(twin.base_url, headers={"Authorization": twin.api_key}) as other,
    ):
        assert await files(other, twin, "images", size="16x16") == made


@pytest.mark.parametrize(("kind", "content_type"), [("images", "image/png"), ("speech", "audio/wav")])
async def test_files_need_no_key(
    emulator: Emulator, session: aiohttp.ClientSession, stranger: aiohttp.ClientSession, kind: str, content_type: str
) -> None:
    """A file is on another origin than the API, is had without a key, and comes with its type and its length."""
    (url,) = await urls(session, emulator.add_task(DONE, kind=kind), kind)
    assert url.startswith(emulator.files_url + "/")
    assert URL(url).origin() != URL(emulator.base_url).origin()
    async with stranger.get(url) as response:
        content = await response.read()
        assert (response.status, response.headers["Content-Type"]) == (200, content_type)
        assert response.headers["Content-Length"] == str(len(content))
    async with stranger.head(url) as response:
        assert response.headers["Content-Length"] == str(len(content))
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.looptime
async def test_a_file_is_there_once_its_task_is_completed(emulator: Emulator, stranger: aiohttp.ClientSession) -> None:
    """Before, and where the task ends in ERROR, there is no file."""

    async def code(task_id: str) -> int:
        async with stranger.get(f"{emulator.files_url}/{task_id}/0.wav") as response:
            return response.status

    task_id = emulator.add_task([(0, "QUEUED"), (2, "PROCESSING"), (3, "COMPLETED")], kind="speech")
    failing = emulator.add_task([(0, "QUEUED"), (2, "ERROR")], kind="speech")
    assert (await code(task_id), await code(failing)) == (404, 404)
    await asyncio.sleep(3)
    assert (await code(task_id), await code(failing)) == (200, 404)


async def test_there_are_no_other_files(emulator: Emulator, stranger: aiohttp.ClientSession) -> None:
    """Another name, another id and a task that makes none are a 404; no path of the API is one of a file."""
    picture, chat = emulator.add_task(DONE, kind="images"), emulator.add_task(DONE)
    paths = ["/", "/0.png", f"/{picture}", f"/{picture}/", f"/{picture}/1.png", f"/{picture}/0.wav"]
    paths += [f"/{picture}/0.png/", f"/{chat}/0.png", f"/{calls.UNKNOWN_ID}/0.png", "/async/chat/result"]
    for path in paths:
        async with stranger.get(emulator.files_url + path) as response:
            assert response.status == 404, path
    async with stranger.get(f"{emulator.files_url}/{picture.upper()}/0.png") as response:
        assert response.status == 200
    async with stranger.get(f"{emulator.base_url}/{picture}/0.png") as response:
        assert response.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_files_are_read_only(emulator: Emulator, stranger: aiohttp.ClientSession, method: str) -> None:
    """A file is there to be read, and who wants something else is told so."""
    url = f"{emulator.files_url}/{emulator.add_task(DONE, kind='speech')}/0.wav"
    async with stranger.request(method, url) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


async def test_requests_for_files_are_logged_apart(
    emulator: Emulator, session: aiohttp.ClientSession, stranger: aiohttp.ClientSession
) -> None:
    """They have a log of their own, in which it can be seen that no key came along."""
    task_id = emulator.add_task(DONE, kind="speech")
    (url,) = await urls(session, task_id, "speech")
    async with stranger.get(url, headers={"X-Trace": "t1"}):
        pass
    async with stranger.get(url + "x"):
        pass
    assert len(emulator.requests) == 1
    first, second = emulator.file_requests
    assert (first.method, first.path, first.task_id, first.status) == ("GET", f"/{task_id}/0.wav", task_id, 200)
    assert first.headers["x-trace"] == "t1"
    assert "authorization" not in first.headers
    assert not first.has_key
    assert second.status == 404


@pytest.mark.parametrize(
    ("headers", "query", "hidden"),
    [
        ({"Authorization": "a+key 1"}, "", "authorization"),
        ({"Authorization": "Bearer a+key 1"}, "", "authorization"),
        ({"X-Api-Key": "a+key 1"}, "", "x-api-key"),
        ({"Cookie": "a=b; c=a+key 1"}, "", "cookie"),
        ({}, "?token=a%2Bkey%201", None),
    ],
)
async def test_a_key_that_comes_along_is_seen(
    stranger: aiohttp.ClientSession, headers: dict[str, str], query: str, hidden: str | None
) -> None:
    """Wherever in a request for a file the key may be, the log says that it was there, and doesn't say the key."""
    async with Emulator("a+key 1") as emulator:
        task_id = emulator.add_task(DONE, kind="speech")
        async with stranger.get(URL(f"{emulator.files_url}/{task_id}/0.wav{query}", encoded=True), headers=headers):
            pass
    (request,) = emulator.file_requests
    assert (request.status, request.has_key) == (200, True)
    assert {name for name, value in request.headers.items() if value == "***"} == ({hidden} if hidden else set())
    assert "key 1" not in repr(request)


async def test_faults_meet_requests_for_files(
    emulator: Emulator, session: aiohttp.ClientSession, stranger: aiohttp.ClientSession
) -> None:
    """Files have faults of their own, and are there while the API is down."""
    task_id = emulator.add_task(DONE, kind="images", request={"size": "64x64"})
    (url,) = await urls(session, task_id, "images")
    emulator.down = fault.status(503)
    emulator.file_faults.extend([fault.status(302, headers={"Location": emulator.base_url}), fault.cut(1000)])
    async with stranger.get(url, allow_redirects=False) as response:
        assert response.status == 302
    with pytest.raises(aiohttp.ClientPayloadError):
        async with stranger.get(url) as response:
            await response.read()
    async with stranger.get(url) as response:
        assert pixels(await response.read())[:2] == (64, 64)
    emulator.down = None
    assert await calls.status(session, task_id, "images") == "COMPLETED"


@pytest.mark.looptime
async def test_files_come_back_with_the_emulator(stranger: aiohttp.ClientSession) -> None:
    """Left, the emulator cuts downloads too and leaves nothing; entered again, it has its files where they were."""
    before = asyncio.all_tasks()
    async with Emulator() as emulator:
        url = f"{emulator.files_url}/{emulator.add_task(DONE, kind='speech')}/0.wav"
        emulator.file_faults.append(fault.drip())
        download = asyncio.create_task(stranger.get(url))
        await asyncio.sleep(1)
    with pytest.raises(aiohttp.ClientError):
        await download
    assert asyncio.all_tasks() == before
    with pytest.raises(aiohttp.ClientConnectionError):
        await stranger.get(url)
    async with emulator, stranger.get(url) as response:
        assert response.status == 200


async def test_where_files_have_no_port_there_is_no_emulator(emulator: Emulator) -> None:
    """An emulator that can't serve its files doesn't start, and leaves nothing behind that listens."""
    other = Emulator()
    async with other:
        api, files = other.base_url, other.files_url
    async with Emulator(port=int(files.rpartition(":")[2])):
        with pytest.raises(OSError, match="in use"):
            await other.__aenter__()
    async with other:
        assert (other.base_url, other.files_url) == (api, files)


async def test_the_files_address_is_known_once_it_listens() -> None:
    """Before the first start the files have no address either."""
    with pytest.raises(RuntimeError, match="enter it first"):
        _ = Emulator().files_url


async def test_a_file_that_fails_is_a_500(stranger: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where making a file fails, who asked gets a 500, and the owner hears of it in the end."""

    def fail(_seed: str) -> bytes:
        raise KeyError

    monkeypatch.setattr("distribute_async.emulator._kinds.sound", fail)
    emulator = await Emulator().__aenter__()
    url = f"{emulator.files_url}/{emulator.add_task(DONE, kind='speech')}/0.wav"
    async with stranger.get(url) as response:
        assert response.status == 500
    with pytest.raises(ExceptionGroup, match="emulator failed"):
        await emulator.__aexit__(None, None, None)
