"""Writes a download to disk. A regular file is replaced atomically; a device or FIFO is written directly.

Used by `download`. An `OSError` of the disk is raised as `DiskError`, so that `download` can tell it from one of the
network.
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

#: Seconds between attempts to open a FIFO without a reader, or to write to one that is full.
_FIFO_RETRY_INTERVAL = 0.005


class DiskError(Exception):
    """An `OSError` of the disk, as `error`."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class Destination(Protocol):
    """A destination that is open for writing. Call `close` in any case; it discards what wasn't finished."""

    async def write(self, chunk: bytes) -> None:
        """Append a chunk."""

    async def finish(self) -> None:
        """Complete the file."""

    def close(self) -> None:
        """Release it. May be called again, and after `finish`."""


async def open_destination(path: Path) -> Destination:
    """Open a path for writing, symbolic links followed. Only a regular file is replaced."""
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
    """A regular file. It is written to a temporary file in the same folder, which `finish` renames."""

    def __init__(self, path: Path, old: os.stat_result | None) -> None:
        self._target = path.resolve()
        self._part = self._target.parent / f".{secrets.token_hex(8)}.part"
        # Not in a thread: that couldn't be cancelled, and would leave the file behind. A file that replaces another is
        # private at first, so that nobody can read it who couldn't read the other.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._file = os.fdopen(os.open(self._part, flags, 0o666 if old is None else 0o600), "wb")
        if old is not None:
            try:
                self._copy_owner_and_mode(old)
            except BaseException:
                self.close()
                raise

    def _copy_owner_and_mode(self, old: os.stat_result) -> None:
        with suppress(PermissionError, AttributeError):  # the file of another user; Windows
            os.chown(self._part, old.st_uid, old.st_gid)
        with suppress(PermissionError):
            self._part.chmod(stat.S_IMODE(old.st_mode) & 0o777)  # without set-user-id and the like

    async def write(self, chunk: bytes) -> None:
        with _disk_errors():
            await asyncio.to_thread(self._file.write, chunk)

    async def finish(self) -> None:
        with _disk_errors():
            await asyncio.to_thread(self._flush)
            self._file.close()
            await asyncio.to_thread(self._part.replace, self._target)

    def _flush(self) -> None:
        # Before the rename, so that a power failure can't leave an incomplete file under its final name.
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


class _Device:
    """A device, such as a terminal or /dev/null."""

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
    """A FIFO. It is written without blocking and not in a thread, which couldn't be cancelled."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    async def open(cls, path: Path) -> _Fifo:
        """Open the FIFO as soon as it has a reader."""
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
