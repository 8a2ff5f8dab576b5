"""A file behind a result's URL, streamed to disk. It has a session of its own: the API key can't get into it.

Used by `files`. The URL is the service's word, so it is followed to public addresses alone, unless the service is on
this machine itself or the caller says otherwise.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import frozen
from yarl import URL

from distribute_async._engine.address import is_loopback
from distribute_async._engine.http import connection_fault
from distribute_async._engine.saving import DiskError, opened
from distribute_async._wire.arguments import checked_count, wait_timeout
from distribute_async._wire.codec import status_error
from distribute_async._wire.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    DistributeError,
)

#: Bytes of one file, by default.
MAX_BYTES = 100_000_000
#: Seconds for one file, by default.
TIMEOUT = 300.0
#: Redirects in a row that are followed; storage services answer with one or two.
MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_PIECE = 1 << 16
#: Some send a file compressed all the same, as it is in their store.
_PLAIN = {"accept-encoding": "identity"}
_UNFIT = "the result has no URL, or one that can't be asked"
_PRIVATE = "the result's URL leads to this machine or into a private network: allow_private=True follows it there"


@frozen
class Reach:
    """Which addresses a URL may lead to: public ones; this machine's; private networks' too."""

    this_machine: bool
    private: bool

    def after(self, url: URL) -> Reach:
        """What a redirect from this URL may lead to: only this machine may send us on to what else listens here."""
        return Reach(self.this_machine and is_loopback(url.host or ""), self.private)

    def has(self, address: str) -> bool:
        """Whether this IP address may be connected to."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        return self.private or _is_public(ip) or (self.this_machine and ip.is_loopback)


async def download(url: str | None, path: Path, *, max_bytes: int, timeout: float | None, reach: Reach) -> Path:
    """See `File.download`."""
    wait_timeout(timeout)
    checked_count("max_bytes", max_bytes)
    fault = await _fetched(url, path, max_bytes, timeout, reach)
    if fault is not None:
        raise fault
    return path


async def _fetched(
    url: str | None, path: Path, max_bytes: int, timeout: float | None, reach: Reach
) -> DistributeError | OSError | None:
    """Stream what is behind a URL to its place; gives what went wrong on the way or, an `OSError`, on the disk."""
    try:
        async with asyncio.timeout(timeout) as clock:
            base: URL | None = None
            for _ in range(MOST_REDIRECTS + 1):
                target = _target(url, base, reach)
                if isinstance(target, DistributeError):
                    return target
                # One session each: a connection that is kept was checked for another reach.
                async with (
                    _session(reach) as session,
                    session.get(target, headers=_PLAIN, allow_redirects=False) as response,
                ):
                    if response.status not in _REDIRECTS:
                        return await _written(response, path, max_bytes)
                    url = response.headers.get("location")
                base, reach = target, reach.after(target)
            return APIResponseValidationError(f"more than {MOST_REDIRECTS} redirects in a row")
    except DiskError as refused:
        return refused.error
    except _OutOfReachError:
        return APIResponseValidationError(_PRIVATE)
    except (UnicodeError, aiohttp.InvalidURL):
        return APIResponseValidationError(_UNFIT)
    except TimeoutError as error:
        return (
            APITimeoutError(f"the file didn't come within {timeout:g} s")
            if clock.expired()
            else connection_fault(error)
        )
    except zlib.error:
        return APIConnectionError("the file came compressed, and can't be unpacked", "body")
    except (aiohttp.ClientError, OSError) as error:
        return connection_fault(error)


def _target(url: str | None, base: URL | None, reach: Reach) -> URL | DistributeError:
    """The address to ask next: https, or plain http on this machine; without a password in it."""
    unfit = APIResponseValidationError(_UNFIT)
    if not url:
        return unfit
    try:
        target = URL(url) if base is None else base.join(URL(url))
        host, _ = target.host, target.port
    except ValueError:
        return unfit
    if not host or target.user is not None or target.password is not None:
        return unfit
    is_local_http = target.scheme == "http" and is_loopback(host) and (base is None or base.scheme == "http")
    if not (target.scheme == "https" or is_local_http):
        return unfit
    try:
        is_within = reach.has(host)
    except ValueError:  # a name: see `_Resolver`
        is_within = True
    may_be_here = reach.this_machine or reach.private or not is_local_http
    return target if is_within and may_be_here else APIResponseValidationError(_PRIVATE)


#: The whole of it has one; aiohttp's own would end a large file after five minutes.
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


def _session(reach: Reach) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=_Resolver(reach), use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=_NO_TIMEOUT,
        trust_env=False,
    )


class _OutOfReachError(Exception):
    """A name that has no address within reach. (No `OSError`: aiohttp would take that for a name that isn't found.)"""


class _Resolver(AbstractResolver):
    """Looks a name up once and gives the addresses within reach, to which aiohttp then connects."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [one for one in await self._resolver.resolve(host, port, family) if self._reach.has(one["host"])]
        if not found:
            raise _OutOfReachError
        return found

    async def close(self) -> None:
        await self._resolver.close()


_UNICAST_V6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is None:
            return ip.is_global and ip in _UNICAST_V6
        ip = inner
    return ip.is_global and not ip.is_multicast


async def _written(response: aiohttp.ClientResponse, path: Path, max_bytes: int) -> DistributeError | None:
    if response.status != 200:
        return status_error(response.status, response.headers, b"")
    unpacking = _unpacking(response.headers)
    if unpacking is None:
        return APIResponseValidationError("the file came in an encoding that wasn't asked for and isn't known")
    size = 0
    place = await opened(path)
    try:
        async for received in response.content.iter_chunked(_PIECE):
            for piece in unpacking.pieces(received):
                size += len(piece)
                if size > max_bytes:
                    return APIResponseValidationError(f"the file is larger than {max_bytes} bytes", "too_large")
                await place.write(piece)
        if not unpacking.is_whole:
            return APIConnectionError("the file came compressed, and its end is missing", "body")
        await place.finish()
    finally:
        place.close()
    return None


class _Plain:
    """A file that comes as it is."""

    is_whole = True

    def pieces(self, received: bytes) -> Iterator[bytes]:
        yield received


class _Packed:
    """A file that comes as one gzip or deflate stream. (aiohttp itself takes one without its end for whole.)"""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._stream: zlib._Decompress | None = None

    @property
    def is_whole(self) -> bool:
        return self._stream is not None and self._stream.eof

    def pieces(self, received: bytes) -> Iterator[bytes]:
        """What is in it, in pieces of a bounded size. Raises `zlib.error` for what isn't of the stream."""
        if self._stream is None:
            # Some send "deflate" without the header that belongs to it (RFC 9110 §8.4.1.2).
            bare = -zlib.MAX_WBITS if received[0] & 0xF != 8 else zlib.MAX_WBITS
            self._stream = zlib.decompressobj(zlib.MAX_WBITS + 16 if self._is_gzip else bare)
        rest, is_full = received, True
        while not self._stream.eof and (rest or is_full):
            piece = self._stream.decompress(rest, _PIECE)
            rest, is_full = self._stream.unconsumed_tail or self._stream.unused_data, len(piece) == _PIECE
            yield piece
        if self._stream.eof and rest.strip(b"\0"):
            raise zlib.error


def _unpacking(headers: Mapping[str, str]) -> _Plain | _Packed | None:
    """How a file is packed; None where it is in a way that can't be undone. What is no coding means nothing."""
    named = [coding.strip() for coding in headers.get("content-encoding", "").lower().split(",")]
    codings = [coding.removeprefix("x-") for coding in named if coding in _CODINGS]
    if not codings:
        return _Plain()
    return _Packed(is_gzip=codings == ["gzip"]) if codings in (["gzip"], ["deflate"]) else None


#: Those that are registered, and in use.
_CODINGS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"}
