"""Random runs: creates, faults, pauses, cancellations, deadlines, joins and closing, on a virtual clock."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.machine.check import complaints
from tests.machine.plan import Actor, Life, Plan, Settings, plans, written
from tests.machine.run import carried_out

#: Runs: a slice by default, always the same; with a number of them in the environment they are others each time, and
#: pytest's `--hypothesis-seed` makes them repeatable. A twentieth as many go over sockets.
EXAMPLES = int(os.environ.get("DISTRIBUTE_EXAMPLES", "200"))

_common = settings(
    deadline=None,
    database=None,
    derandomize="DISTRIBUTE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    phases=[Phase.generate, Phase.shrink],
)


@pytest.fixture(scope="module", autouse=True)
def cheap_collections() -> Iterator[None]:
    """Some runs collect garbage, and need not look at all of pytest each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


#: Runs after which what hypothesis remembers of them is frozen too: it grows, and some runs collect garbage.
FREEZE_EVERY = 100
_runs = itertools.count(1)


def assert_promises_are_kept(plan: Plan, *, on_sockets: bool = False) -> None:
    if next(_runs) % FREEZE_EVERY == 0:
        gc.collect()
        gc.freeze()
    found = complaints(carried_out(plan, on_sockets=on_sockets))
    assert not found, "\n".join([*found[:10], "", "This script reproduces it:", script(plan, on_sockets=on_sockets)])


def script(plan: Plan, *, on_sockets: bool) -> str:
    return "\n".join(
        [
            "from tests.machine.plan import *",
            "from tests.machine.test_machine import assert_promises_are_kept",
            f"assert_promises_are_kept({written(plan)}, on_sockets={on_sockets})",
        ]
    )


@settings(_common, max_examples=EXAMPLES)
@given(plan=plans())
def test_whatever_happens_the_promises_are_kept(plan: Plan) -> None:
    """In any run each wait ends as and when it must, and the requests are those that are allowed."""
    assert_promises_are_kept(plan)


@settings(_common, max_examples=max(1, EXAMPLES // 20))
@given(plan=plans())
def test_the_same_on_real_sockets(plan: Plan) -> None:
    """The same runs keep the same promises where each request goes over a socket to a server that misbehaves."""
    assert_promises_are_kept(plan, on_sockets=True)


def test_a_request_that_is_repeated_has_time_limits_of_its_own() -> None:
    """A stale connection that took four seconds to show is followed by a new one, which is given up after two."""
    life = Life(timeline=((0.0, "CREATED"), (30.5, "COMPLETED")), faults=("", "stale", "unreachable"))
    limits = Settings(connect_timeout=2.0, exchange_timeout=20.0)
    assert_promises_are_kept(Plan(lives=(life,), actors=(Actor(kind="wait"),), delays=(4.0,), settings=limits))
