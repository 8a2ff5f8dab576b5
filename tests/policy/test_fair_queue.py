"""Who goes next: calls before first polls before polls, each with its share."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribute_async._policy.fair_queue import FairQueue, Priority

CALL, FIRST_POLL, POLL = Priority


def taken(queue: FairQueue[str], count: int) -> list[str]:
    return [queue.take() for _ in range(count)]


def test_first_come_first_served_within_a_class() -> None:
    """Within a class the order is that of coming, without those who left."""
    queue: FairQueue[str] = FairQueue()
    for item in "abcd":
        queue.add(item, POLL)
    queue.discard("b")
    queue.discard("nobody")
    assert ("b" in queue, "c" in queue, len(queue), list(queue)) == (False, True, 3, ["a", "c", "d"])
    assert taken(queue, 3) == ["a", "c", "d"]
    assert not queue
    with pytest.raises(ValueError, match="empty"):
        queue.take()


def test_who_comes_to_an_idle_class_is_next() -> None:
    """However many polls wait and have waited, a call and a first poll wait for no more than each other."""
    queue: FairQueue[str] = FairQueue()
    for n in range(100):
        queue.add(f"poll {n}", POLL)
    assert taken(queue, 50) == [f"poll {n}" for n in range(50)]
    queue.add("first", FIRST_POLL)
    queue.add("call", CALL)
    assert taken(queue, 2) == ["call", "first"]


def test_each_class_has_its_share() -> None:
    """While all three wait, of thirteen turns eight are calls', four first polls' and one a poll's."""
    queue: FairQueue[str] = FairQueue()
    for n in range(200):
        for priority in Priority:
            queue.add(f"{priority.name} {n}", priority)
    names = [item.partition(" ")[0] for item in taken(queue, 130)]
    assert [names.count(priority.name) for priority in Priority] == [80, 40, 10]
    polls = [n for n, name in enumerate(names) if name == "POLL"]
    assert max(later - earlier for earlier, later in itertools.pairwise(polls)) <= 14


def test_an_idle_class_saves_nothing_up() -> None:
    """Polls that come after a thousand calls get their share from then on, and no more."""
    queue: FairQueue[str] = FairQueue()
    for n in range(2000):
        queue.add(f"call {n}", CALL)
    taken(queue, 1000)
    for n in range(100):
        queue.add(f"poll {n}", POLL)
    assert sum(item.startswith("poll") for item in taken(queue, 90)) in {9, 10, 11}


def test_evenly_each_class_has_every_other_turn() -> None:
    """`take_evenly` goes round the classes that hold something that fits, whatever their shares."""
    queue: FairQueue[str] = FairQueue()
    for n in range(5):
        queue.add(f"call {n}", CALL)
        queue.add(f"poll {n}", POLL)
    fits = [queue.take_evenly(lambda item: item != "call 0") for _ in range(5)]
    assert fits == ["call 1", "poll 0", "call 2", "poll 1", "call 3"]
    assert queue.take_evenly(lambda item: item == "call 0") == "call 0"
    assert queue.take_evenly(lambda item: item == "call 0") is None
    assert len(queue) == 4


@given(st.lists(st.sampled_from([*Priority, "take", "take", "drop"])))
def test_nothing_is_lost(steps: list[Priority | str]) -> None:
    """Whatever comes and goes, each item comes out once, and nobody is passed by within a class."""
    queue: FairQueue[int] = FairQueue()
    waiting: dict[int, Priority] = {}
    for n, step in enumerate(steps):
        if isinstance(step, Priority):
            queue.add(n, step)
            waiting[n] = step
        elif waiting and step == "take":
            item = queue.take()
            assert item == min(other for other, priority in waiting.items() if priority is waiting[item])
            del waiting[item]
        elif waiting:
            queue.discard(max(waiting))
            del waiting[max(waiting)]
        assert set(queue) == set(waiting)
        assert len(queue) == len(waiting)
