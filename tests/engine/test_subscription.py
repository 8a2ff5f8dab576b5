"""The state of one id that is followed: who waits for it."""

from __future__ import annotations

import math

import pytest

from distribute_async import DistributeClient, DistributeError
from tests.waiting import ID


class Counted:
    """A waiter that counts how often it is compared with another one."""

    comparisons = 0
    since = 0.0
    prior = 0, 0.0
    deadline = math.inf
    wants_all = is_away = False

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return self is other

    __hash__ = object.__hash__

    def wake(self) -> None: ...

    def refuse(self, error: DistributeError) -> None: ...

    def missed(self) -> None: ...


@pytest.mark.looptime
async def test_thousands_of_waits_on_one_id_come_and_go_in_constant_time(client: DistributeClient) -> None:
    """Each waiter that joins or leaves is compared with a few others at most, however many there are."""
    track = client.poller().track(client.chat._kind.result, ID)
    waiters = [Counted() for _ in range(2000)]
    for waiter in waiters:
        track.enter(waiter)
    for waiter in waiters[::-1]:
        track.leave(waiter)
    assert not track.waiters
    assert Counted.comparisons <= 20 * len(waiters)
