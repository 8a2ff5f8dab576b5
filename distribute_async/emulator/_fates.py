"""Fates by chance: ids, lives, answers and faults drawn from a seed. Pure; used by `_emulator`.

The figures are made up to look like queued inference: log-normal durations, queueing and processing apart, and now and
then a task that takes ten times as long.
"""

from __future__ import annotations

import math
import uuid
from random import Random

from attrs import frozen

from distribute_async.emulator._faults import Fault, cut, delay, silence, status
from distribute_async.emulator._lifecycle import Timeline

_OPENINGS = ["Certainly.", "In short:", "Good question.", "Here is a summary.", "Let us see.", "Yes."]
_SENTENCES = [
    "A queue is a promise that somebody keeps later.",
    "The quick brown fox waited for its turn and then jumped.",
    "Water boils at a lower temperature on a mountain.",
    "Most of the work in waiting is knowing when to look.",
    "The tallest tree in the garden is also the oldest.",
    "Trains that run every ten minutes need no timetable.",
    "A good map leaves out nearly everything.",
    "Bread rises best where it is warm and nobody hurries.",
]


@frozen(kw_only=True)
class Lot:
    """What was drawn for one task."""

    task_id: str
    timeline: Timeline
    text: str
    prompt_tokens: int


def draw_key(seed: int) -> str:
    """A key of the shape that the service's have: 32 lowercase hexadecimal digits."""
    return f"{Random(f'{seed} key').getrandbits(128):032x}"


def draw_lot(seed: int, number: int, speed: float = 1.0) -> Lot:
    """The lot of the `number`-th task of a seed, whatever was drawn for the others. `speed` divides its durations."""
    chance = Random(f"{seed} task {number}")
    return Lot(
        task_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        text=" ".join([chance.choice(_OPENINGS), *chance.sample(_SENTENCES, 3)]),
        prompt_tokens=chance.randint(5, 400),
        timeline=[(offset / speed, status) for offset, status in _life(chance)],
    )


def draw_fault(seed: int, number: int, rate: float) -> Fault | None:
    """What the `number`-th request of a seed meets: a fault with the probability `rate`, and otherwise none."""
    chance = Random(f"{seed} fault {number}")
    if chance.random() >= rate:
        return None
    return chance.choice(
        [
            status(500),
            status(502, body=b"<html>Bad Gateway</html>"),
            status(503),
            status(503, headers={"Retry-After": "1"}),
            status(429, headers={"Retry-After": "1"}),
            status(200, body=b"<html>Hello!</html>"),
            cut(),
            cut(after=chance.randint(1, 200)),
            delay(chance.uniform(0.5, 3)),
            silence(chance.uniform(1, 5)),
        ]
    )


def _life(chance: Random) -> Timeline:
    """Some statuses are skipped; one task in eight is postponed and queued again, one in 25 ends in ERROR."""

    def duration(median: float, spread: float) -> float:
        return chance.lognormvariate(math.log(median), spread)

    life = [(0.0, "CREATED")]
    now = duration(0.1, 0.8)
    if chance.random() < 0.9:
        life.append((now, "QUEUED"))
    if chance.random() < 1 / 8:
        now += duration(1.0, 0.7)
        life.append((now, "POSTPONED"))
        now += duration(2.0, 0.7)
        life.append((now, "QUEUED"))
    now += duration(1.5, 0.8)
    if chance.random() < 0.7:
        life.append((now, "ASSIGNED_CONNECTIONS"))
        now += duration(0.2, 0.5)
    life.append((now, "PROCESSING"))
    now += duration(3.0, 0.9) * (10 if chance.random() < 1 / 50 else 1)
    life.append((now, "ERROR" if chance.random() < 1 / 25 else "COMPLETED"))
    return life
