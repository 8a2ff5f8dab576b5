"""The results of tasks that make files, with the download of the files. Used by `kinds`.

The service describes these results in its documentation, not in its specification. Fields that the documentation
leaves open are optional.
"""

from __future__ import annotations

import os
from pathlib import Path

from attrs import field, frozen

from distribute_async._engine.download import MAX_BYTES, TIMEOUT, AddressPolicy, download
from distribute_async._wire.models import TaskResult, WireModel


@frozen(kw_only=True)
class File(WireModel):
    """One file that a task made.

    - `url`: where to download it.
    - `revised_prompt`: the prompt that an image was made from, if the service changed it.
    - `is_local`: whether the URL came from a service on this machine, such as the emulator.
    """

    url: str | None = field(default=None, repr=False)  # not in the repr: who has it can read the file
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
        """Download the file to `path` and return the path. An incomplete file never appears there.

        - `max_bytes`: the largest size, after decompression; 100 MB by default.
        - `timeout`: seconds for the whole download, 300 by default; None for no timeout.
        - `allow_private`: also download from this machine and from private networks; False by default.

        The API key is not sent. An existing file is replaced and keeps its mode; symbolic links are followed. A device
        or FIFO is written directly.

        The URL and each redirect, of which five are followed, must be https and lead to a public address. If the URL
        came from a service on this machine, they may also lead to this machine, with plain http too, unless a redirect
        has left it before.

        Raises `APIStatusError` for an error status code, `APIConnectionError` for an incomplete file, `APITimeoutError`
        when the timeout passes, `APIResponseValidationError` for a missing or refused URL and for a file that is too
        large, `ConfigurationError` for an invalid argument, and `OSError` if the file can't be written. Nothing is
        retried.
        """
        policy = AddressPolicy(allow_loopback=self.is_local or allow_private, allow_private=allow_private)
        return await download(self.url, Path(path), max_bytes=max_bytes, timeout=timeout, policy=policy)


@frozen(kw_only=True)
class FilesResult(TaskResult):
    """A response for a task that makes files: the status of the task and, once COMPLETED, the files."""

    results: tuple[File, ...] = field(default=(), repr=lambda results: f"<{len(results)}>")

    @property
    def has_output(self) -> bool:
        """Whether there is at least one file."""
        return bool(self.results)

    async def download(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        timeout: float | None = TIMEOUT,
        allow_private: bool = False,
    ) -> Path:
        """Download the first file; see `File.download`. For another one: `result.results[1].download(path)`."""
        first = self.results[0] if self.results else File()
        return await first.download(path, max_bytes=max_bytes, timeout=timeout, allow_private=allow_private)


@frozen(kw_only=True)
class ImageResult(FilesResult):
    """A response of `/async/images/result`."""


@frozen(kw_only=True)
class SpeechResult(FilesResult):
    """A response of `/async/speech/result`."""
