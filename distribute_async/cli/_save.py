"""A text written to a file as a whole or not at all. Used by `_answers`, and by `_service` for what can be written."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from stat import S_IMODE


def check_writable(path: Path) -> None:
    """Raise an `OSError` of the fitting kind where `save` surely can't write."""
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError("it may not be written")
    if _is_replaced(path) and not os.access(folder := _target(path).parent, os.W_OK):
        raise PermissionError(f"can't write to the directory {str(folder)!r}")


def save(path: Path, text: str) -> None:
    """Write a text in UTF-8; lone surrogates are spelt out. Raises `OSError`.

    A file that is there stays as it is until all of the new one is on the disk, and hands on its permissions; a link
    stays a link to it. A device or a pipe is written to.
    """
    data = text.encode("utf-8", errors="backslashreplace")
    if not _is_replaced(path):
        path.write_bytes(data)
        return
    target = _target(path)
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            if target.exists():
                part.chmod(S_IMODE(target.stat().st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # before it gets its name: losing power must not leave half a file under it
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _is_replaced(path: Path) -> bool:
    """Whether another file takes its place: not that of a device, a pipe or a socket."""
    return path.is_file() or not path.exists()


def _target(path: Path) -> Path:
    """What is behind a link, however many there are in a row. Raises `OSError` for links in a circle."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target
