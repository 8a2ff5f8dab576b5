"""Hostile bodies and encodings over real sockets: each ends in a result or the right typed error, at bounded cost."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.compression_utils import HAS_BROTLI, HAS_ZSTD

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    DistributeError,
    Limits,
    RateLimitError,
    Retry,
)
from tests import misbehaving as bad
from tests.faults.cases import ID, caught, new_client, rule_of
from tests.fuzz import bodies as made
from tests.fuzz.oracle import JSON_PATHS, JsonPath, reading_json_with
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.seams import Action

#: Requests of a wait to a service that gives nothing else, by what the fault table says; backing off goes on.
ANSWERS = {Action.END: {1}, Action.MALFORMED: {3}, Action.BACK_OFF: {6, 7, 8}}


@pytest.fixture(params=JSON_PATHS)
def json_path(request: pytest.FixtureRequest) -> Iterator[JsonPath]:
    """The test runs once with orjson and once as if it wasn't installed."""
    with reading_json_with(request.param):
        yield request.param


def named(cases: list[tuple[str, bytes]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in cases])


async def ends_in(reason: str, behaviour: Behaviour, **settings: Any) -> DistributeError:
    """The error of a wait that hears nothing else; after as many answers as the fault table says."""
    async with (
        MisbehavingServer(behaviour) as server,
        new_client(server.url, retry=Retry(max_outage=10.0), **settings) as client,
    ):
        error = await caught(client.wait_for_result(ID))
    assert isinstance(error, APIConnectionError | APIResponseValidationError)
    assert error.reason == reason
    assert error.attempts == len(server.requests)
    assert error.attempts in ANSWERS[rule_of(reason).action]
    return error


async def is_taken(behaviour: Behaviour, **settings: Any) -> None:
    """The first answer is the result."""
    async with MisbehavingServer(behaviour) as server, new_client(server.url, **settings) as client:
        result = await client.wait_for_result(ID)
        assert result.created == result.to_dict()["created"]
        assert len(server.requests) == 1


@pytest.mark.looptime
@named(made.NO_JSON)
async def test_no_json_is_asked_again(json_path: JsonPath, body: bytes) -> None:
    """What is no JSON may be a proxy's bad moment: the wait goes on until its outage is too long."""
    await ends_in("not_json", bad.good(body))


@pytest.mark.looptime
@named([(name, body) for name, body in made.NO_ANSWER if len(body) <= 1 << 20])
async def test_json_that_is_no_answer_is_a_strike(json_path: JsonPath, body: bytes) -> None:
    """JSON that isn't what the API promises ends the wait with the third such answer."""
    await ends_in("shape", bad.good(body))


@pytest.mark.looptime
@pytest.mark.parametrize("field", list(made.fields()), ids=lambda field: field.name)
async def test_wrong_types_are_strikes(json_path: JsonPath, field: made.Field) -> None:
    """Each field of the specification with each wrong JSON type is a strike that names it, and null where it may be missing is none."""  # noqa: E501
    script = [bad.good(made.replaced(made.example(), field.path, value)) for value in made.wrong_values(field)]
    async with MisbehavingServer(*script) as server, new_client(server.url, retry=Retry(attempts=1)) as client:
        for _ in script:
            error = await caught(client.fetch(ID))
            assert isinstance(error, APIResponseValidationError)
            assert error.reason == "shape"
            assert f"@ .{field.name}" in str(error)
        assert len(server.requests) == len(script)
    await ends_in("shape", script[0])
    if field.takes_null:
        await is_taken(bad.good(made.replaced(made.example(), field.path, None)))


@pytest.mark.looptime
@named(made.ODD)
async def test_what_is_only_odd_is_taken(json_path: JsonPath, body: bytes) -> None:
    """An answer that is odd but sound is the result."""
    await is_taken(bad.good(body))


@pytest.mark.looptime
@pytest.mark.parametrize(
    "behaviour",
    [
        bad.good({**made.example(), "choices": made.example()["choices"] * 100_000}),
        bad.good(made.with_extra(b'"' + b"x" * (1 << 20) + b'"')),
        bad.good(b" " * (1 << 20) + made.SOUND),
        bad.chunked(*[b" " * 65_536] * 16, made.SOUND),
    ],
    ids=["100,000 choices", "a string", "blanks", "chunks"],
)
async def test_a_body_over_the_cap_ends_the_wait(behaviour: Behaviour) -> None:
    """One answer over `max_body_bytes` ends the wait: the next one would be no smaller."""
    error = await ends_in("too_large", behaviour)
    assert "1048576" in str(error)


@pytest.mark.looptime
async def test_the_cap_is_the_callers() -> None:
    """The cap counts to the byte; a higher one lets a larger answer in, where 10,000 choices are still too many."""
    size = len(made.SOUND)
    await is_taken(bad.good(made.SOUND), limits=Limits(max_body_bytes=size))
    error = await ends_in("too_large", bad.good(made.SOUND), limits=Limits(max_body_bytes=size - 1))
    assert str(size - 1) in str(error)
    many = bad.good({**made.example(), "choices": made.example()["choices"] * 10_000})
    error = await ends_in("shape", many, limits=Limits(max_body_bytes=1 << 22))
    assert "more than 1000 entries @ .choices" in str(error)


@pytest.mark.looptime
@pytest.mark.parametrize("digits", [16, 20, 400, 4_000])
async def test_a_pause_of_twenty_digits_is_one_that_is_too_long(digits: int) -> None:
    """A `Retry-After` of however many digits is a pause: it ends the wait that got it, and holds the others back."""
    told = bad.status(429, {"message": "later"}, Retry_After="9" * digits)
    async with MisbehavingServer(told, bad.good(made.SOUND)) as server, new_client(server.url) as client:
        error = await caught(client.wait_for_result(ID))
        assert isinstance(error, RateLimitError)
        assert error.retry_after is not None
        assert Retry().max_retry_after < error.retry_after < math.inf
        assert (error.attempts, len(server.requests)) == (1, 1)
        began = asyncio.get_running_loop().time()
        await client.wait_for_result(ID)
        assert asyncio.get_running_loop().time() - began >= Retry().max_retry_after


# Encodings.


def encoded(coding: str, body: bytes) -> Behaviour:
    return bad.good(body, **{"Content-Encoding": coding})


def deflated(body: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(body) + packer.flush()


def brotli(body: bytes) -> bytes:
    module = pytest.importorskip("brotli")
    packed: bytes = module.compress(body)
    return packed


def zstd(body: bytes) -> bytes:
    module = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    packed: bytes = module.compress(body)
    return packed


HALF = len(made.SOUND) // 2


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:HALF]) + gzip.compress(body[HALF:])),
        ("gzip", lambda body: gzip.compress(b" " * 1_000_000 + body)),
        ("deflate", zlib.compress),
        ("deflate", lambda body: deflated(body, -15)),
        ("identity", bytes),
        ("utf-8", bytes),
        ("", bytes),
        ("br", brotli),
        ("zstd", zstd),
    ],
    ids=["gzip", "case", "members", "1 MB", "deflate", "raw deflate", "identity", "nonsense", "blank", "br", "zstd"],
)
async def test_a_sound_encoding_is_undone(coding: str, pack: Callable[[bytes], bytes]) -> None:
    """The encodings that the client asks for are undone, and a name that means nothing does nothing."""
    await is_taken(encoded(coding, pack(made.SOUND)))


GZIPPED = gzip.compress(made.SOUND)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("coding", "body", "reason"),
    [
        ("gzip", made.SOUND, "body"),
        ("deflate", GZIPPED, "body"),
        ("gzip", zlib.compress(made.SOUND), "body"),
        ("gzip", GZIPPED[: len(GZIPPED) // 2], "not_json"),
        ("gzip", GZIPPED[:5], "not_json"),
        ("gzip", b"", "not_json"),
        ("gzip", GZIPPED[:-8] + bytes(8), "body"),
        ("gzip", GZIPPED + b"garbage", "body"),
        ("gzip", gzip.compress(b"") * 2_000, "body"),
        ("identity", GZIPPED, "not_json"),
        ("nonsense", GZIPPED, "not_json"),
        ("gzip, gzip", gzip.compress(GZIPPED), "not_json"),
        ("gzip", gzip.compress(GZIPPED), "not_json"),
        # What aiohttp can't undo without a library that isn't installed counts as broken too.
        ("br", b"\xff" * 99, "body" if HAS_BROTLI else "protocol"),
        ("zstd", b"\xff" * 99, "body" if HAS_ZSTD else "protocol"),
    ],
    ids=[
        *("none", "gzip as deflate", "deflate as gzip", "cut", "cut in its head", "nothing", "bad checksum"),
        *("garbage after it", "2,000 members", "undeclared", "unknown name", "twice", "twice, told once"),
        *("bad br", "bad zstd"),
    ],
)
async def test_a_broken_encoding_is_a_fault(coding: str, body: bytes, reason: str) -> None:
    """Mislabelled, cut, nested and broken encodings are typed errors that another attempt may better."""
    await ends_in(reason, encoded(coding, body))


# What they cost.

COSTLY = [
    *("50 MB", "50 MB by close", "50 MB with an error", "endless chunks", "one endless chunk"),
    *("a gzip bomb", "a gzip bomb that begins well", "a gzip bomb of 1,024 members"),
    *("a deflate bomb", "a raw deflate bomb", "a brotli bomb", "a zstd bomb"),
]
#: Those that aiohttp can't undo here, for want of a library.
NOT_UNDONE = {name for name, has in [("a brotli bomb", HAS_BROTLI), ("a zstd bomb", HAS_ZSTD)] if not has}


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[str, Any]]:
    """What each costly answer ended in, and the most memory that it took beyond what was in use."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells a process its peak of memory")
    program = [sys.executable, "-m", "tests.fuzz.costs"]
    done = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", COSTLY)
def test_no_answer_costs_much_memory(costs: dict[str, dict[str, Any]], name: str) -> None:
    """50 MB, a bomb of 1 GiB and endless chunks cost under 64 MiB of extra memory, and one answer ends the call."""
    if name in NOT_UNDONE:
        pytest.skip("aiohttp doesn't undo this encoding here")
    cost = costs[name]
    assert (cost["ending"], cost["requests"]) == ("APIResponseValidationError too_large", 2)
    assert cost["bytes"] < 64 << 20


def test_every_cost_is_judged(costs: dict[str, dict[str, Any]]) -> None:
    """All answers are measured but those that can't be undone here, and none is measured and then forgotten."""
    assert costs.keys() == set(COSTLY) - NOT_UNDONE
