"""What tasks that make files answer: frozen attrs values, and the way from them to the files. Used by `kinds`.

The service publishes these answers in its documentation, not in its specification: what it leaves open is optional.
"""

from __future__ import annotations

import os
from pathlib import Path

from attrs import field, frozen

from distribute_async._engine.download import MAX_BYTES, TIMEOUT, AddressPolicy, download
from distribute_async._wire.models import TaskResult, Wire


@frozen(kw_only=True)
class File(Wire):
    """One file that a task made. `revised_prompt` is what a picture was made from, where the service changed it.

    `is_local`: it was named by a service on this machine, such as the emulator.
    """

    url: str | None = field(default=None, repr=False)  # whoever has it can read the file
    revised_prompt: str | None = field(default=None, repr=False)
    is_local: bool = field(default=False, repr=False, eq=False, metadata={"wire": False, "is_local": True})

    async def download(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        timeout: float | None = TIMEOUT,
        allow_private: bool = False,
    ) -> Path:
        """Stream the file to `path`, where it is as a whole or not at all, and give that.

        `max_bytes`: its size at most, unpacked, 100 MB by default. `timeout`: seconds for all of it, 300 by default,
        None for none. The API key is not sent along. An existing file is replaced, links followed, and keeps its mode;
        a device or FIFO is written as the file comes.

        The URL, and each redirect (five at most), must be https and lead to a public address. If the file was named by
        a service on this machine, both may lead to this machine too, over plain http as well, as long as they don't
        leave it. `allow_private`: they may always, and into private networks.

        Raises the `APIStatusError` of an answer without the file, `APIConnectionError` where it didn't come whole,
        `APIResponseValidationError` where there is no URL, one that can't be used, or too much of it; and `OSError`
        where it can't be written. Nothing is tried again here: call it again.
        """
        policy = AddressPolicy(allow_loopback=self.is_local or allow_private, allow_private=allow_private)
        return await download(self.url, Path(path), max_bytes=max_bytes, timeout=timeout, policy=policy)


@frozen(kw_only=True)
class FilesResult(TaskResult):
    """An answer for a task that makes files: how it stands and, once COMPLETED, where they are."""

    results: tuple[File, ...] = field(default=(), repr=lambda results: f"<{len(results)}>")

    @property
    def has_output(self) -> bool:
        """Whether there is any file."""
        return bool(self.results)

    async def download(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        timeout: float | None = TIMEOUT,
        allow_private: bool = False,
    ) -> Path:
        """Stream the first file to `path`: see `File.download`. For others: `result.results[1].download(path)`."""
        first = self.results[0] if self.results else File()
        return await first.download(path, max_bytes=max_bytes, timeout=timeout, allow_private=allow_private)


@frozen(kw_only=True)
class ImageResult(FilesResult):
    """An answer of `/async/images/result`."""


@frozen(kw_only=True)
class SpeechResult(FilesResult):
    """An answer of `/async/speech/result`."""
