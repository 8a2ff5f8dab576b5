"""Carries a plan out on a virtual clock. Used by the tests; `recorder` writes it down, and `check` judges it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any, cast
from unittest import mock

import looptime
from attrs import define

import distribute_async
from distribute_async import (
    ChatResult,
    DistributeClient,
    DistributeError,
    Outcome,
    TaskStatus,
    Transition,
    Watch,
)
from tests import seams
from tests.machine.plan import MANY, Actor, Plan
from tests.machine.recorder import Quiet, Recorder, Run, Step, WatchLog
from tests.machine.service import Service
from tests.misbehaving import MisbehavingServer
from tests.waiting import KEY, now, tasks, timers

#: Virtual seconds after which those who still wait are cancelled.
HORIZON = 400.0
#: Virtual seconds after the last wait in which nobody may ask.
SILENCE = 1000.0
#: Seconds of this process's own time after which a run counts as one that hangs. (The longest take one.)
PATIENCE = 20.0
#: Turns of the loop after which a run counts as one that never ends.
MOST_TURNS = 300_000


class _Loop(looptime.make_event_loop_class(asyncio.SelectorEventLoop)):  # type: ignore[misc]
    """A virtual clock; and a limit, since a timer that comes again and again at the same moment stops it for ever."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        if self.turns == MOST_TURNS:
            raise RuntimeError(f"the loop turned {self.turns} times, and it is only {self.time()}")
        super()._run_once()


class _Texts(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._texts = texts
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(self.format(record))


@contextmanager
def _listening_to_logs(texts: list[str]) -> Iterator[None]:
    handler = _Texts(texts)
    loggers = [logging.getLogger(name) for name in ("distribute_async", "asyncio", "aiohttp")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def carried_out(plan: Plan, *, on_sockets: bool = False) -> Run:
    """The run of a plan, on an event loop of its own with a virtual clock."""
    run = Run(plan)
    # Without sockets nothing can come from outside between two timers, so the clock need not wait for it.
    new_loop: Callable[[], asyncio.AbstractEventLoop] = lambda: _Loop(  # noqa: E731
        start=0.0, noop_cycles=42 if on_sockets else 0
    )
    state = random.getstate()
    random.seed(plan.seed)
    try:
        with _impatience(), _listening_to_logs(run.texts), asyncio.Runner(loop_factory=new_loop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: run.complaints.append(f"loop: {context}"))
            runner.run(_Stage(plan, run).play(on_sockets=on_sockets))
    finally:
        random.setstate(state)
    return run


@contextmanager
def _impatience() -> Iterator[None]:
    """A run that hangs, in a loop without an end, breaks where it hangs: so it is reported like any other mistake."""

    def give_up(*_: object) -> None:
        raise RuntimeError(f"a run took {PATIENCE} s")

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


@define(eq=False)
class _Seat:
    """An actor by its number, and what it waits with; no watch where a call has its own."""

    actor: int
    log: WatchLog
    watch: Watch[ChatResult] | None = None


class _Stage:
    """One run while it goes on."""

    def __init__(self, plan: Plan, run: Run) -> None:
        self._plan = plan
        self._run = run
        self._client: DistributeClient | None = None
        self._server: MisbehavingServer | None = None
        self._recorder: Recorder
        self._started = 0.0
        #: Those who left a watch for later.
        self._kept: list[Watch[Any]] = []
        self._shown: set[type[DistributeError]] = set()
        #: The asyncio tasks of the machine itself, which nobody cancels but those who must.
        self._own: set[asyncio.Task[Any]] = set()

    async def play(self, *, on_sockets: bool) -> None:
        """From the first wait to the silence after the last one."""
        self._started = now()
        service = Service(self._plan, self._started)
        self._own.add(cast("asyncio.Task[Any]", asyncio.current_task()))
        self._recorder = Recorder(self._run, None if on_sockets else service)
        async with AsyncExitStack() as stack:
            url = "http://127.0.0.1:9"
            if on_sockets:
                self._server = await stack.enter_async_context(MisbehavingServer(service.behaviour()))
                url = self._server.url
            stack.enter_context(seams.listening(self._recorder))
            stack.enter_context(mock.patch.dict(os.environ, _environment(url)))
            if self._plan.module:
                # Whoever keeps a watch keeps the client, and what that knows of an outage; else it goes with its waits.
                self._kept_engine = seams.shared_engine()
            else:
                self._client = await stack.enter_async_context(_client(self._plan, url))
            await self._all_wait()
            self._run.ended_at = now()
            for _ in range(10):  # a stream that was dropped closes what it can in the next turns
                await asyncio.sleep(0)
            self._look_for_leftovers()
            posts = len(self._run.posts)
            await asyncio.sleep(SILENCE)
            if len(self._run.posts) != posts:
                self._complain("somebody asks though nobody waits")
        if not on_sockets and asyncio.all_tasks() != {asyncio.current_task()}:
            self._complain(f"asyncio tasks outlive the client: {asyncio.all_tasks()}")

    async def _all_wait(self) -> None:
        waiting = [self._new_task(self._act(n, actor)) for n, actor in enumerate(self._plan.everybody)]
        quitting = [
            self._new_task(self._quit(waiting[n], n, actor))
            for n, actor in enumerate(self._plan.everybody)
            if actor.cancel is not None
        ]
        quitting += [self._new_task(self._raid(*raid)) for raid in self._plan.raids]
        if self._plan.close is not None and self._client is not None:
            quitting.append(self._new_task(self._close(*self._plan.close)))
        _, late = await asyncio.wait(waiting, timeout=HORIZON)
        for n, task in enumerate(waiting):
            if task in late:
                self._cancel(task, n)
        ended = await asyncio.gather(*waiting, *quitting, return_exceptions=True)
        for end in ended:
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                text = "".join(traceback.format_exception(end))
                self._complain(f"the machine itself broke: {text}")
        self._own.clear()
        del waiting, quitting, ended, late, task
        self._kept.clear()

    async def _quit(self, task: asyncio.Task[None], n: int, actor: Actor) -> None:
        assert actor.cancel is not None
        await asyncio.sleep(actor.at + actor.cancel)
        for _ in range(actor.turns):
            await asyncio.sleep(0)
        self._cancel(task, n)
        if actor.twice:
            await asyncio.sleep(0)
            self._cancel(task, n)

    def _cancel(self, task: asyncio.Task[Any], n: int) -> None:
        if task.cancel():
            for step in self._run.steps:
                if step.actor == n and step.ending is None:
                    step.quits.append(now())

    async def _close(self, at: float, turns: int) -> None:
        assert self._client is not None
        await asyncio.sleep(at)
        for _ in range(turns):
            await asyncio.sleep(0)
        self._run.closed_at, self._run.cut_at = now(), now() + self._plan.grace
        closing = [self._new_task(self._client.close(grace=self._plan.grace)) for _ in range(2)]
        if self._plan.hurry is not None:
            await asyncio.wait(closing, timeout=self._plan.hurry)
            self._run.cut_at = min(now(), self._run.cut_at)
            await self._client.close()
        await asyncio.gather(*closing)

    def _new_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        self._own.add(task)
        return task

    async def _raid(self, at: float, turns: int) -> None:
        """Somebody cancels all asyncio tasks that aren't known to him."""
        await asyncio.sleep(at)
        for _ in range(turns):
            await asyncio.sleep(0)
        servers = set[Any]() if self._server is None else self._server._tasks
        for task in asyncio.all_tasks() - self._own - servers:
            task.cancel()

    # One who waits.

    async def _act(self, n: int, actor: Actor) -> None:
        task_id = self._plan.task_id(actor.task)
        if actor.shouts:
            task_id = task_id.upper()
        await asyncio.sleep(actor.at)
        api: Any = distribute_async if self._client is None else self._client
        timeout = float("inf") if actor.timeout is None else actor.timeout
        kind = "fetch" if actor.kind == "submit" and self._client is None else actor.kind
        seat = _Seat(n, WatchLog(task_id, kind == "fetch", timeout, now()))
        if kind == "submit":
            await self._submit(n, actor, timeout)
            return
        if kind in {"wait", "fetch"}:
            call = api.fetch if kind == "fetch" else api.wait_for_result
            await self._step(seat, "await", call(task_id, timeout=actor.timeout))
            return
        if actor.kind in MANY:
            await self._follow_all(n, actor, api)
            return
        seat.watch = watch = api.watch(task_id, timeout=actor.timeout)
        try:
            if actor.kind in {"await", "keep"}:
                await self._await(seat, watch)
            elif actor.kind in {"nibble", "visit"}:
                await self._nibble(seat, actor, watch)
            else:
                await self._iterate(seat, actor, watch)
            if actor.kind == "keep":
                self._kept.append(watch)
                await asyncio.sleep(actor.lingers)
        finally:
            seat.log.history = tuple(change.status for change in watch.history)
            self._run.texts.append(f"{watch!r} {watch.latest!r} {watch.history!r}")

    async def _submit(self, n: int, actor: Actor, timeout: float) -> None:
        """Create the task, and wait for it."""
        assert self._client is not None
        seat = _Seat(n, WatchLog("", True, timeout, now(), creates=True))
        message = {"role": "user", "content": str(n)}
        submitting = self._client.submit(model="a-model", messages=[message], timeout=actor.timeout)
        step = await self._step(seat, "await", submitting)
        if isinstance(step.ending, Watch):
            watch, step.ending = step.ending, step.ending.task_id
            if actor.most > 2:
                seat = _Seat(n, WatchLog(watch.task_id, False, timeout, now()), watch)
                await self._step(seat, "await", watch)

    async def _await(self, seat: _Seat, watch: Watch[ChatResult]) -> None:
        first = await self._step(seat, "await", watch)
        again = await self._step(seat, "await", watch)
        if not _are_alike(first.ending, again.ending):
            self._complain(f"awaited again: {again.ending!r} after {first.ending!r}")

    async def _iterate(self, seat: _Seat, actor: Actor, watch: Watch[ChatResult]) -> None:
        beside = None
        if actor.kind == "both":
            beside = self._new_task(self._step(seat, "await", watch))
        try:
            for _ in range(actor.most):
                step = await self._step(seat, "next", anext(watch))
                if not isinstance(step.ending, TaskStatus):
                    break
                await asyncio.sleep(actor.lingers)
            if beside is not None:
                await asyncio.wait([beside])
        finally:
            if beside is not None:
                self._cancel(beside, seat.actor)
                await asyncio.wait([beside])

    async def _nibble(self, seat: _Seat, actor: Actor, watch: Watch[ChatResult]) -> None:
        step: Step | None = None
        while step is None or isinstance(step.ending, TaskStatus):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.3 + actor.lingers) as patience:
                    step = await self._step(seat, "next", anext(watch), patience.when())
            if actor.kind == "visit":
                await asyncio.sleep(actor.away)

    async def _follow_all(self, n: int, actor: Actor, api: Any) -> None:
        """Each task's part of the stream is written down as a watch of its own."""
        everyone = [self._plan.task_id(task) for task in range(len(self._plan.lives))]
        if actor.shouts:
            everyone = [task_id.upper() for task_id in everyone]
        ids = [*everyone[actor.task :], *everyone[: actor.task]]
        timeout = float("inf") if actor.timeout is None else actor.timeout
        op, follow = ("await", api.as_completed) if actor.kind == "completed" else ("next", api.watch_many)
        steps = {task_id.lower(): Step(n, op, WatchLog(task_id, False, timeout, now()), now()) for task_id in ids}
        self._run.steps += steps.values()
        told = 0
        stream = follow(ids, timeout=actor.timeout)
        try:
            async for item in stream:
                self._take_down(steps, item)
                told += 1
                if told == actor.most:
                    for step in steps.values():
                        step.quits.append(now())
                    break
        except asyncio.CancelledError:
            await stream.aclose()  # its traceback holds the stream; without it, what is under way would end by itself
            raise
        except DistributeError as error:
            for step in steps.values():
                step.ended, step.ending = now(), error
                self._find_log(step)
        finally:
            del stream
            for step in steps.values():
                if step.ending is None:
                    step.ended, step.ending = now(), Quiet.CANCELLED
                    self._find_log(step)

    def _find_log(self, step: Step) -> None:
        step.watch.log = step.watch.log or self._recorder.log_of(None, step.watch.task_id)

    def _take_down(self, steps: dict[str, Step], item: Outcome[ChatResult] | Transition[ChatResult]) -> None:
        step = steps.pop(item.task_id.lower())
        step.ended = now()
        self._find_log(step)
        if isinstance(item, Transition) and item.error is None:
            step.ending = item.status
            assert item.result is not None
            if not item.result.is_over:
                steps[item.task_id.lower()] = following = Step(step.actor, "next", step.watch, now())
                self._run.steps.append(following)
        else:
            step.ending = item.error or item.result
        if isinstance(step.ending, DistributeError):
            self._look_at_error(step.ending)

    async def _step(self, seat: _Seat, op: str, waiting: Awaitable[Any], quits: float | None = None) -> Step:
        step = Step(seat.actor, op, seat.log, now(), quits=[] if quits is None else [quits])
        self._run.steps.append(step)
        try:
            step.ending = await waiting
        except StopAsyncIteration:
            step.ending = Quiet.STOPPED
        except DistributeError as error:
            step.ending = error
        except asyncio.CancelledError:
            step.ending = Quiet.CANCELLED
            raise
        except BaseException as error:
            step.ending = error
            self._complain(f"an exception that is none of ours: {error!r}")
        finally:
            step.ended = now()
            seat.log.log = seat.log.log or self._recorder.log_of(seat.watch, seat.log.task_id)
        if isinstance(step.ending, DistributeError):
            self._look_at_error(step.ending)
        return step

    def _look_at_error(self, error: DistributeError) -> None:
        self._run.texts.append(f"{error} {error!r}")
        if error.__cause__ is not None or error.__context__ is not None:
            self._complain(f"{error!r} hangs on {error.__cause__ or error.__context__!r}")
        if type(error) not in self._shown:  # the dear part: once for each kind is enough
            self._shown.add(type(error))
            shown = traceback.TracebackException.from_exception(error, capture_locals=True, limit=-8)
            self._run.texts.append("".join(shown.format()))
        error.__traceback__ = None  # its frames would keep the watches alive

    # What is left.

    def _complain(self, text: str) -> None:
        self._run.complaints.append(text)

    def _look_for_leftovers(self) -> None:
        left: dict[str, Any] = {"asyncio tasks": tasks(), "timers": timers()}
        engine = self._recorder.engine
        if engine is not None:
            left |= seams.leftovers(engine)
            left["the module's session"] = self._plan.module and seams.has_open_session(engine)
        self._run.complaints += [f"left after the last wait: {what}: {it}" for what, it in left.items() if it]
        self._run.texts.append(f"{self._client!r} {engine!r} {engine and vars(engine)!r}")


def _environment(url: str) -> dict[str, str]:
    return {"DISTRIBUTE_API_KEY": KEY, "DISTRIBUTE_BASE_URL": url}


def _client(plan: Plan, url: str) -> DistributeClient:
    settings = plan.settings
    return DistributeClient(
        base_url=url, pacing=settings.pacing, retry=settings.retry, limits=settings.limits, timeout=None
    )


def _are_alike(one: Any, other: Any) -> bool:
    if isinstance(one, DistributeError):
        return type(one) is type(other) and str(one.args) == str(other.args)
    return one is other
