"""A server that misbehaves on purpose, on the test's own event loop: each request gets the next behaviour of a script.

A behaviour is an async callable `(reader, writer, request) -> None`, called once a whole request has come. What it
leaves open stays open and serves the next request on the same connection. `on_connect` is for what goes wrong before
a request can come. Nothing is left behind: leaving the server ends its behaviours and aborts its connections.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import ssl
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]
Greeting = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
T = TypeVar("T")


class Request:
    """One request as it came."""

    def __init__(self, raw: bytes, connection: int, at: float) -> None:
        self.raw = raw
        #: Which connection it came on, from 1.
        self.connection = connection
        #: The loop's time.
        self.at = at
        head, _, self.body = raw.partition(b"\r\n\r\n")
        self.line, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        #: All header fields in order, names in lower case.
        self.fields = [(name.lower(), value.strip()) for name, _, value in pairs]

    @property
    def path(self) -> str:
        """The request's target."""
        return self.line.split(" ")[1]

    def header(self, name: str) -> list[str]:
        """All values of a header field."""
        return [value for known, value in self.fields if known == name]

    @property
    def task_id(self) -> str:
        """The id asked for."""
        return str(json.loads(self.body)["id"])


class MisbehavingServer:
    """Answers the n-th request by the n-th behaviour of `script`; the last one stands for all after it.

    `on_connect` does the same for connections (None: serve requests). With `tls` a connection that is served speaks
    TLS. `port`: 0 for a free one.
    """

    def __init__(
        self,
        *script: Behaviour,
        on_connect: Sequence[Greeting | None] = (None,),
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.script = script
        self.requests: list[Request] = []
        #: Connections accepted so far.
        self.connections = 0
        self._on_connect = on_connect
        self._tls = tls
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The asyncio tasks that serve its open connections."""
        return set(self._tasks)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def times(self) -> list[float]:
        """The loop's time at each request."""
        return [request.at for request in self.requests]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, limit=1 << 20)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        bugs = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        assert not any(bugs), f"a behaviour broke: {bugs}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # Not a byte before it is known whether it will be TLS.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        try:
            # The client may go at any time: that is its right, and often what the test wants.
            with suppress(OSError, ssl.SSLError, EOFError):
                greeting = _nth(self._on_connect, connection)
                if greeting is not None:
                    writer.transport.resume_reading()  # type: ignore[attr-defined]
                    await greeting(reader, writer)
                    return
                if self._tls is None:
                    writer.transport.resume_reading()  # type: ignore[attr-defined]
                else:
                    await writer.start_tls(self._tls)
                while not writer.is_closing():
                    request = Request(await _whole_request(reader), connection, asyncio.get_running_loop().time())
                    self.requests.append(request)
                    await _nth(self.script, len(self.requests))(reader, writer, request.raw)
        finally:
            writer.transport.abort()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()


def _nth(of: Sequence[T], n: int) -> T:
    return of[min(n, len(of)) - 1]


async def _whole_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + (await reader.readexactly(int(lengths[0])) if lengths else b"")


def free_port() -> int:
    """A port on which nobody listens (for a moment: it was free just now)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# The bytes of answers.


def head(status: int = 200, headers: Mapping[str, str] | None = None, *, version: str = "1.1") -> bytes:
    """A status line and headers, with the empty line."""
    lines = [f"HTTP/{version} {status} Words", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(body: Any = None, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole answer; `body` as it is where it is bytes, else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    return head(status, {**named, **(headers or {})}) + content


def compressed_zeros(size: int, wbits: int, *, before: bytes = b"") -> bytes:
    """`before` and then `size` zeros, about a thousandth of it; in no time, as one compressed block is repeated.

    The checksum at its end is wrong, which only those learn who unpack all of it.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (size >> 20) + packer.flush()


# Behaviours.


def raw(data: bytes) -> Behaviour:
    """These bytes, and the connection stays open."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(data)
        await writer.drain()

    return behave


def raw_and_close(data: bytes) -> Behaviour:
    """These bytes, then the end of the connection in good order."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return behave


def raw_and_reset(data: bytes) -> Behaviour:
    """These bytes, time to read them, then a reset of the connection."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.01)
        await reset_at_once(reader, writer)

    return behave


def good(body: Any, **headers: str) -> Behaviour:
    """A whole 200 with this JSON; the connection stays open."""
    return raw(answer(body, headers=headers))


def status(code: int, body: Any = None, **headers: str) -> Behaviour:
    """A whole answer with this status code; underscores in header names stand for dashes."""
    return raw(answer(body, code, {name.replace("_", "-"): value for name, value in headers.items()}))


#: Reads the request and closes without a byte. On a connection that served before, this is a stale keep-alive.
close: Behaviour = raw_and_close(b"")
#: Reads the request and resets without a byte.
reset: Behaviour = raw_and_reset(b"")


def truncated(body: bytes) -> Behaviour:
    """Promises twice the length and closes."""
    return raw_and_close(head(200, {"Content-Length": str(2 * len(body))}) + body)


def short_length(body: bytes) -> Behaviour:
    """Promises half the length: the rest of the body comes where the next answer is due."""
    return raw(head(200, {"Content-Length": str(len(body) // 2)}) + body)


def http10(body: bytes) -> Behaviour:
    """HTTP/1.0 without a length: the end of the connection is the end of the body."""
    return raw_and_close(head(200, version="1.0") + body)


def chunked(*pieces: bytes, headers: Mapping[str, str] | None = None) -> Behaviour:
    """A sound answer in chunks."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return raw(head(200, {"Transfer-Encoding": "chunked", **(headers or {})}) + chunks + b"0\r\n\r\n")


def silence(data: bytes = b"") -> Behaviour:
    """These bytes and then nothing, for ever; the connection stays open."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(data)
        await reader.read()

    return behave


def endless(start: bytes, piece: Callable[[int], bytes], *, pause: float = 0.0) -> Behaviour:
    """`start`, and then the n-th piece for ever, a `pause` (in seconds) apart."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(start)
        for n in itertools.count():
            writer.write(piece(n))
            await writer.drain()
            await asyncio.sleep(pause)
            if writer.is_closing():
                return

    return behave


#: Header after header, without an end.
endless_headers: Behaviour = endless(b"HTTP/1.1 200 OK\r\n", lambda n: b"x-%d: %s\r\n" % (n, b"y" * 100))
#: One header whose value has no end.
endless_header: Behaviour = endless(b"HTTP/1.1 200 OK\r\nx: ", lambda _: b"y" * 4096)
#: One chunk after the other, without an end.
endless_chunks: Behaviour = endless(
    head(200, {"Transfer-Encoding": "chunked"}), lambda _: b"10000\r\n" + b" " * 65536 + b"\r\n"
)
#: 100 Continue for ever. (A pause: on a virtual clock no timer comes while there is always something to read.)
storm: Behaviour = endless(b"", lambda _: head(100) * 100, pause=0.05)


def drip(data: bytes, pause: float = 1.0) -> Behaviour:
    """These bytes, one each `pause` seconds."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


def forged(body: Any, forgery: Any, delay: float = 0.0) -> Behaviour:
    """A good answer, and `delay` seconds later a second one that nobody asked for, on the same connection."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        if delay:
            writer.write(answer(body))
            await asyncio.sleep(delay)
            writer.write(answer(forgery))
        else:
            writer.write(answer(body) + answer(forgery))
        await writer.drain()

    return behave


def idle_close(body: Any, after: float) -> Behaviour:
    """A good answer; the connection is closed `after` seconds of idling."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(answer(body))
        await writer.drain()
        await asyncio.sleep(after)
        writer.close()

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour after the other for the same request."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        for behaviour in behaviours:
            await behaviour(reader, writer, request)

    return behave


def pause(seconds: float) -> Behaviour:
    """Nothing for so many seconds; for `in_turn`."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        await asyncio.sleep(seconds)

    return behave


# What goes wrong before a request.


async def reset_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def close_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection."""
    writer.close()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Take what comes and say nothing."""
    await reader.read()


def say(data: bytes) -> Greeting:
    """These bytes as soon as anything comes (to a TLS client: garbage instead of a handshake), then the end."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return greet
