"""Downloads the file behind a result's URL to disk. Used by `files`.

A download has its own session, which doesn't have the API key. The URL comes from the service and isn't trusted: only
public addresses are connected to, unless the service is on this machine or the caller allows others.
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
from distribute_async._engine.saving import DiskError, open_destination
from distribute_async._wire.arguments import checked_count, wait_timeout
from distribute_async._wire.codec import status_error
from distribute_async._wire.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    DistributeError,
)

#: Bytes of one file at most, by default.
MAX_BYTES = 100_000_000
#: Seconds for one file, by default.
TIMEOUT = 300.0
#: Redirects in a row that are followed. Storage services send one or two.
MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK_SIZE = 1 << 16
#: Some servers ignore this and send a file compressed, as it is stored.
_HEADERS = {"accept-encoding": "identity"}
_BAD_URL = "the result has no URL, or one that can't be used"
_PRIVATE_ADDRESS = (
    "the result's URL leads to this machine or into a private network: allow_private=True follows it there"
)


@frozen
class AddressPolicy:
    """The addresses that may be connected to, beside public ones.

    `allow_loopback`: those of this machine. `allow_private`: those of private networks and of this machine.
    """

    allow_loopback: bool
    allow_private: bool

    def after_redirect(self, url: URL) -> AddressPolicy:
        """The policy after a redirect from this URL: only a URL on this machine may redirect to this machine."""
        return AddressPolicy(self.allow_loopback and is_loopback(url.host or ""), self.allow_private)

    def allows(self, address: str) -> bool:
        """Whether this IP address may be connected to."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        return self.allow_private or _is_public(ip) or (self.allow_loopback and ip.is_loopback)


async def download(
    url: str | None, path: Path, *, max_bytes: int, timeout: float | None, policy: AddressPolicy
) -> Path:
    """See `File.download`."""
    wait_timeout(timeout)
    checked_count("max_bytes", max_bytes)
    fault = await _fetch(url, path, max_bytes, timeout, policy)
    if fault is not None:
        raise fault
    return path


async def _fetch(
    url: str | None, path: Path, max_bytes: int, timeout: float | None, policy: AddressPolicy
) -> DistributeError | OSError | None:
    """Download a URL to a path. Returns what went wrong; an `OSError` is one of the disk."""
    try:
        async with asyncio.timeout(timeout) as clock:
            base: URL | None = None
            for _ in range(MAX_REDIRECTS + 1):
                target = _checked_url(url, base, policy)
                if isinstance(target, DistributeError):
                    return target
                # One session for each URL: a kept connection may have been opened under another policy.
                async with (
                    _session(policy) as session,
                    session.get(target, headers=_HEADERS, allow_redirects=False) as response,
                ):
                    if response.status not in _REDIRECTS:
                        return await _write(response, path, max_bytes)
                    url = response.headers.get("location")
                base, policy = target, policy.after_redirect(target)
            return APIResponseValidationError(f"more than {MAX_REDIRECTS} redirects in a row")
    except DiskError as error:
        return error.error
    except _AddressRefusedError:
        return APIResponseValidationError(_PRIVATE_ADDRESS)
    except (UnicodeError, aiohttp.InvalidURL):
        return APIResponseValidationError(_BAD_URL)
    except TimeoutError as error:
        return (
            APITimeoutError(f"the file didn't arrive within {timeout:g} s")
            if clock.expired()
            else connection_fault(error)
        )
    except zlib.error:
        return APIConnectionError("the file is compressed, and can't be decompressed", "body")
    except (aiohttp.ClientError, OSError) as error:
        return connection_fault(error)


def _checked_url(url: str | None, base: URL | None, policy: AddressPolicy) -> URL | DistributeError:
    """The URL to request next: https, or plain http on this machine. `base`: the URL that redirected to it."""
    target = _parsed(url, base)
    host = None if target is None else target.host
    if target is None or not host:
        return APIResponseValidationError(_BAD_URL)
    is_local_http = target.scheme == "http" and is_loopback(host) and (base is None or base.scheme == "http")
    if not (target.scheme == "https" or is_local_http):
        return APIResponseValidationError(_BAD_URL)
    try:
        is_allowed = policy.allows(host)
    except ValueError:  # a name: `_Resolver` checks its addresses
        is_allowed = policy.allow_loopback or policy.allow_private or not is_local_http
    return target if is_allowed else APIResponseValidationError(_PRIVATE_ADDRESS)


def _parsed(url: str | None, base: URL | None) -> URL | None:
    """The absolute URL; None if there is none, or if it is invalid or contains a user or password."""
    if not url:
        return None
    try:
        target = URL(url) if base is None else base.join(URL(url))
        _ = target.host, target.port  # raise for an invalid host or port
    except ValueError:
        return None
    return target if target.user is None and target.password is None else None


#: The download has its own timeout. aiohttp's default would end a large file after five minutes.
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


def _session(policy: AddressPolicy) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=_Resolver(policy), use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=_NO_TIMEOUT,
        trust_env=False,
    )


class _AddressRefusedError(Exception):
    """A name has no allowed address. (Not an `OSError`, which aiohttp takes for a name that isn't found.)"""


class _Resolver(AbstractResolver):
    """Resolves a name once and returns its allowed addresses. aiohttp then connects to one of these."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [one for one in await self._resolver.resolve(host, port, family) if self._policy.allows(one["host"])]
        if not found:
            raise _AddressRefusedError
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


async def _write(response: aiohttp.ClientResponse, path: Path, max_bytes: int) -> DistributeError | None:
    if response.status != 200:
        return status_error(response.status, response.headers, b"")
    decoder = _decoder_for(response.headers)
    if decoder is None:
        return APIResponseValidationError("the file has a content encoding that is not supported")
    size = 0
    destination = await open_destination(path)
    try:
        async for received in response.content.iter_chunked(_CHUNK_SIZE):
            for chunk in decoder.decode(received):
                size += len(chunk)
                if size > max_bytes:
                    return APIResponseValidationError(f"the file is larger than {max_bytes} bytes", "too_large")
                await destination.write(chunk)
        if not decoder.is_complete:
            return APIConnectionError("the file is compressed, and its end is missing", "body")
        await destination.finish()
    finally:
        destination.close()
    return None


class _IdentityDecoder:
    """For a file that is sent without compression."""

    is_complete = True

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk


class _ZlibDecoder:
    """For a file that is sent as one gzip or deflate stream. (aiohttp accepts a stream whose end is missing.)"""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._stream: zlib._Decompress | None = None

    @property
    def is_complete(self) -> bool:
        return self._stream is not None and self._stream.eof

    def decode(self, received: bytes) -> Iterator[bytes]:
        """The decompressed data in chunks of a bounded size. Raises `zlib.error` for data that isn't of the stream."""
        if self._stream is None:
            # Some servers send "deflate" without the zlib header (RFC 9110 §8.4.1.2).
            bare = -zlib.MAX_WBITS if received[0] & 0xF != 8 else zlib.MAX_WBITS
            self._stream = zlib.decompressobj(zlib.MAX_WBITS + 16 if self._is_gzip else bare)
        rest, is_full = received, True
        while not self._stream.eof and (rest or is_full):
            chunk = self._stream.decompress(rest, _CHUNK_SIZE)
            rest, is_full = self._stream.unconsumed_tail or self._stream.unused_data, len(chunk) == _CHUNK_SIZE
            yield chunk
        if self._stream.eof and rest.strip(b"\0"):
            raise zlib.error


def _decoder_for(headers: Mapping[str, str]) -> _IdentityDecoder | _ZlibDecoder | None:
    """The decoder for a file; None if its content encoding isn't supported. Unregistered encodings are ignored."""
    named = [coding.strip() for coding in headers.get("content-encoding", "").lower().split(",")]
    codings = [coding.removeprefix("x-") for coding in named if coding in _CODINGS]
    if not codings:
        return _IdentityDecoder()
    return _ZlibDecoder(is_gzip=codings == ["gzip"]) if codings in (["gzip"], ["deflate"]) else None


#: The content encodings that are registered and in use.
_CODINGS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"}
