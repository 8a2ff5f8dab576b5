"""The tasks of the demonstration, and what becomes of each. Used by `_demo` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from distribute_async.cli._follow import Followed
from distribute_async.emulator import Fault, fault

_QUESTION = {"model": "Llama-3.1 8B", "messages": [{"role": "user", "content": "What is worth waiting for?"}]}
_PICTURE = {"model": "Flux.1 [dev]", "prompt": "A lighthouse at dusk", "size": "512x512"}
_WORDS = {"model": "Chatterbox", "input": "Good things come to those who poll.", "voice": "nora"}


@frozen
class Fate:
    """What becomes of one task."""

    name: str
    timeline: Sequence[tuple[float, str]]
    #: Further arguments of `Emulator.add_task`.
    script: Mapping[str, Any] = field(factory=dict)
    kind: str = field(default="chat", kw_only=True)
    #: What it is created from.
    request: Mapping[str, Any] = field(default=_QUESTION, kw_only=True)
    #: What meets the request that creates it.
    faults: Sequence[Fault] = field(default=(), kw_only=True)
    #: The name for the file that it makes.
    file: str | None = field(default=None, kw_only=True)

    @property
    def is_to_fail(self) -> bool:
        """Whether the task ends in ERROR."""
        return self.timeline[-1][1] == "ERROR"

    def is_met(self, task: Followed) -> bool:
        """Whether following the task ended as its fate has it."""
        return task.has_ended and (task.error is not None) == self.is_to_fail


def fates(speed: float) -> list[Fate]:
    """The cast. Durations in seconds at speed 1, long enough for each status to be seen at the default pace."""

    def life(*steps: tuple[float, str]) -> Sequence[tuple[float, str]]:
        return [(offset / speed, status) for offset, status in steps]

    usual = life((0, "CREATED"), (1.2, "QUEUED"), (3, "ASSIGNED_CONNECTIONS"), (4.5, "PROCESSING"), (7, "COMPLETED"))
    busy = life((0, "CREATED"), (2, "QUEUED"), (4.5, "PROCESSING"), (8, "COMPLETED"))
    slow = life((0, "QUEUED"), (4, "PROCESSING"), (6.5, "COMPLETED"))
    quick = life((0, "QUEUED"), (2, "PROCESSING"), (5, "COMPLETED"))
    postponed = life(
        (0, "CREATED"),
        (1, "QUEUED"),
        (2.5, "POSTPONED"),
        (5, "QUEUED"),
        (6.5, "PROCESSING"),
        (9.5, "COMPLETED"),
    )
    return [
        Fate("a usual life", usual),
        Fate("makes a picture", usual, kind="images", request=_PICTURE, file="picture.png"),
        Fate("speaks", quick, kind="speech", request=_WORDS, file="sound.wav"),
        Fate("postponed, queued again", postponed),
        Fate("ends in ERROR", life((0, "CREATED"), (1.5, "QUEUED"), (3, "PROCESSING"), (6, "ERROR"))),
        Fate("not visible at first", slow, {"visible_after": 1.2 / speed}),
        Fate("behind a burst of 503s", busy, {"faults": [fault.status(503)] * 3}),
        Fate("asks for a tool", quick, {"tool_calls": [("get_weather", '{"city": "Utrecht"}')]}),
        Fate("skips statuses", life((0, "CREATED"), (3.5, "COMPLETED"))),
        Fate("a status yet unknown", life((0, "CREATED"), (1.5, "WARMING_UP"), (4, "PROCESSING"), (6, "COMPLETED"))),
        Fate("connections are cut", busy, {"faults": [fault.cut(), fault.cut(after=40)]}),
        Fate("a proxy answers HTML", quick, {"faults": [fault.status(200, body=b"<html>Hello!</html>")]}),
        Fate("a slow answer", slow, {"faults": [fault.delay(1.5 / speed)]}),
        Fate("over before anyone asks", life((0, "COMPLETED"))),
        # The last one, so that the others needn't wait for it.
        Fate("a 503 when submitted", quick, faults=[fault.status(503)]),
    ]
