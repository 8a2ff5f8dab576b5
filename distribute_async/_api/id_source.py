"""The ids of many tasks, taken lazily from any iterable or async iterable. Used by `stream`."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Any

from distribute_async._wire.errors import ConfigurationError, DistributeError

Id = str | uuid.UUID
Ids = Iterable[Id] | AsyncIterable[Id]

#: Ids that are taken in one go, at most, so that a long list doesn't hold up the loop.
AT_ONCE = 100


class IdSource:
    """The ids to come. Those of an async iterable are taken by an asyncio task beside, only as they are wanted."""

    def __init__(self, ids: Ids, is_wanted: Callable[[], bool], notify: Callable[[], None]) -> None:
        self._now: Iterator[Id] = iter(())
        self._later: Any = None
        if isinstance(ids, AsyncIterable):
            self._later = aiter(ids)
        elif isinstance(ids, Iterable) and not isinstance(ids, str | bytes):
            self._now = iter(ids)
        else:
            raise ConfigurationError("ids must be an iterable or an async iterable of task ids")
        self._is_wanted = is_wanted
        self._notify = notify
        self._is_exhausted = False
        self._arrived: deque[Id] = deque()
        self._error: BaseException | None = None
        self._pull: asyncio.Task[None] | None = None

    @property
    def arrived(self) -> int:
        """Ids of an async iterable that came and are not taken yet."""
        return len(self._arrived)

    @property
    def are_over(self) -> bool:
        """Whether there are no more."""
        return self._is_exhausted and not self._arrived

    def take(self, most: int) -> Iterator[Id]:
        """At most so many of those that can be had at once. Raises what the iterable raises."""
        if self._later is None:
            for _ in range(most):
                try:
                    yield next(self._now)
                except StopIteration:
                    self._is_exhausted = True
                    return
            return
        for _ in range(min(most, len(self._arrived))):
            yield self._arrived.popleft()
        if self._error is not None and not self._arrived:
            error, self._error = self._error, None
            raise error
        if self._pull is None and not self._is_exhausted and self._is_wanted():
            # Not by way of the loop's task factory: an eager one (Python 3.12) would notify who isn't waiting yet.
            self._pull = asyncio.Task(self._pull_more())
            # Its end hangs on this: one that is cancelled before its first step would run no `finally`.
            self._pull.add_done_callback(self._pull_ended)

    async def _pull_more(self) -> None:
        """Never cut where somebody leaves the stream: what comes then is kept."""
        try:
            while self._is_wanted():
                self._arrived.append(await anext(self._later))
                self._notify()
                if not len(self._arrived) % AT_ONCE:
                    await asyncio.sleep(0)
        except StopAsyncIteration:
            self._is_exhausted = True

    def _pull_ended(self, pull: asyncio.Task[None]) -> None:
        self._pull = None
        # A source that is cancelled, from within or by somebody else, is not one that is exhausted.
        self._error = asyncio.CancelledError() if pull.cancelled() else pull.exception()
        self._notify()

    def close(self) -> list[asyncio.Task[None]]:
        """Take no more. A source that is waited for is cancelled, once; gives what is to be seen ended then."""
        pulls = [] if self._pull is None or self._is_exhausted else [self._pull]
        for pull in pulls:
            pull.cancel()
        self._is_exhausted = True
        self._arrived.clear()
        return pulls


def source_error(error: BaseException) -> BaseException:
    """What to raise for what an iterable of ids raised: as it is, unless that would end the loop in silence."""
    if isinstance(error, asyncio.CancelledError | StopAsyncIteration):
        return DistributeError(
            f"the iterable of task ids ended in {type(error).__name__}, so it may have had more ids; "
            "to go on with the tasks that were taken before, iterate over the stream again"
        )
    return error
