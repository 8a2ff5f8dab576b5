"""Creates are observed like everything else: waits, exchanges and headers, what they made, and what is uncertain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from distribute_async import (
    BadRequestError,
    ObservedEnding,
    ObservedExchange,
    ObservedWait,
    Observer,
    Retry,
    SubmitUncertainError,
    Transition,
)
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.waiting import ID, body, caught, ids, new_client, says

CHAT: dict[str, Any] = {"model": "a-model", "messages": [{"role": "user", "content": "the prompt"}]}
CREATED = bad.good({"id": ID})


class Ears(Observer):
    """Writes all down."""

    def __init__(self) -> None:
        self.started: list[ObservedWait] = []
        self.ended: list[tuple[ObservedWait, ObservedEnding]] = []
        self.moved: list[Transition[Any]] = []
        self.exchanges: list[ObservedExchange] = []
        self.asked: list[tuple[ObservedWait, ...]] = []

    def wait_started(self, wait: ObservedWait) -> None:
        self.started.append(wait)

    def wait_moved(self, wait: ObservedWait, transition: Transition[Any]) -> None:
        self.moved.append(transition)

    def wait_ended(self, wait: ObservedWait, ending: ObservedEnding) -> None:
        self.ended.append((wait, ending))

    def exchange_ended(self, exchange: ObservedExchange) -> None:
        self.exchanges.append(exchange)

    def request_headers(self, waits: tuple[ObservedWait, ...]) -> Mapping[str, str]:
        self.asked.append(waits)
        return {"traceparent": "00-a-b-01"}


@pytest.mark.looptime
async def test_a_create_is_a_wait_of_its_own() -> None:
    """An observer hears of a create before its task, with its kind, and of the id that it gave."""
    ears = Ears()
    script = [bad.status(503), CREATED, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=ears) as client:
        await client.submit_and_wait(**CHAT)
        assert [request.header("traceparent") for request in server.requests] == [["00-a-b-01"]] * 3
    create, follow = ears.started
    assert (create.kind, create.task_id, create.is_create, create.is_fetch) == ("chat", None, True, False)
    assert (follow.task_id, follow.is_create) == (ID, False)
    (wait, ending), (other, _) = ears.ended
    assert (wait, other) == (create, follow)
    assert (ending.outcome, ending.task_id, ending.result, ending.error) == ("result", ID, None, None)
    assert (ending.attempts, ending.polls) == (2, 1)
    assert [waits[0] for waits in ears.asked] == [create, create, follow]
    assert [change.task_id for change in ears.moved] == [ID]
    told = [(exchange.is_create, exchange.task_id, exchange.fault, exchange.attempt) for exchange in ears.exchanges]
    assert told == [(True, None, "503", 1), (True, None, None, 2), (False, ID, None, 1)]
    assert not any(exchange.is_last for exchange in ears.exchanges[:2])


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("behaviour", "kind", "ends"),
    [(bad.status(400), BadRequestError, "failed"), (bad.close, SubmitUncertainError, "uncertain")],
)
async def test_a_create_that_fails_is_told_too(
    behaviour: Behaviour, kind: type[BadRequestError], ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a create ended in reaches the observer, `stats()` and, where a task may exist, the log."""
    ears = Ears()
    async with MisbehavingServer(behaviour) as server, new_client(server.url, observer=ears) as client:
        await caught(client.submit(**CHAT), kind)
        ((_, ending),) = ears.ended
        assert (ending.outcome, type(ending.error), ending.task_id) == ("error", kind, None)
        assert ending.is_uncertain == (ends == "uncertain")
        assert client.stats().creates == {ends: 1}
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == (ends == "uncertain")
    assert "the prompt" not in caplog.text


@pytest.mark.looptime
@pytest.mark.parametrize("after", [0.0, 1.0])
async def test_a_create_that_is_cancelled_is_uncertain_once_it_was_sent(after: float) -> None:
    """Of a cancelled create an observer hears whether it may have made a task."""
    ears = Ears()
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url, observer=ears) as client:
        submitting = asyncio.create_task(client.submit(**CHAT))
        await asyncio.sleep(after)
        submitting.cancel()
        await asyncio.wait([submitting])
    ((_, ending),) = ears.ended
    assert (ending.outcome, ending.is_uncertain, ending.task_id) == ("cancelled", after > 0, None)


@pytest.mark.looptime
async def test_stats_count_creates_apart_from_polls() -> None:
    """`stats().polls` counts polls alone, `creates` what became of each create, with or without an observer."""
    script = [CREATED, *says("COMPLETED"), bad.status(422), bad.silence(), bad.silence(), bad.silence()]
    async with MisbehavingServer(*script) as server:
        client = new_client(server.url)
        await client.submit_and_wait(**CHAT)
        await caught(client.submit(**CHAT), BadRequestError)
        assert client.stats().polls == 1
        assert client.stats().creates == {"created": 1, "failed": 1}
        await caught(client.submit(**CHAT, timeout=5), SubmitUncertainError)
        cancelled, cut = (asyncio.create_task(client.submit(**CHAT)) for _ in range(2))
        await asyncio.sleep(1)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await client.close()
        await caught(cut, SubmitUncertainError)
        assert client.stats().creates == {"created": 1, "failed": 1, "uncertain": 3}
        assert client.stats().outcomes["200"] == 2


@pytest.mark.looptime
async def test_the_probe_that_stands_in_for_a_create_is_no_create() -> None:
    """In an outage an observer hears of a probe without a task, and of the create only once it is sent."""
    ears = Ears()
    script = [*[bad.status(502)] * 7, bad.status(404), bad.good({**body("QUEUED"), "id": ID})]
    async with (
        MisbehavingServer(*script) as server,
        new_client(server.url, observer=ears, retry=Retry(attempts=1)) as client,
    ):
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(6)]
        await asyncio.sleep(0.2)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        ears.exchanges.clear()
        await client.submit(**CHAT)
        told = [(exchange.is_create, exchange.is_probe, exchange.task_id) for exchange in ears.exchanges]
        assert told == [(False, True, None), (False, True, None), (True, False, None)]
        assert client.stats().creates == {"created": 1}
