"""The kinds of task: an entry each. Pure; used by `_emulator`, and by `_app` for which calls there are.

What the service says is written here, as plain dicts: chat by the specification, the others by the documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from attrs import frozen

from distribute_async.emulator import _checks
from distribute_async.emulator._checks import Shape
from distribute_async.emulator._lifecycle import Task
from distribute_async.emulator._media import File, picture, sound

# Nothing says how many pictures a task may be asked for.
_MOST_PICTURES = 10


def _number(time: float) -> float:
    return round(time, 3)


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _no_files(_request: Mapping[str, Any], _task_id: str) -> list[File]:
    return []


@frozen(kw_only=True)
class Kind:
    """What tells a kind of task from the others. Its calls are `/async/{name}/create` and `/async/{name}/result`."""

    #: The body that its create call takes.
    create: Shape
    #: Such a body, for what a script leaves out.
    example: Mapping[str, Any]
    #: The field of its results, a list; empty but for a COMPLETED task.
    outcome: str
    #: What the answer of a COMPLETED task has beside the others, given the URLs of its files.
    result: Callable[[Task, Sequence[str]], dict[str, Any]]
    #: How it writes a Unix time.
    date: Callable[[float], float | str] = _number
    #: The files that it makes of the body of a create call for the task with that id.
    files: Callable[[Mapping[str, Any], str], Sequence[File]] = _no_files


def answer(task: Task, now: float, epoch: float, files_url: str) -> dict[str, Any]:
    """The body of the 200 answer at `now`; `epoch` is the Unix time at which the clock stood at 0."""
    kind = KINDS[task.kind]
    since, status = task.stand(now)
    said: dict[str, Any] = {
        "id": task.id,
        "status": status,
        "created": kind.date(epoch + task.born),
        "model": task.model,
        kind.outcome: [],
    }
    if status in {"COMPLETED", "ERROR"}:
        said["finished"] = kind.date(epoch + task.born + since)
    if status == "COMPLETED":
        said |= kind.result(task, [f"{files_url}/{task.id}/{file.name}" for file in task.files])
    return said | dict(task.answer)


def _chat(task: Task, _urls: Sequence[str]) -> dict[str, Any]:
    message: dict[str, Any] = {"content": task.text, "role": "assistant"}
    if task.tool_calls:
        message["tool_calls"] = [
            {
                "id": f"call_{task.id[:8]}_{number}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for number, (name, arguments) in enumerate(task.tool_calls)
        ]
    completion = sum(len(part.split()) for part in [task.text, *(arguments for _, arguments in task.tool_calls)])
    return {
        "service_tier": "default",
        "usage": {
            "completion_tokens": completion,
            "prompt_tokens": task.prompt_tokens,
            "total_tokens": completion + task.prompt_tokens,
        },
        "choices": [
            {"finish_reason": "tool_calls" if task.tool_calls else "stop", "index": 0, "message": message},
        ],
    }


def _images(task: Task, urls: Sequence[str]) -> dict[str, Any]:
    return {"results": [{"url": url, "revised_prompt": task.text} for url in urls]}


def _pictures(request: Mapping[str, Any], task_id: str) -> list[File]:
    """The same of the same prompt and seed; without a seed no two tasks make the same."""
    width, height = map(int, request.get("size", "768x768").split("x"))
    count = int(min(max(request.get("n", 1), 1), _MOST_PICTURES))
    seed = [request["prompt"], request.get("seed", task_id)]
    return [
        File(f"{number}.png", "image/png", partial(picture, width, height, json.dumps([*seed, number])))
        for number in range(count)
    ]


def _speech(_task: Task, urls: Sequence[str]) -> dict[str, Any]:
    return {"results": [{"url": url} for url in urls]}


def _sounds(request: Mapping[str, Any], task_id: str) -> list[File]:
    return [File("0.wav", "audio/wav", partial(sound, json.dumps([request["input"], request.get("voice"), task_id])))]


KINDS = {
    "chat": Kind(
        create=_checks.CHAT,
        example={"model": "Llama-3.1 8B", "messages": [{"role": "user", "content": "Hello!"}]},
        outcome="choices",
        result=_chat,
    ),
    "images": Kind(
        create=_checks.IMAGES,
        example={"model": "Flux.1 [dev]", "prompt": "A lighthouse at dusk"},
        outcome="results",
        result=_images,
        date=_iso,
        files=_pictures,
    ),
    "speech": Kind(
        create=_checks.SPEECH,
        example={"model": "Chatterbox", "input": "The quick brown fox waited for its turn and then jumped."},
        outcome="results",
        result=_speech,
        files=_sounds,
    ),
}
