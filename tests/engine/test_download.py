"""Files of results: whole or not at all, never with the key, and no larger than asked for."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import os
import pickle
import random
import resource
import signal
import socket
import ssl
import stat
import sys
import tracemalloc
import tty
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    DistributeClient,
    DistributeError,
    File,
    ImageResult,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TaskStatus,
)
from distribute_async.emulator import Emulator, fault
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.waiting import ID, caught, new_client, tasks, turns

DONE = [(0, "COMPLETED")]
CONTENT = random.Random(7).randbytes(200_000)
#: The whole answer with a file.
GOOD = bad.raw(bad.answer(CONTENT))
ANSWER = bad.answer(CONTENT)


def signed(server: MisbehavingServer) -> str:
    """The URL of a file, with what gives access to it."""
    return f"{server.url}/file?signature=5ec2e7"


def local(url: str) -> File:
    """A file as a service on this machine names it."""
    return File(url=url, is_local=True)


def left(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, hidden or not."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parts_in(*folders: Path) -> list[Path]:
    """What downloads that aren't over have left in folders."""
    return [path for folder in folders for path in folder.glob(".*.part")]


def is_fifo(path: Path) -> bool:
    return path.is_fifo()


async def begun_in(folder: Path) -> None:
    """Until something of a download is in a folder."""
    while not any(content for name, content in left(folder).items() if name.startswith(".")):  # noqa: ASYNC110
        await asyncio.sleep(0.001)  # of another process or thread, which no event tells


# The way it should go.


@pytest.mark.parametrize(("kind", "name"), [("images", "fox.png"), ("speech", "fox.wav")])
async def test_a_file_is_saved_as_it_is(
    kind: str, name: str, emulator: Emulator, client: DistributeClient, tmp_path: Path
) -> None:
    """What is saved are the bytes behind the URL, under the name that was given, which comes back as a path."""
    result = await getattr(client, kind).wait_for_result(emulator.add_task(DONE, kind=kind))
    path = tmp_path / name
    assert await result.download(path) == path
    assert await result.results[0].download(str(path) + "2") == tmp_path / f"{name}2"
    async with aiohttp.ClientSession() as session, session.get(result.results[0].url) as response:
        content = await response.read()
    assert left(tmp_path) == {name: content, f"{name}2": content}
    assert len(content) > 1000


async def test_each_file_of_several(emulator: Emulator, client: DistributeClient, tmp_path: Path) -> None:
    """`result.download` is the first file; the others are downloaded by themselves, at the same time too."""
    task_id = emulator.add_task(DONE, kind="images", request={"n": 3, "size": "16x16"})
    result = await client.images.wait_for_result(task_id)
    await asyncio.gather(*(file.download(tmp_path / f"{n}") for n, file in enumerate(result.results)))
    await result.download(tmp_path / "first")
    saved = left(tmp_path)
    assert len({saved["0"], saved["1"], saved["2"]}) == 3
    assert saved["first"] == saved["0"]


async def test_a_file_that_is_there_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    """Until the last byte has come, the old file stays as it is, and what has come is under no name of its kind."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen: list[dict[str, bytes]] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(ANSWER[:150_000])
        await writer.drain()
        await begun_in(tmp_path)
        seen.append(left(tmp_path))
        writer.write(ANSWER[150_000:])

    async with MisbehavingServer(slow) as server:
        await local(signed(server)).download(path)
    (halfway,) = seen
    assert halfway.pop("file") == b"old"
    ((part, begun),) = halfway.items()
    assert part.startswith(".")
    assert CONTENT.startswith(begun)
    assert left(tmp_path) == {"file": CONTENT}


async def test_two_downloads_to_one_path(tmp_path: Path) -> None:
    """Of two at once, one wins, as a whole."""
    other = CONTENT[::-1]
    async with MisbehavingServer(GOOD, bad.raw(bad.answer(other))) as server:
        await asyncio.gather(*(local(signed(server)).download(tmp_path / "file") for _ in range(2)))
    assert left(tmp_path) in ({"file": CONTENT}, {"file": other})


@pytest.mark.parametrize("name", ["x" * 255, "with a blank", ".hidden", "\N{SNOWMAN}"])
async def test_any_name_that_the_disk_takes(name: str, tmp_path: Path) -> None:
    """A name of whatever length is fine where the file system takes it."""
    async with MisbehavingServer(GOOD) as server:
        await local(signed(server)).download(tmp_path / name)
    assert left(tmp_path) == {name: CONTENT}


async def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    """No byte is a whole file of none."""
    async with MisbehavingServer(bad.raw(bad.answer(b""))) as server:
        await local(signed(server)).download(tmp_path / "file", max_bytes=1)
    assert left(tmp_path) == {"file": b""}


WIRE: dict[str, Behaviour] = {
    "length": GOOD,
    "chunks": bad.chunked(CONTENT[:70_000], CONTENT[70_000:]),
    "until the end": bad.http10(CONTENT),
    "gzip": bad.raw(bad.answer(gzip.compress(CONTENT), headers={"Content-Encoding": "gzip"})),
    "deflate": bad.raw(bad.answer(zlib.compress(CONTENT), headers={"Content-Encoding": "deflate"})),
    "raw deflate": bad.raw(bad.answer(zlib.compress(CONTENT, wbits=-15), headers={"Content-Encoding": "Deflate"})),
    "x-gzip": bad.raw(
        bad.answer(gzip.compress(CONTENT) + bytes(9), headers={"Content-Encoding": "aws-chunked, x-gzip"})
    ),
    "gzip in chunks": bad.chunked(
        *(gzip.compress(CONTENT)[at : at + 999] for at in range(0, 201_000, 999)), headers={"Content-Encoding": "gzip"}
    ),
    "no coding": bad.raw(bad.answer(CONTENT, headers={"Content-Encoding": "aws-chunked"})),
}


async def test_no_compression_is_asked_for(tmp_path: Path) -> None:
    """A compressed stream may be cut without anybody seeing it, so the file is asked for as it is."""
    async with MisbehavingServer(GOOD) as server:
        await local(signed(server)).download(tmp_path / "file")
    assert server.requests[0].header("accept-encoding") == ["identity"]


@pytest.mark.parametrize("behaviour", WIRE.values(), ids=WIRE)
async def test_the_cap_is_exact(behaviour: Behaviour, tmp_path: Path) -> None:
    """A file of `max_bytes` is taken, however it comes; one of a byte more is an error, and leaves nothing."""
    async with MisbehavingServer(behaviour) as server:
        file = local(signed(server))
        await file.download(tmp_path / "file", max_bytes=len(CONTENT))
        assert left(tmp_path) == {"file": CONTENT}
        (tmp_path / "file").unlink()
        error = await caught(file.download(tmp_path / "file", max_bytes=len(CONTENT) - 1), APIResponseValidationError)
        assert error.reason == "too_large"
        assert str(len(CONTENT) - 1) in str(error)
        assert left(tmp_path) == {}


@pytest.mark.parametrize("kind", ["plain", "gzip"])
async def test_memory_is_bounded(kind: str, tmp_path: Path) -> None:
    """A large file, and one that only unpacks to a large one, go through in pieces."""
    size = 8 << 20

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(bad.head(200, {"Content-Length": str(size)}))
        for _ in range(size >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()

    packed = bad.raw(bad.answer(gzip.compress(bytes(size)), headers={"Content-Encoding": "gzip"}))
    async with MisbehavingServer(plain if kind == "plain" else packed) as server:
        tracemalloc.start()
        try:
            await local(signed(server)).download(tmp_path / "file")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (tmp_path / "file").stat().st_size == size
    assert peak < 3 << 20


async def test_a_bomb_is_stopped(tmp_path: Path) -> None:
    """What would unpack to a thousand times its size is stopped at the cap."""
    packed = bad.compressed_zeros(200 << 20, 31)
    async with MisbehavingServer(bad.raw(bad.answer(packed, headers={"Content-Encoding": "gzip"}))) as server:
        tracemalloc.start()
        try:
            error = await caught(
                local(signed(server)).download(tmp_path / "file", max_bytes=1 << 20), APIResponseValidationError
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert error.reason == "too_large"
    assert peak < 4 << 20
    assert left(tmp_path) == {}


# What goes wrong: a typed error, and nothing is left behind.


def packed(body: bytes, coding: str = "gzip") -> Behaviour:
    return bad.raw(bad.answer(body, headers={"Content-Encoding": coding}))


FAULTS: dict[str, tuple[Behaviour, type[DistributeError]]] = {
    "cut at once": (bad.close, APIConnectionError),
    "reset at once": (bad.reset, APIConnectionError),
    "cut in the head": (bad.raw_and_close(ANSWER[:20]), APIConnectionError),
    "cut after the head": (bad.raw_and_close(bad.head(200, {"Content-Length": "9"})), APIConnectionError),
    "cut half-way": (bad.raw_and_close(ANSWER[:100_000]), APIConnectionError),
    "reset half-way": (bad.raw_and_reset(ANSWER[:100_000]), APIConnectionError),
    "a byte short": (bad.raw_and_close(ANSWER[:-1]), APIConnectionError),
    "chunks cut": (
        bad.raw_and_close(bad.head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n"),
        APIConnectionError,
    ),
    "no gzip": (bad.raw(bad.answer(CONTENT, headers={"Content-Encoding": "gzip"})), APIConnectionError),
    "deflate cut": (
        bad.raw(bad.answer(zlib.compress(CONTENT)[:-9], headers={"Content-Encoding": "deflate"})),
        APIConnectionError,
    ),
    "raw deflate cut": (packed(zlib.compress(CONTENT, wbits=-15)[:-9], "deflate"), APIConnectionError),
    "gzip cut": (packed(gzip.compress(CONTENT)[:100_000]), APIConnectionError),
    "gzip cut until the end": (
        bad.raw_and_close(
            bad.head(200, {"Content-Encoding": "gzip"}, version="1.0") + gzip.compress(CONTENT)[:100_000]
        ),
        APIConnectionError,
    ),
    "gzip a byte short": (packed(gzip.compress(CONTENT)[:-1]), APIConnectionError),
    "gzip without its end": (packed(gzip.compress(CONTENT)[:-8]), APIConnectionError),
    "gzip cut in its head": (packed(gzip.compress(CONTENT)[:5]), APIConnectionError),
    "gzip of nothing": (packed(b""), APIConnectionError),
    "gzip with a wrong checksum": (packed(gzip.compress(CONTENT)[:-8] + bytes(8)), APIConnectionError),
    "gzip with more after it": (packed(gzip.compress(CONTENT) + b"more"), APIConnectionError),
    "gzip with more long after it": (packed(gzip.compress(CONTENT) + bytes(100_000) + b"more"), APIConnectionError),
    "gzip twice": (packed(gzip.compress(gzip.compress(CONTENT)), "gzip, gzip"), APIResponseValidationError),
    "br": (packed(CONTENT, "br"), APIResponseValidationError),
    "zstd": (packed(CONTENT, "zstd"), APIResponseValidationError),
    "no HTTP": (bad.raw_and_close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), APIConnectionError),
    "silence": (bad.silence(), APITimeoutError),
    "silence half-way": (bad.silence(ANSWER[:100_000]), APITimeoutError),
    "a drip": (bad.drip(ANSWER, 0.01), APITimeoutError),
    "403": (bad.status(403, {"message": "expired"}), PermissionDeniedError),
    "404": (bad.status(404, b"<html>"), NotFoundError),
    "410": (bad.status(410, CONTENT), NotFoundError),
    "429": (bad.status(429, b"", Retry_After="7"), RateLimitError),
    "500": (bad.status(500, b""), InternalServerError),
    "503": (bad.status(503, b""), InternalServerError),
    "300": (bad.status(300, b"", Location="/other"), APIStatusError),
    "304": (bad.raw(bad.head(304)), APIStatusError),
    "204": (bad.raw(bad.head(204)), APIResponseValidationError),
    "206": (bad.status(206, CONTENT), APIResponseValidationError),
    "a redirect to nowhere": (bad.status(302, b""), APIResponseValidationError),
}


@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "replaced"])
@pytest.mark.parametrize(("behaviour", "kind"), FAULTS.values(), ids=FAULTS)
async def test_what_goes_wrong_leaves_nothing(
    behaviour: Behaviour, kind: type[DistributeError], old: bytes | None, tmp_path: Path
) -> None:
    """A download that fails is a typed error, leaves no file, and keeps the one that was there."""
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    before = left(tmp_path)
    timeout = 0.1 if kind is APITimeoutError else 60
    async with MisbehavingServer(behaviour) as server:
        error = await caught(local(signed(server)).download(path, timeout=timeout), kind)
        assert len(server.requests) <= 2  # aiohttp repeats a GET that got no answer, once
    assert type(error) is kind
    assert "signature" not in str(error) + repr(error) + repr(vars(error))
    assert left(tmp_path) == before
    assert tasks() == set()


async def test_the_service_is_asked_when_to_come_back(tmp_path: Path) -> None:
    """The error of an answer without the file has its status code and `Retry-After`."""
    async with MisbehavingServer(bad.status(429, b"", Retry_After="7")) as server:
        error = await caught(local(signed(server)).download(tmp_path / "file"), RateLimitError)
    assert (error.status_code, error.retry_after) == (429, 7.0)


async def test_nobody_there(tmp_path: Path) -> None:
    """Refused connections, hosts that don't exist and certificates that don't verify are connection errors."""
    refused = local(f"http://127.0.0.1:{bad.free_port()}/file")
    assert (await caught(refused.download(tmp_path / "file"), APIConnectionError)).reason == "connect"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with MisbehavingServer(GOOD, tls=context) as server:
        error = await caught(local(signed(server)).download(tmp_path / "file"), APIConnectionError)
        assert error.reason == "certificate"
        assert server.requests == []
    assert left(tmp_path) == {}


UNFIT = [
    *(None, "", "file", "/file", "//host", "://", "https://", "https:///file", "https:file", "file:///etc/passwd"),
    *(
        "ftp://127.0.0.1/file",
        "data:text/plain,hello",
        "http://files.example/file",
        "http://10.0.0.1/",
        "http://[::2]/",
    ),
    *("https://user@files.example/", "https://user:password@files.example/", "http://:password@127.0.0.1/"),
    *("https://[::1", "https://host:99999/", "https://host:port/", "https://" + "a" * 70 + ".example/"),
    *("https://a..b/", "ws://127.0.0.1/", "HTTPX://127.0.0.1/", "javascript:alert(1)", "unix:///tmp/socket"),
    *("http://127.0.0.1.example/", "http://localhost.example/", "http://0.0.0.0/", "http://2130706434.example/"),
]


@pytest.mark.parametrize("url", UNFIT, ids=repr)
async def test_an_unfit_url_is_not_asked(url: str | None, tmp_path: Path) -> None:
    """No URL, and one that isn't https (or this machine), or has a password in it, is an error without a request."""
    for is_local in (False, True):
        for allow_private in (False, True):
            downloading = File(url=url, is_local=is_local).download(tmp_path / "file", allow_private=allow_private)
            error = await caught(downloading, APIResponseValidationError)
            assert "URL" in str(error)
            assert not url or url not in str(error)
            assert left(tmp_path) == {}


# Where a URL may lead.

#: Hosts of this machine and of private networks, and those that only look public.
PRIVATE = [
    *("127.0.0.1", "127.1.2.3", "localhost", "[::1]", "0.0.0.0", "[::]", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
    *(
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a00:1]",
        "[2002:7f00:1::]",
    ),
    *("[fc00::1]", "[fd12::1]", "[fe80::1]", "[fe80::1%25lo]", "[fec0::1]", "[ff02::1]", "[2001::1]", "[2001:db8::1]"),
    *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1."),
]


@pytest.mark.parametrize("host", PRIVATE)
async def test_a_private_address_is_not_asked(host: str, tmp_path: Path) -> None:
    """A file that a service elsewhere names at this machine or in a private network is refused without a request."""
    async with MisbehavingServer(GOOD) as server:
        for scheme in ("https", "http"):
            file = File(url=f"{scheme}://{host}:{server.port}/file")
            await caught(file.download(tmp_path / "file"), APIResponseValidationError)
        assert server.connections == 0
    assert left(tmp_path) == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "files.example"])
async def test_what_to_do_about_a_private_address(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that it is the address, and which argument follows it, and doesn't show it."""
    resolve_to(monkeypatch, {"files.example": ["127.0.0.1", "10.0.0.1"]})
    error = await caught(File(url=f"https://{host}/secret").download(tmp_path / "file"), APIResponseValidationError)
    assert "allow_private=True" in str(error)
    assert host not in str(error)
    assert "secret" not in str(error)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *turns: dict[str, list[str]]) -> list[str]:
    """Names have these addresses, at each look-up those of the next turn; gives what was looked up."""
    real, asked = socket.getaddrinfo, list[str]()

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        known = turns[min(len(asked), len(turns) - 1)].get(host)
        if known is None:
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["192.168.0.1", "169.254.169.254"], ["0.0.0.0"], ["100.64.0.1"]])
async def test_a_name_with_a_private_address_is_refused(
    addresses: list[str], is_local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is as good as its addresses, whatever it looks like; a service on this machine opens no network."""
    asked = resolve_to(monkeypatch, {"files.example": addresses})
    file = File(url="https://files.example/", is_local=is_local)
    error = await caught(file.download(tmp_path / "file"), APIResponseValidationError)
    assert "allow_private=True" in str(error)
    assert asked == ["files.example"]


async def test_a_name_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is what is connected to: a name that changes meanwhile leads nowhere else."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("files.example").configure_cert(context)
    async with MisbehavingServer(GOOD, tls=context) as server:
        asked = resolve_to(monkeypatch, {"files.example": ["127.0.0.1"]}, {"files.example": ["10.255.255.1"]})
        file = local(f"https://files.example:{server.port}/file")
        error = await caught(file.download(tmp_path / "file"), APIConnectionError)
        assert (error.reason, server.connections) == ("certificate", 1)  # it came to the first address
        assert asked == ["files.example"]


async def test_of_several_addresses_the_public_ones_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name with addresses of both kinds only those within reach are connected to."""
    async with MisbehavingServer(GOOD) as server:
        resolve_to(monkeypatch, {"localhost": ["10.255.255.1", "127.0.0.1", "192.168.255.1"]})
        url = f"http://localhost:{server.port}/file"
        await local(url).download(tmp_path / "file", timeout=5)
    assert left(tmp_path) == {"file": CONTENT}


async def test_private_addresses_may_be_allowed(tmp_path: Path) -> None:
    """With `allow_private` a file that anybody names on this machine is taken."""
    async with MisbehavingServer(GOOD) as server:
        for host in ("127.0.0.1", "localhost"):
            url = signed(server).replace("127.0.0.1", host)
            await File(url=url).download(tmp_path / host, allow_private=True)
        result = ImageResult(status=TaskStatus.COMPLETED, created=0, model="m", results=(File(url=signed(server)),))
        await result.download(tmp_path / "result", allow_private=True)
        await caught(result.download(tmp_path / "refused"), APIResponseValidationError)
        assert server.connections == 3
    assert left(tmp_path) == {"127.0.0.1": CONTENT, "localhost": CONTENT, "result": CONTENT}


async def test_a_service_elsewhere_cannot_name_this_machine(tmp_path: Path) -> None:
    """Whether a file may be on this machine goes by where the service is, not by what it says of itself."""
    async with MisbehavingServer(GOOD) as files:
        file = {"url": signed(files), "is_local": True, "_is_local": True}
        said = {"status": "COMPLETED", "created": 1, "model": "m", "id": ID, "results": [file]}
        async with MisbehavingServer(bad.good(said)) as server:
            async with new_client(server.url) as client:
                near = await client.images.fetch(ID)
            async with new_client("http://service.example", allow_insecure=True, proxy=server.url) as client:
                far = await client.images.fetch(ID)
        assert (near.results[0].is_local, far.results[0].is_local) == (True, False)
        assert near == far
        assert far.results[0].extra == {"is_local": True, "_is_local": True}
        assert near.to_dict() == far.to_dict() == said
        await caught(far.download(tmp_path / "file"), APIResponseValidationError)
        await caught(pickle.loads(pickle.dumps(far)).download(tmp_path / "file"), APIResponseValidationError)
        assert files.connections == 0
        await pickle.loads(pickle.dumps(near)).download(tmp_path / "file")
    assert left(tmp_path) == {"file": CONTENT}


async def test_no_result_no_file(tmp_path: Path) -> None:
    """A result without files has none to download, and says so."""
    result = ImageResult(status=TaskStatus.QUEUED, created=0, model="m")
    await caught(result.download(tmp_path / "file"), APIResponseValidationError)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"timeout": -1}, {"timeout": "5"}, {"timeout": float("nan")}, {"max_bytes": 0}, {"max_bytes": -1}),
        *({"max_bytes": None}, {"max_bytes": "5"}, {"max_bytes": float("nan")}, {"max_bytes": True}),
    ],
    ids=repr,
)
async def test_senseless_arguments_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    """Bounds that can't be are told before anything is asked."""
    async with MisbehavingServer(GOOD) as server:
        await caught(local(signed(server)).download(tmp_path / "file", **wrong), ConfigurationError)
        assert server.connections == 0


@pytest.mark.parametrize("timeout", [None, float("inf"), 60])
async def test_any_time_will_do(timeout: float | None, tmp_path: Path) -> None:
    """Without a timeout, or with a long one, a download takes what it takes."""
    async with MisbehavingServer(GOOD) as server:
        await local(signed(server)).download(tmp_path / "file", timeout=timeout)
    assert left(tmp_path) == {"file": CONTENT}


# The disk.


async def test_a_disk_that_refuses(tmp_path: Path) -> None:
    """What the disk says comes out as its `OSError`, and nothing is left."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    places: dict[Path, type[OSError]] = {
        tmp_path / "missing" / "file": FileNotFoundError,
        tmp_path / "file" / "file": NotADirectoryError,
        tmp_path / "folder": IsADirectoryError,
        tmp_path / ("x" * 256): OSError,
        Path("/"): OSError,
    }
    async with MisbehavingServer(GOOD) as server:
        for place, kind in places.items():
            with pytest.raises(kind):
                await local(signed(server)).download(place)
        with contextlib.chdir(tmp_path / "folder"), pytest.raises(OSError):
            await local(signed(server)).download("")
        assert left(tmp_path / "folder") == {}
        (tmp_path / "folder").rmdir()
    assert left(tmp_path) == {"file": b"old"}


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A disk that fails half-way is an `OSError`, and what was written is gone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        async with MisbehavingServer(GOOD) as server:
            with pytest.raises(OSError) as raised:
                await local(signed(server)).download(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.errno == errno.EFBIG
    assert left(tmp_path) == {}


@pytest.mark.parametrize("target", ["elsewhere/target", "../file-folder/elsewhere/target", "missing", "link2"])
@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "replaced"])
async def test_a_link_is_followed(target: str, old: bytes | None, tmp_path: Path) -> None:
    """A link stays one, and the file that it names is written, whether it is there yet or not."""
    folder = tmp_path / "file-folder"
    (folder / "elsewhere").mkdir(parents=True)
    (folder / "link2").symlink_to("elsewhere/target")
    link = folder / "link"
    link.symlink_to(target)
    if old is not None:
        link.write_bytes(old)
    async with MisbehavingServer(GOOD, bad.raw_and_close(ANSWER[:100_000])) as server:
        assert await local(signed(server)).download(link) == link
        assert link.readlink() == Path(target)
        assert link.resolve().read_bytes() == link.read_bytes() == CONTENT
        await caught(local(signed(server)).download(link), APIConnectionError)
    assert link.read_bytes() == CONTENT
    assert parts_in(folder, folder / "elsewhere") == []


async def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    """A link that leads nowhere is the disk's own error."""
    (tmp_path / "link").symlink_to("link")
    async with MisbehavingServer(GOOD) as server:
        with pytest.raises(OSError) as raised:
            await local(signed(server)).download(tmp_path / "link")
    assert raised.value.errno == errno.ELOOP
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o666, 0o755])
async def test_a_file_that_is_replaced_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    """Who may read a file may read the new one, and nobody else, while it is being written either."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    seen: list[int] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(ANSWER[:150_000])
        await writer.drain()
        await begun_in(tmp_path)
        seen.extend(stat.S_IMODE(part.stat().st_mode) for part in parts_in(tmp_path))
        writer.write(ANSWER[150_000:])

    async with MisbehavingServer(slow) as server:
        await local(signed(server)).download(path)
    assert path.read_bytes() == CONTENT
    assert (seen, stat.S_IMODE(path.stat().st_mode)) == ([mode], mode)


async def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    """A file that wasn't there is made like any other, by the process's mask; a set-user-id isn't taken over."""
    before = os.umask(0o027)
    try:
        (tmp_path / "special").write_bytes(b"old")
        (tmp_path / "special").chmod(0o4755)
        async with MisbehavingServer(GOOD) as server:
            await local(signed(server)).download(tmp_path / "file")
            await local(signed(server)).download(tmp_path / "special")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "special").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_file_that_is_replaced_keeps_its_owner(tmp_path: Path) -> None:
    """What root writes into somebody's file stays that somebody's."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 23456)
    async with MisbehavingServer(GOOD) as server:
        await local(signed(server)).download(path)
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (12345, 23456, CONTENT)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo", 0o600)
    return tmp_path / "fifo"


async def test_a_fifo_is_written_as_it_is(fifo: Path) -> None:
    """A FIFO stays one: it gets the file once somebody reads, however slowly, and its end then."""
    async with MisbehavingServer(GOOD) as server:
        downloading = asyncio.create_task(local(signed(server)).download(fifo))
        await asyncio.sleep(0.05)  # of the system's time: nobody reads yet
        assert not downloading.done()
        read = await asyncio.to_thread(fifo.read_bytes)
        assert await downloading == fifo
    assert read == CONTENT
    assert is_fifo(fifo)
    assert parts_in(fifo.parent) == []


async def test_a_fifo_that_nobody_reads(fifo: Path) -> None:
    """Where nobody reads a FIFO, or stops to, a download ends by its timeout, or when it is cancelled."""
    async with MisbehavingServer(GOOD) as server:
        await caught(local(signed(server)).download(fifo, timeout=0.1), APITimeoutError)
        downloading = asyncio.create_task(local(signed(server)).download(fifo))
        await asyncio.sleep(0.05)
        downloading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await downloading
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            await caught(local(signed(server)).download(fifo, timeout=0.1), APITimeoutError)
        finally:
            os.close(reader)
    assert is_fifo(fifo)
    assert tasks() == set()


async def test_who_stops_reading_a_fifo_is_not_the_service(fifo: Path) -> None:
    """A reader that goes away is a `BrokenPipeError` of this machine, and no fault of the service's."""
    async with MisbehavingServer(GOOD) as server:
        downloading = asyncio.create_task(local(signed(server)).download(fifo))
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        begun = b""
        while not begun:  # until something was written, there is nobody to go away from
            await asyncio.sleep(0.01)
            with contextlib.suppress(BlockingIOError):
                begun = os.read(reader, 1)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            await downloading


async def test_a_device_is_written_as_it_is(tmp_path: Path) -> None:
    """A device, here a terminal, gets the file and stays what it is; a link to it stays a link."""
    ours, terminal = os.openpty()
    tty.setraw(terminal)
    link = tmp_path / "link"
    link.symlink_to(os.ttyname(terminal))  # a careless write could replace the link alone
    try:
        async with MisbehavingServer(bad.raw(bad.answer(CONTENT[:1000]))) as server:
            assert await local(signed(server)).download(link) == link
        assert os.read(ours, 9_999) == CONTENT[:1000]
        assert link.is_symlink()
        assert link.is_char_device()
    finally:
        os.close(ours)
        os.close(terminal)
    assert parts_in(tmp_path) == []


async def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is synchronised with the disk while the old file still has the name."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    synchronised: list[tuple[int, int, bytes]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        status = os.fstat(descriptor)
        synchronised.append((status.st_ino, status.st_size, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    async with MisbehavingServer(GOOD) as server:
        await local(signed(server)).download(path)
    assert synchronised == [(path.stat().st_ino, len(CONTENT), b"old")]


@pytest.mark.parametrize("place", ["open", "fsync", "replace"])
@pytest.mark.parametrize(
    "code", [errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.ECONNREFUSED, errno.EIO, errno.ESTALE, errno.ENOSPC]
)
async def test_the_disks_own_troubles_are_the_disks(
    code: int, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a disk refuses comes out as it is, also where a network has errors of that kind: some disks are on one."""
    trouble = OSError(code, os.strerror(code))

    def fail(*_: Any, **__: Any) -> Any:
        raise trouble

    real = os.open
    if place == "open":
        monkeypatch.setattr(
            os, "open", lambda name, *more: fail() if str(name).endswith(".part") else real(name, *more)
        )
    elif place == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    async with MisbehavingServer(GOOD) as server:
        with pytest.raises(OSError) as raised:
            await local(signed(server)).download(tmp_path / "file", timeout=60)
    assert (type(raised.value), raised.value.errno) == (type(trouble), code)
    assert not isinstance(raised.value, DistributeError)
    assert left(tmp_path) == {}


# Cancelled, killed.


async def test_a_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    """Wherever it is cancelled, there is the whole file or none, no part, no asyncio task and no connection."""
    path = tmp_path / "file"
    async with MisbehavingServer(bad.in_turn(bad.raw(ANSWER[:150_000]), bad.raw(ANSWER[150_000:]))) as server:
        for count in range(60):
            downloading = asyncio.create_task(local(signed(server)).download(path))
            await turns(count)
            downloading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await downloading
            assert left(tmp_path) in ({}, {"file": CONTENT})
            path.unlink(missing_ok=True)
            assert tasks() == set()


async def test_a_download_that_is_cancelled_while_it_waits(tmp_path: Path) -> None:
    """Cancelled with half of it on the disk, nothing of it is left."""
    async with MisbehavingServer(bad.silence(ANSWER[:150_000])) as server:
        downloading = asyncio.create_task(local(signed(server)).download(tmp_path / "file"))
        await begun_in(tmp_path)
        downloading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await downloading
        assert left(tmp_path) == {}


DOWNLOAD = """
import asyncio, socket, sys
from distribute_async import DistributeError, File
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **named: look_up(host.replace("files.example", "127.0.0.1"), *more, **named)
async def main():
    for url, path in zip(sys.argv[1::2], sys.argv[2::2]):
        try:
            print((await File(url=url, is_local=True).download(path)).name, flush=True)
        except DistributeError as error:
            print(type(error).__name__, flush=True)
asyncio.run(main())
"""


@asynccontextmanager
async def another_process(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process that downloads a URL to a path, and more of them."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DOWNLOAD, *arguments),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "replaced"])
async def test_a_process_that_is_killed_leaves_no_half_file(old: bytes | None, tmp_path: Path) -> None:
    """Killed half-way, there is no file under its name, or the old one as it was."""
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    async with (
        MisbehavingServer(bad.silence(ANSWER[:150_000])) as server,
        another_process(signed(server), str(path)) as process,
    ):
        await begun_in(tmp_path)
        process.kill()
        await process.wait()
    named = {name: content for name, content in left(tmp_path).items() if not name.startswith(".")}
    assert named == ({} if old is None else {"file": old})


# Redirects, and the key.


def redirect(location: str, code: int = 302) -> Behaviour:
    return bad.status(code, CONTENT[:9], Location=location, Set_Cookie="session=5e55; Path=/")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(code: int, tmp_path: Path) -> None:
    """A redirect to this machine is followed, relative or not, with a GET that carries nothing from before."""
    async with MisbehavingServer(GOOD) as other:
        script = [redirect("/a/b", code), redirect("c?d=e", code), redirect(other.url + "/f", code)]
        async with MisbehavingServer(*script) as server:
            # By name: aiohttp's own cookie jar takes none from an address.
            await local(signed(server).replace("127.0.0.1", "localhost")).download(tmp_path / "file")
    assert left(tmp_path) == {"file": CONTENT}
    assert [request.path for request in server.requests] == ["/file?signature=5ec2e7", "/a/b", "/a/c?d=e"]
    for request in (*server.requests, *other.requests):
        assert request.line.startswith("GET ")
        assert request.header("cookie") == request.header("authorization") == request.header("referer") == []


@pytest.mark.parametrize("count", [5, 6, 100])
async def test_redirects_have_an_end(count: int, tmp_path: Path) -> None:
    """Five redirects in a row are followed, and not one more."""
    async with MisbehavingServer(*[redirect("/next")] * count, GOOD) as server:
        downloading = local(signed(server)).download(tmp_path / "file")
        if count == 5:
            await downloading
        else:
            assert "redirects" in str(await caught(downloading, APIResponseValidationError))
        assert len(server.requests) == 6
    assert left(tmp_path) == ({"file": CONTENT} if count == 5 else {})


@pytest.mark.parametrize(
    "location",
    [
        *("http://files.example/", "ftp://127.0.0.1/", "file:///etc/passwd", "//files.example/", "http://10.0.0.1/"),
        *("http://user:password@127.0.0.1/", "https://user@127.0.0.1/", "data:,hello", "http://[::1", "https://"),
        "http://127.0.0.1:99999/",
    ],
)
async def test_an_unfit_redirect_is_not_followed(location: str, tmp_path: Path) -> None:
    """A redirect to plain http elsewhere, to another scheme, or with a password is an error."""
    async with MisbehavingServer(redirect(location)) as server:
        await caught(local(signed(server)).download(tmp_path / "file"), APIResponseValidationError)
        assert len(server.requests) == 1
    assert left(tmp_path) == {}


async def test_https_stays_https(tmp_path: Path) -> None:
    """A file on https comes, also from another https address, but none that https sends on to plain http."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    folder = tmp_path / "folder"
    folder.mkdir()
    async with (
        MisbehavingServer(GOOD) as plain,
        MisbehavingServer(redirect("/other"), GOOD, redirect(plain.url), tls=context) as server,
    ):
        arguments = [signed(server), str(folder / "good"), signed(server), str(folder / "bad")]
        async with another_process(*arguments, SSL_CERT_FILE=str(tmp_path / "authority.pem")) as process:
            said, trouble = await process.communicate()
        assert (said.decode().split(), trouble) == (["good", "APIResponseValidationError"], b"")
        assert plain.connections == 0
    assert left(folder) == {"good": CONTENT}


async def test_who_is_elsewhere_cannot_send_us_back_to_this_machine(tmp_path: Path) -> None:
    """A redirect to this machine is followed from this machine alone, for a file of a service on it too."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("files.example", "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    folder = tmp_path / "folder"
    folder.mkdir()
    async with MisbehavingServer(GOOD, tls=context) as here:
        script = [GOOD, redirect(here.url), redirect(here.url.replace("127.0.0.1", "localhost"))]
        async with MisbehavingServer(*script, tls=context) as server, MisbehavingServer(redirect(here.url)) as first:
            elsewhere = server.url.replace("127.0.0.1", "files.example")
            urls = {"good": elsewhere, "back": elsewhere, "by its name": elsewhere, "from here": first.url}
            arguments = [text for name, url in urls.items() for text in (url, str(folder / name))]
            async with another_process(*arguments, SSL_CERT_FILE=str(tmp_path / "authority.pem")) as process:
                said, trouble = await process.communicate()
            refused = "APIResponseValidationError"
            assert (said.decode().splitlines(), trouble) == (["good", refused, refused, "from here"], b"")
        assert len(here.requests) == here.connections == 1
    assert left(folder) == {"good": CONTENT, "from here": CONTENT}


async def test_the_key_stays_at_home(
    emulator: Emulator, client: DistributeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request for a file has the key: not to another origin, nor to the API's, nor after a redirect there."""
    monkeypatch.setenv("DISTRIBUTE_API_KEY", emulator.api_key)
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login a password {emulator.api_key}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    task_id = emulator.add_task(DONE, kind="images", request={"size": "16x16"})
    result = await client.images.wait_for_result(task_id)
    emulator.requests.clear()
    await result.download(tmp_path / "file")
    emulator.file_faults.append(fault.status(307, headers={"Location": f"{emulator.base_url}/async/chat/result"}))
    await caught(result.download(tmp_path / "file"), APIStatusError)
    at_home = local(f"{emulator.base_url}/async/images/result")
    await caught(at_home.download(tmp_path / "file"), APIStatusError)
    assert (len(emulator.file_requests), len(emulator.requests)) == (2, 2)
    for request in [*emulator.file_requests, *emulator.requests]:
        assert not request.has_key
        assert "authorization" not in request.headers


async def test_the_environments_proxy_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download goes where the result says, whatever the environment would have it do."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with MisbehavingServer(GOOD) as server:
        await local(signed(server)).download(tmp_path / "file")
    assert left(tmp_path) == {"file": CONTENT}
