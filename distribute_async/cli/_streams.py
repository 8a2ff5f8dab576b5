"""The standard streams, where they are closed, full, or read by nobody any more. Used by `main` and the commands."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from io import BufferedWriter, RawIOBase, TextIOWrapper
from typing import Any


class OutputError(Exception):
    """Standard output takes no more. It is no `OSError`, which click and rich would take for their own to handle."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason.strerror or str(reason))
        #: Whether whoever read it has stopped reading.
        self.is_unread = isinstance(reason, BrokenPipeError)


class _Stream(RawIOBase):
    """The file below a standard stream."""

    def __init__(self, raw: RawIOBase) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


class _Output(_Stream):
    def write(self, data: Any) -> int:
        try:
            while (written := self._raw.write(data)) is None:  # a pipe that somebody has made non-blocking is full
                select.select([], [self], [])
        except OSError as error:
            # What is buffered would fail once more at exit, and change the exit code.
            _lead_nowhere(self.fileno())
            raise OutputError(error) from None
        return written


class _Messages(_Stream):
    def write(self, data: Any) -> int:
        # What can't be said is lost, and the command goes on.
        with suppress(OSError):
            return self._raw.write(data) or len(data)
        return len(data)


def prepare() -> None:
    """Have standard output raise `OutputError`, standard error nothing, and either take any text.

    One that was closed from the start leads nowhere: Python has None for it, which `print` takes for standard output,
    and its number would go to the next file that is opened.
    """
    for name, descriptor, kind in (("stdout", 1, _Output), ("stderr", 2, _Messages)):
        stream = getattr(sys, name)
        if stream is None:
            _lead_nowhere(descriptor)
            setattr(sys, name, os.fdopen(descriptor, "w", errors="backslashreplace", closefd=False))
        elif isinstance(stream, TextIOWrapper):
            unbuffered: Any = getattr(stream.buffer, "raw", stream.buffer)  # under `python -u` there is no buffer
            wrapped = TextIOWrapper(
                BufferedWriter(kind(unbuffered)),
                encoding=stream.encoding,
                errors="backslashreplace",  # a lone surrogate in an answer, or an ASCII terminal, is no reason to stop
                line_buffering=stream.line_buffering,
            )
            setattr(sys, name, wrapped)


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
