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
from distribute_async._engine.saving import DiskError, open_destination
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
MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK_SIZE = 1 << 16
#: Some send a file compressed all the same, as it is in their store.
_HEADERS = {"accept-encoding": "identity"}
_BAD_URL = "the result has no URL, or one that can't be asked"
_PRIVATE_ADDRESS = (
    "the result's URL leads to this machine or into a private network: allow_private=True follows it there"
)


@frozen
class AddressPolicy:
    """Which addresses a URL may lead to: public ones; this machine's; private networks' too."""

    allow_loopback: bool
    allow_private: bool

    def after_redirect(self, url: URL) -> AddressPolicy:
        """What a redirect from this URL may lead to: only this machine may send us on to what else listens here."""
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
    """Stream what is behind a URL to its place; gives what went wrong on the way or, an `OSError`, on the disk."""
    try:
        async with asyncio.timeout(timeout) as clock:
            base: URL | None = None
            for _ in range(MAX_REDIRECTS + 1):
                target = _checked_url(url, base, policy)
                if isinstance(target, DistributeError):
                    return target
                # One session each: a connection that is kept was checked for another reach.
                async with (
                    _session(policy) as session,
                    session.get(target, headers=_HEADERS, allow_redirects=False) as response,
                ):
                    if response.status not in _REDIRECTS:
                        return await _write(response, path, max_bytes)
                    url = response.headers.get("location")
                base, policy = target, policy.after_redirect(target)
            return APIResponseValidationError(f"more than {MAX_REDIRECTS} redirects in a row")
    except DiskError as refused:
        return refused.error
    except _AddressRefusedError:
        return APIResponseValidationError(_PRIVATE_ADDRESS)
    except (UnicodeError, aiohttp.InvalidURL):
        return APIResponseValidationError(_BAD_URL)
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


def _checked_url(url: str | None, base: URL | None, policy: AddressPolicy) -> URL | DistributeError:
    """The address to ask next: https, or plain http on this machine; without a password in it."""
    bad_url = APIResponseValidationError(_BAD_URL)
    if not url:
        return bad_url
    try:
        target = URL(url) if base is None else base.join(URL(url))
        host, _ = target.host, target.port
    except ValueError:
        return bad_url
    if not host or target.user is not None or target.password is not None:
        return bad_url
    is_local_http = target.scheme == "http" and is_loopback(host) and (base is None or base.scheme == "http")
    if not (target.scheme == "https" or is_local_http):
        return bad_url
    try:
        is_within = policy.allows(host)
    except ValueError:  # a name: see `_Resolver`
        is_within = True
    may_be_here = policy.allow_loopback or policy.allow_private or not is_local_http
    return target if is_within and may_be_here else APIResponseValidationError(_PRIVATE_ADDRESS)


#: The whole of it has one; aiohttp's own would end a large file after five minutes.
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
    """A name that has no address within reach. (No `OSError`: aiohttp would take that for a name that isn't found.)"""


class _Resolver(AbstractResolver):
    """Looks a name up once and gives the addresses within reach, to which aiohttp then connects."""

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
        return APIResponseValidationError("the file came in an encoding that wasn't asked for and isn't known")
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
            return APIConnectionError("the file came compressed, and its end is missing", "body")
        await destination.finish()
    finally:
        destination.close()
    return None


class _IdentityDecoder:
    """A file that comes as it is."""

    is_complete = True

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk


class _ZlibDecoder:
    """A file that comes as one gzip or deflate stream. (aiohttp itself takes one without its end for whole.)"""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._stream: zlib._Decompress | None = None

    @property
    def is_complete(self) -> bool:
        return self._stream is not None and self._stream.eof

    def decode(self, received: bytes) -> Iterator[bytes]:
        """What is in it, in chunks of a bounded size. Raises `zlib.error` for what isn't of the stream."""
        if self._stream is None:
            # Some send "deflate" without the header that belongs to it (RFC 9110 §8.4.1.2).
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
    """How a file is packed; None where it is in a way that can't be undone. What is no coding means nothing."""
    named = [coding.strip() for coding in headers.get("content-encoding", "").lower().split(",")]
    codings = [coding.removeprefix("x-") for coding in named if coding in _CODINGS]
    if not codings:
        return _IdentityDecoder()
    return _ZlibDecoder(is_gzip=codings == ["gzip"]) if codings in (["gzip"], ["deflate"]) else None


#: Those that are registered, and in use.
_CODINGS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"}
