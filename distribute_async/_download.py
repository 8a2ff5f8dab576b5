"""A file behind a result's URL, streamed to disk. It has a session of its own: the API key can't get into it.

Used by `_media`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
from pathlib import Path
from typing import BinaryIO

import aiohttp
from yarl import URL

from distribute_async._codec import status_error
from distribute_async._config import is_loopback, wait_timeout
from distribute_async._errors import APIResponseValidationError, APITimeoutError, DistributeError
from distribute_async._session import connection_fault

#: Bytes of one file, by default.
MAX_BYTES = 100_000_000
#: Seconds for one file, by default.
TIMEOUT = 300.0
#: Redirects in a row that are followed; storage services answer with one or two.
MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_PIECE = 1 << 16


async def download(url: str | None, path: Path, *, max_bytes: int, timeout: float | None) -> Path:
    """See `File.download`."""
    wait_timeout(timeout)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        fault = await _fetched(url, part, max_bytes, timeout)
        if fault is None:
            await asyncio.to_thread(part.replace, path)
    finally:
        part.unlink(missing_ok=True)
    if fault is not None:
        raise fault
    return path


async def _fetched(url: str | None, part: Path, max_bytes: int, timeout: float | None) -> DistributeError | None:
    """Stream what is behind a URL to `part`; gives what went wrong on the way here, raises what did on the disk."""
    try:
        async with (
            asyncio.timeout(timeout),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
        ):
            target: URL | None = None
            for _ in range(MOST_REDIRECTS + 1):
                target = _target(url, target)
                if target is None:
                    return APIResponseValidationError("the result has no URL, or one that is not fit to be asked")
                async with session.get(target, allow_redirects=False, timeout=_NO_TIMEOUT) as response:
                    if response.status in _REDIRECTS:
                        url = response.headers.get("location")
                        continue
                    if response.status != 200:
                        return status_error(response.status, response.headers, b"")
                    return await _written(response, part, max_bytes)
            return APIResponseValidationError(f"more than {MOST_REDIRECTS} redirects in a row")
    except TimeoutError:
        return APITimeoutError(f"the file didn't come within {timeout:g} s")
    except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
        return connection_fault(error)


#: The whole of it has one; aiohttp's own would end a large file after five minutes.
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


def _target(url: str | None, base: URL | None) -> URL | None:
    """The address to ask next: https, or this machine; without a password in it. None where it is not fit for that."""
    if not url:
        return None
    try:
        target = URL(url) if base is None else base.join(URL(url))
        host, _ = target.host, target.port
    except ValueError:
        return None
    is_safe = target.scheme == "https" or (target.scheme == "http" and host is not None and is_loopback(host))
    return target if host and is_safe and target.user is None and target.password is None else None


async def _written(response: aiohttp.ClientResponse, part: Path, max_bytes: int) -> DistributeError | None:
    size = 0
    file: BinaryIO = await asyncio.to_thread(part.open, "xb")
    with file:
        async for piece in response.content.iter_chunked(_PIECE):
            size += len(piece)
            if size > max_bytes:
                return APIResponseValidationError(f"the file is larger than {max_bytes} bytes", "too_large")
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(_flush, file)
    return None


def _flush(file: BinaryIO) -> None:
    # Before it gets its name: a machine that loses power must not have half a file under it.
    file.flush()
    os.fsync(file.fileno())
