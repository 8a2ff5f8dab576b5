"""`Emulator`: the service in one process, as a context manager. Used by tests, the command line and demonstrations."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

from distribute_async.emulator._app import Service
from distribute_async.emulator._fates import draw_fault, draw_key, draw_lot
from distribute_async.emulator._faults import Fault
from distribute_async.emulator._files import Files
from distribute_async.emulator._kinds import KINDS, answer
from distribute_async.emulator._lifecycle import Store, Task, Timeline
from distribute_async.emulator._log import Log, RecordedRequest
from distribute_async.emulator._media import File
from distribute_async.emulator._site import Site

_logger = logging.getLogger("distribute_async.emulator")


class Emulator:
    """The service, listening as long as the context lasts.

    `api_key`: the one that it takes; None makes one from the seed. `seed`: of all that is drawn: the n-th task of a
    seed always has the same id, life and answer. `host`, `port`: where to listen; port 0 takes a free one. `speed`:
    drawn lives run so many times faster, any number above 0. `fault_rate`: the share, from 0 to 1, of the requests for
    the API that meet a random fault, where they meet no scripted one; the n-th of these has the same luck for the same
    seed and rate. `epoch`: the Unix time, in seconds, of its first use (a task, or a question for one), which `created`
    and `finished` go by; None for the time that it really is then. All time is the event loop's, so that a virtual
    clock drives it too. The pictures and sounds of results are on a port of their own, a free one.

    ::

        async with Emulator(seed=7) as emulator:
            task_id = emulator.add_task([(0, "CREATED"), (1.5, "QUEUED"), (4, "COMPLETED")])
            client = DistributeClient(emulator.api_key, base_url=emulator.base_url)

    Leaving cuts all connections at once, and leaves no asyncio task and no socket. What should never happen (a listener
    that raised, a failure of the emulator itself, answered 500) is raised on leaving, as an `ExceptionGroup`. It may
    be entered again: on the same port, with the same tasks, as a service that was away for a while.

    Raises `ValueError` for a `speed` that isn't above zero, a `fault_rate` that isn't from 0 to 1, and a key that no
    header can carry, and on entering `OSError` where it can't listen, `RuntimeError` where it listens already.
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
        fault_rate: float = 0.0,
        epoch: float | None = 1_700_000_000.0,
    ) -> None:
        if not speed > 0:
            raise ValueError("speed must be above zero")
        if not 0 <= fault_rate <= 1:
            raise ValueError("fault_rate must be from 0 to 1")
        if api_key is not None and not re.fullmatch("[!-~]+( [!-~]+)*", api_key):
            raise ValueError("api_key must be visible ASCII, without blanks around it")
        #: The key that it takes.
        self.api_key = draw_key(seed) if api_key is None else api_key
        #: Met by the next requests, whatever they ask, in order; each is used once.
        self.faults: deque[Fault] = deque()
        #: Arguments of `add_task` for the next tasks that requests create, one each; without one it is drawn.
        self.fates: deque[Mapping[str, Any]] = deque()
        #: Met by every request while it is set, before all others.
        self.down: Fault | None = None
        #: The newest requests, at most 100,000, in the order in which they came, and of their bodies the newest 32 to
        #: 64 MiB. Yours to clear.
        self.requests: list[RecordedRequest] = []
        #: The same for requests for files, which `requests` doesn't have.
        self.file_requests: list[RecordedRequest] = []
        #: Met by the next requests for files, which neither `faults` nor `down` touches.
        self.file_faults: deque[Fault] = deque()
        self._seed = seed
        self._speed = speed
        self._fault_rate = fault_rate
        self._chances = 0
        self._epoch = epoch
        self._started: float | None = None
        self._store = Store()
        self._drawn = 0
        self._task_faults: dict[str, deque[Fault]] = {}
        self._failures: list[Exception] = []
        self._api = Site(
            host=host,
            port=port,
            api_key=self.api_key,
            log=Log(records=self.requests),
            answer=Service(create=self._create, look_up=self._look_up).answer,
            next_fault=self._next_fault,
            tell=self._tell,
            report=self._report,
        )
        self._files = Site(
            host=host,
            port=0,
            api_key=self.api_key,
            log=Log(records=self.file_requests),
            answer=Files(find=self._find_file).answer,
            next_fault=lambda _: self.file_faults.popleft() if self.file_faults else None,
            tell=lambda *_: None,
            report=self._report,
        )

    def __repr__(self) -> str:
        return f"<Emulator at {self.base_url}>" if self._api.port else "<Emulator, not started>"

    @property
    def base_url(self) -> str:
        """Where it listens. Raises `RuntimeError` before it has a port."""
        return self._api.url

    @property
    def files_url(self) -> str:
        """Where the files of its results are: the same host, another port. Raises `RuntimeError` before it has one."""
        return self._files.url

    async def __aenter__(self) -> Self:
        await self._api.start()
        try:
            await self._files.start()
        except BaseException:
            await self._api.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._api.stop()
        await self._files.stop()
        failures, self._failures = self._failures, []
        if failures and error is None:
            raise ExceptionGroup("the emulator failed", failures)

    def add_task(
        self,
        timeline: Timeline | None = None,
        *,
        kind: str = "chat",
        id: str | None = None,  # noqa: A002 - the specification's name
        model: str | None = None,
        request: Mapping[str, Any] | None = None,
        text: str | None = None,
        tool_calls: Sequence[tuple[str, str]] | None = None,
        visible_after: float = 0.0,
        faults: Iterable[Fault] = (),
        answer: Mapping[str, Any] | None = None,
    ) -> str:
        """Create a task now, by the running loop's clock, and return its id.

        `timeline`: (seconds from now, status) in ascending order; None draws a life. Any status goes, known or not,
        and before the first offset the task has the first one. `kind`: "chat", "images" or "speech". `request`: what
        the body of its create call would say, of which anything may be left out; `model`: the same as a field of it.
        `text` and `tool_calls` ((name, arguments as JSON text) each) are what a chat says once COMPLETED, a plausible
        text by default; for images `text` is the revised prompt, by default the prompt. `visible_after`: seconds for
        which the service answers 404. `faults`: met by its first requests, one each. `answer`: fields of the 200 answer
        to replace or add, beyond the specification.

        Raises `ValueError` for an id that isn't a version 4 UUID or is taken, for a timeline that is empty or not in
        order, for a kind that there isn't, and for a request that its create call refuses; `RuntimeError` without a
        running loop.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        body = {**KINDS[kind].example, **(request or {}), **({} if model is None else {"model": model})}
        if complaint := KINDS[kind].create.complaint(body):
            raise ValueError(f"request {complaint}")
        lot = draw_lot(self._seed, self._drawn, self._speed)
        task_id = lot.task_id if id is None else id
        if text is None:
            text = "" if tool_calls else body.get("prompt", lot.text)
        task = Task(
            id=task_id,
            kind=kind,
            born=self._now(),
            timeline=tuple(lot.timeline if timeline is None else timeline),
            model=body["model"],
            text=text,
            prompt_tokens=lot.prompt_tokens,
            tool_calls=tuple(tool_calls or ()),
            files=KINDS[kind].files(body, task_id),
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
            self._epoch = time.time() if self._epoch is None else self._epoch
        return now - self._started

    def _create(self, kind: str, body: Mapping[str, Any]) -> str:
        fate = self.fates.popleft() if self.fates else {}
        return self.add_task(kind=kind, request=body, **fate)

    def _look_up(self, kind: str, task_id: str) -> tuple[dict[str, Any], bool] | None:
        now = self._now()
        task = self._store.find(task_id, now)
        if task is None or task.kind != kind:
            return None
        return answer(task, now, self._epoch or 0.0, self.files_url), task.is_specified(now)

    def _find_file(self, task_id: str, name: str) -> File | None:
        now = self._now()
        task = self._store.find(task_id, now)
        if task is None or task.stand(now)[1] != "COMPLETED":
            return None
        return next((file for file in task.files if file.name == name), None)

    def _next_fault(self, task_id: str | None) -> Fault | None:
        if self.down is not None:
            return self.down
        for waiting in (self.faults, self._task_faults.get((task_id or "").lower())):
            if waiting:
                return waiting.popleft()
        if not self._fault_rate:
            return None
        self._chances += 1
        return draw_fault(self._seed, self._chances, self._fault_rate)

    def _tell(self, path: str, status: int, content_type: str, body: bytes) -> None:
        for listener in self.listeners:
            try:
                listener(path, status, content_type, body)
            except Exception as error:  # the client gets its answer all the same; who runs the emulator gets this
                self._report(error)

    def _report(self, failure: Exception) -> None:
        _logger.error("the emulator failed", exc_info=failure)
        self._failures.append(failure)
