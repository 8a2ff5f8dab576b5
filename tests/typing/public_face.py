"""The types of the public face, as mypy and pyright infer them. Checked, never run."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, Mapping
from typing import Any, Literal, assert_type

from distribute_async import (
    ChatRequest,
    ChatResult,
    Choice,
    DistributeClient,
    DistributeError,
    ImageResult,
    InvalidRequestError,
    ObservedEnding,
    ObservedExchange,
    ObservedWait,
    Observer,
    Outcome,
    SpeechResult,
    Stats,
    TaskFailedError,
    TaskStatus,
    TaskStream,
    ToolCall,
    Transition,
    Usage,
    WaitTimeoutError,
    Watch,
    as_completed,
    fetch,
    wait_for_result,
    watch,
)


async def shortcuts(task_id: str) -> None:
    assert_type(await wait_for_result(task_id), ChatResult)
    assert_type(await wait_for_result(uuid.uuid4(), timeout=None), ChatResult)
    assert_type(await fetch(task_id, timeout=5), ChatResult)
    assert_type(watch(task_id), Watch[ChatResult])
    async for status in watch(task_id):
        assert_type(status, TaskStatus)


async def many(client: DistributeClient, ids: AsyncIterable[uuid.UUID]) -> None:
    assert_type(client.as_completed(["an id"]), TaskStream[Outcome[ChatResult]])
    async for outcome in as_completed(ids, timeout=5):
        assert_type(outcome.result, ChatResult | None)
        assert_type(outcome.unwrap(), ChatResult)
    async for change in client.speech.watch_many({"an id", uuid.uuid4()}):
        assert_type(change, Transition[SpeechResult])
    client.as_completed(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def created(client: DistributeClient) -> None:
    said = [{"role": "user", "content": "Hello!"}]
    assert_type(await client.submit(model="m", messages=said, temperature=0.5), Watch[ChatResult])
    assert_type(await client.submit_and_wait(model="m", messages=said, timeout=None), ChatResult)
    assert_type(await client.images.submit(model="m", prompt="a fox"), Watch[ImageResult])
    assert_type(await client.speech.submit_and_wait(model="m", input="Hello!"), SpeechResult)
    await client.submit(messages=said)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.chat.submit(messages=said)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.submit_and_wait(messages=said)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.images.submit(model="m")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.images.submit(prompt="a fox")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.speech.submit(model="m")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ChatRequest(messages=said)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(ChatRequest(model="m", messages=said).model, str)
    await client.submit(model="m")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.images.submit(model="m", prompt=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.speech.submit(model="m", input="", speed=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def client(task_id: str) -> None:
    async with DistributeClient("key", base_url="http://127.0.0.1") as client:
        assert_type(client, DistributeClient)
        assert_type(await client.wait_for_result(task_id, timeout=1.5), ChatResult)
        assert_type(await client.fetch(task_id), ChatResult)
        assert_type(await client.chat.fetch(task_id), ChatResult)
        assert_type(await wait_for_result(task_id, client=client), ChatResult)
        one = client.watch(task_id)
        assert_type(await one, ChatResult)
        assert_type(one.latest, ChatResult | None)
        assert_type(one.result, ChatResult | None)
        async for status in one:
            assert_type(status, TaskStatus)
        async for transition in one.transitions():
            assert_type(transition, Transition[ChatResult])
        assert_type(one.status, TaskStatus | None)
        assert_type(one.history, tuple[Transition[ChatResult], ...])
        assert_type(one.history[0].result, ChatResult | None)


def values(result: ChatResult) -> None:
    assert_type(result.text, str | None)
    assert_type(result.choices, tuple[Choice, ...])
    assert_type(result.choices[0].message.tool_calls, tuple[ToolCall, ...] | None)
    assert_type(result.usage, Usage | None)
    assert_type(result.status.is_terminal, bool)


def errors(failed: TaskFailedError, timed_out: WaitTimeoutError, invalid: InvalidRequestError) -> None:
    assert_type(invalid.parameter, str)
    assert_type(failed.last_status, TaskStatus | None)
    assert_type(timed_out.last_error, DistributeError | None)


class Listener(Observer):
    def wait_moved(self, wait: ObservedWait, transition: Transition[Any]) -> None:
        assert_type(transition.status, TaskStatus | None)

    def wait_ended(self, wait: ObservedWait, ending: ObservedEnding) -> None:
        assert_type(ending.outcome, Literal["result", "error", "cancelled", "left"])
        assert_type(ending.error, DistributeError | None)
        assert_type(ending.interval, float | None)

    def exchange_ended(self, exchange: ObservedExchange) -> None:
        assert_type(exchange.status_code, int | None)
        assert_type(exchange.fault, str | None)


def observed() -> None:
    client = DistributeClient("key", observer=Listener())
    assert_type(client.stats(), Stats)
    assert_type(client.stats().outcomes, Mapping[str, int])
    assert_type(client.stats().outage_for, float | None)
    DistributeClient("key", observer=print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def refused(client: DistributeClient) -> None:
    client.watch(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.watch("id", 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DistributeClient("key", "http://127.0.0.1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
