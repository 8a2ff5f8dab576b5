"""What dear answers cost in memory: `python -m tests.fuzz.costs` prints it as JSON. For `tests/faults/test_bodies.py`.

A process of its own, because what others left free in this one's memory would hide what an answer takes. Linux only.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp.compression_utils import HAS_BROTLI, HAS_ZSTD

from distribute_async import DistributeClient, DistributeError
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, MisbehavingServer

ID = "0b7dbd53-71f5-4d2b-9c0e-4dd3a2f7d6f1"
SOUND = bad.good({"status": "QUEUED", "created": 1, "model": "m", "choices": []})
GIB = 1 << 30
MIB = 1 << 20


def _large(status: int, headers: dict[str, str]) -> Behaviour:
    return bad.endless(bad.head(status, headers), lambda _: b'"' + b"x" * 65_534 + b'"')


def _bomb(coding: str, body: bytes) -> Behaviour:
    return bad.good(body, **{"Content-Encoding": coding})


def answers() -> dict[str, Behaviour]:
    """Answers that would be dear to take in whole, by name: 50 MB or a gibibyte each, or without an end."""
    found = {
        "50 MB": _large(200, {"Content-Length": "50000000"}),
        "50 MB by close": _large(200, {}),
        "50 MB with an error": _large(500, {"Content-Length": "50000000"}),
        "endless chunks": bad.endless_chunks,
        "one endless chunk": bad.in_turn(
            bad.raw(bad.head(200, {"Transfer-Encoding": "chunked"}) + b"7fffffff\r\n"),
            bad.endless(b"", lambda _: b" " * 65_536),
        ),
        "a gzip bomb": _bomb("gzip", bad.compressed_zeros(GIB, 31)),
        "a gzip bomb that begins well": _bomb("gzip", bad.compressed_zeros(GIB, 31, before=b'{"status": "')),
        "a gzip bomb of 1,024 members": _bomb("gzip", gzip.compress(bytes(MIB)) * 1_024),
        "a deflate bomb": _bomb("deflate", bad.compressed_zeros(GIB, 15)),
        "a raw deflate bomb": _bomb("deflate", bad.compressed_zeros(GIB, -15)),
    }
    if HAS_BROTLI:
        packer = importlib.import_module("brotli").Compressor(quality=1)
        pieces = [packer.process(bytes(MIB)) for _ in range(GIB // MIB)]
        found["a brotli bomb"] = _bomb("br", b"".join(pieces) + packer.finish())
    if HAS_ZSTD:
        zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
        found["a zstd bomb"] = _bomb("zstd", zstd.compress(bytes(64 * MIB)) * 16)
    return found


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(of: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(of))


async def _cost(behaviour: Behaviour) -> dict[str, Any]:
    async with (
        MisbehavingServer(SOUND, behaviour) as server,
        DistributeClient("key", base_url=server.url) as client,
    ):
        await client.fetch(ID)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        _forget_peak()
        before = _memory("VmRSS")
        try:
            await client.fetch(ID)
        except DistributeError as error:
            ending = f"{type(error).__name__} {getattr(error, 'reason', '')}"
        return {"ending": ending, "requests": len(server.requests), "bytes": _memory("VmHWM") - before}


if __name__ == "__main__":
    print(json.dumps({name: asyncio.run(_cost(behaviour)) for name, behaviour in answers().items()}))
