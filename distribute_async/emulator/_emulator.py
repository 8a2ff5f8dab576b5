"""`Emulator`: the service in one process, as a context manager. Used by tests, the command line and demonstrations."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

from aiohttp import web

from distribute_async.emulator._app import Service
from distribute_async.emulator._fates import draw_key, draw_lot
from distribute_async.emulator._faults import Fault
from distribute_async.emulator._lifecycle import Store, Task, Timeline
from distribute_async.emulator._log import RecordedRequest

_logger = logging.getLogger("distribute_async.emulator")


class Emulator:
    """The service, listening as long as the context lasts.

    `api_key`: the one that it takes; None makes one from the seed. `seed`: of all that is drawn: the n-th task of a
    seed always has the same id, life and answer. `host`, `port`: where to listen; port 0 takes a free one. `speed`:
    drawn lives run so many times faster. `epoch`: the Unix time, in seconds, of its first use (a task, or a
    question for one), which `created` and `finished` go by. All time is the event loop's, so that a virtual clock
    drives it too.

    ::

        async with Emulator(seed=7) as emulator:
            task_id = emulator.add_task([(0, "CREATED"), (1.5, "QUEUED"), (4, "COMPLETED")])
            client = DistributeClient(emulator.api_key, base_url=emulator.base_url)

    Leaving cuts all connections at once, and leaves no asyncio task and no socket. What should never happen (a listener
    that raised, a failure of the emulator itself, answered 500) is raised on leaving, as an `ExceptionGroup`. It may
    be entered again: on the same port, with the same tasks, as a service that was away for a while.

    Raises `ValueError` for a `speed` that isn't above zero and a key that no header can carry, and on entering
    `OSError` where it can't listen, `RuntimeError` where it listens already.
    """

    #: For all emulators: told of every answer that should be as specified, by (path, status code, content type, body).
    #: Answers by `fault.status` and `fault.raw`, or with a scripted `answer=` or status, are none of these.
    listeners: ClassVar[list[Callable[[str, int, str, bytes], None]]] = []

    def __init__(
        self,
        api_key: str | None = None,
        *,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        epoch: float = 1_700_000_000.0,
    ) -> None:
        if not speed > 0:
            raise ValueError("speed must be above zero")
        if api_key is not None and not re.fullmatch("[!-~]+( [!-~]+)*", api_key):
            raise ValueError("api_key must be visible ASCII, without blanks around it")
        #: The key that it takes.
        self.api_key = draw_key(seed) if api_key is None else api_key
        #: Met by the next requests of whatever kind, in order; each is used once.
        self.faults: deque[Fault] = deque()
        #: Met by every request while it is set, before all others.
        self.down: Fault | None = None
        #: The newest requests, at most 100,000, in the order in which they came. Yours to clear.
        self.requests: list[RecordedRequest] = []
        self._seed = seed
        self._host = host
        self._port = port
        self._speed = speed
        self._epoch = epoch
        self._started: float | None = None
        self._store = Store()
        self._drawn = 0
        self._task_faults: dict[str, deque[Fault]] = {}
        self._failures: list[Exception] = []
        self._http: web.Server | None = None
        self._listening: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Emulator at {self.base_url}>" if self._port else "<Emulator, not started>"

    @property
    def base_url(self) -> str:
        """Where it listens. Raises `RuntimeError` before it has a port."""
        if not self._port:
            raise RuntimeError("the emulator has no port yet: enter it first")
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        if self._listening is not None:
            raise RuntimeError("the emulator is running already")
        service = Service(
            api_key=self.api_key,
            log=self.requests,
            create=lambda body: self.add_task(model=body["model"]),
            look_up=self._look_up,
            next_fault=self._next_fault,
            tell=self._tell,
            report=self._report,
        )
        # A client that leaves ends its handler at once: nobody answers a closed connection for long.
        self._http = web.Server(service.handle, access_log=None, handler_cancellation=True, auto_decompress=False)
        loop = asyncio.get_running_loop()
        # The kernel lets clients beyond the backlog wait for a second, on the real clock.
        self._listening = await loop.create_server(self._http, self._host, self._port, backlog=1024)
        self._port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._listening is not None and self._http is not None:
            await _stop(self._listening, self._http)
            self._listening = None
        failures, self._failures = self._failures, []
        if failures and error is None:
            raise ExceptionGroup("the emulator failed", failures)

    def add_task(
        self,
        timeline: Timeline | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the specification's name
        model: str = "Llama-3.1 8B",
        text: str | None = None,
        tool_calls: Sequence[tuple[str, str]] | None = None,
        visible_after: float = 0.0,
        faults: Iterable[Fault] = (),
        answer: Mapping[str, Any] | None = None,
    ) -> str:
        """Create a task now, by the running loop's clock, and return its id.

        `timeline`: (seconds from now, status) in ascending order; None draws a life. Any status goes, known or not,
        and before the first offset the task has the first one. `text` (a plausible one by default) and `tool_calls`
        ((name, arguments as JSON text) each) are what it says once COMPLETED. `visible_after`: seconds for which the
        service answers 404. `faults`: met by its first requests, one each. `answer`: fields of the 200 answer to
        replace or add, beyond the specification.

        Raises `ValueError` for an id that isn't a version 4 UUID or is taken, and for a timeline that is empty or not
        in order; `RuntimeError` without a running loop.
        """
        lot = draw_lot(self._seed, self._drawn, self._speed)
        task = Task(
            id=lot.task_id if id is None else id,
            born=self._now(),
            timeline=tuple(lot.timeline if timeline is None else timeline),
            model=model,
            text=("" if tool_calls else lot.text) if text is None else text,
            prompt_tokens=lot.prompt_tokens,
            tool_calls=tuple(tool_calls or ()),
            visible_after=visible_after,
            answer=dict(answer or {}),
        )
        self._store.add(task)
        self._drawn += 1
        self._task_faults[task.id.lower()] = deque(faults)
        return task.id

    def _now(self) -> float:
        """Seconds since the emulator was first used, by the running loop's clock."""
        now = asyncio.get_running_loop().time()
        if self._started is None:
            self._started = now
        return now - self._started

    def _look_up(self, task_id: str) -> tuple[dict[str, Any], bool] | None:
        now = self._now()
        task = self._store.find(task_id, now)
        return None if task is None else (task.result(now, self._epoch), task.is_specified(now))

    def _next_fault(self, task_id: str | None) -> Fault | None:
        if self.down is not None:
            return self.down
        for waiting in (self.faults, self._task_faults.get((task_id or "").lower())):
            if waiting:
                return waiting.popleft()
        return None

    def _tell(self, path: str, status: int, content_type: str, body: bytes) -> None:
        for listener in self.listeners:
            try:
                listener(path, status, content_type, body)
            except Exception as error:  # the client gets its answer all the same; who runs the emulator gets this
                self._report(error)

    def _report(self, failure: Exception) -> None:
        _logger.error("the emulator failed", exc_info=failure)
        self._failures.append(failure)


async def _stop(listening: asyncio.Server, http: web.Server) -> None:
    """Stop listening, cut every connection, and wait until their handlers are gone."""
    for accepting in listening.sockets:
        asyncio.get_running_loop().remove_reader(accepting)
    # What asyncio has accepted just now becomes a connection within three turns of the loop, if still listening then.
    for _ in range(3):
        await asyncio.sleep(0)
    listening.close()
    for connection in http.connections:
        if isinstance(connection.transport, asyncio.WriteTransport):
            connection.transport.abort()
    # An aborted connection is lost in the loop's next turn, which cancels its handler; with that it is gone.
    while http.connections:  # noqa: ASYNC110 - aiohttp.web has nothing to await here
        await asyncio.sleep(0)
    await listening.wait_closed()
