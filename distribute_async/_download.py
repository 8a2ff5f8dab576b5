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
from distribute_async._config import checked_count, is_loopback, wait_timeout
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
#: Compression would hide a cut: nobody checks the end of a gzip stream.
_PLAIN = {"accept-encoding": "identity"}
_UNFIT = "the result has no URL, or one that can't be asked"


async def download(url: str | None, path: Path, *, max_bytes: int, timeout: float | None) -> Path:
    """See `File.download`."""
    wait_timeout(timeout)
    checked_count("max_bytes", max_bytes)
    part = path.parent / f".{secrets.token_hex(8)}.part"
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
            asyncio.timeout(timeout) as clock,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
        ):
            target: URL | None = None
            for _ in range(MOST_REDIRECTS + 1):
                target = _target(url, target)
                if target is None:
                    return APIResponseValidationError(_UNFIT)
                async with session.get(target, headers=_PLAIN, allow_redirects=False, timeout=_NO_TIMEOUT) as response:
                    if response.status in _REDIRECTS:
                        url = response.headers.get("location")
                        continue
                    if response.status != 200:
                        return status_error(response.status, response.headers, b"")
                    return await _written(response, part, max_bytes)
            return APIResponseValidationError(f"more than {MOST_REDIRECTS} redirects in a row")
    except TimeoutError:
        if not clock.expired():
            raise  # the disk's own
        return APITimeoutError(f"the file didn't come within {timeout:g} s")
    except UnicodeError:
        return APIResponseValidationError(_UNFIT)
    except (aiohttp.ClientError, ConnectionError, ssl.SSLError, RuntimeError) as error:
        # (RuntimeError: aiohttp's, for a compressed stream that ends early.)
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
    # Plain http is for a service on this machine; one elsewhere must not send us on to what else listens here.
    is_local = host is not None and is_loopback(host) and (base is None or base.scheme == "http")
    is_safe = target.scheme == "https" or (target.scheme == "http" and is_local)
    return target if host and is_safe and target.user is None and target.password is None else None


async def _written(response: aiohttp.ClientResponse, part: Path, max_bytes: int) -> DistributeError | None:
    size = 0
    with part.open("xb") as file:  # in a thread it couldn't be cancelled, and would be left behind
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
