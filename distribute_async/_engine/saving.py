"""Where a download goes: a file that is there as a whole or not at all, or a device or FIFO, written as it comes.

Used by `download`. Nothing but `DiskError` (and cancellation) is raised, so that what the disk says is never told as
the network's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

#: Seconds until a FIFO that nobody reads, or reads slowly, is tried again.
_FIFO_RETRY_INTERVAL = 0.005


class DiskError(Exception):
    """What the disk refuses: `error`."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class Destination(Protocol):
    """A place that is open for writing. `close` it in any case: what isn't finished by then is gone."""

    async def write(self, chunk: bytes) -> None:
        """Append this."""

    async def finish(self) -> None:
        """It is whole."""

    def close(self) -> None:
        """Let go of it. Harmless the second time, and once it is finished."""


async def open_destination(path: Path) -> Destination:
    """The place that a path names, links followed: what is no regular file is never replaced by one."""
    with _disk_errors():
        old = _status(path)
        if old is not None and stat.S_ISFIFO(old.st_mode):
            return await _Fifo.open(path)
        return _File(path, old) if old is None or stat.S_ISREG(old.st_mode) else _Device(path)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(error) from None


class _File:
    """A regular file, written beside its place and put there when it is whole."""

    def __init__(self, path: Path, old: os.stat_result | None) -> None:
        self._target = path.resolve()
        self._part = self._target.parent / f".{secrets.token_hex(8)}.part"
        # Not in a thread, where it couldn't be cancelled, and would be left behind. While one that is replaced is
        # written nobody may read more of it than before.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._file = os.fdopen(os.open(self._part, flags, 0o666 if old is None else 0o600), "wb")
        if old is not None:
            try:
                self._copy_owner_and_mode(old)
            except BaseException:
                self.close()
                raise

    def _copy_owner_and_mode(self, old: os.stat_result) -> None:
        with suppress(PermissionError, AttributeError):  # another's file; Windows
            os.chown(self._part, old.st_uid, old.st_gid)
        with suppress(PermissionError):
            self._part.chmod(stat.S_IMODE(old.st_mode) & 0o777)  # but for set-user-id: it is another file

    async def write(self, chunk: bytes) -> None:
        with _disk_errors():
            await asyncio.to_thread(self._file.write, chunk)

    async def finish(self) -> None:
        with _disk_errors():
            await asyncio.to_thread(self._flush)
            self._file.close()
            await asyncio.to_thread(self._part.replace, self._target)

    def _flush(self) -> None:
        # Before it gets its name: a machine that loses power must not have half a file under it.
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


class _Device:
    """A terminal, a disk, /dev/null."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0)), "wb")

    async def write(self, chunk: bytes) -> None:
        with _disk_errors():
            await asyncio.to_thread(self._file.write, chunk)

    async def finish(self) -> None:
        with _disk_errors():
            await asyncio.to_thread(self._file.flush)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


class _Fifo:
    """A FIFO, which takes nothing before somebody reads. In a thread that couldn't be cancelled."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    async def open(cls, path: Path) -> _Fifo:
        """Once somebody reads it."""
        while True:
            try:
                return cls(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            await asyncio.sleep(_FIFO_RETRY_INTERVAL)

    async def write(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        with _disk_errors():
            while left and self._descriptor is not None:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    await asyncio.sleep(_FIFO_RETRY_INTERVAL)

    async def finish(self) -> None:
        pass

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
