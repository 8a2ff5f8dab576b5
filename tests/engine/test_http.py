"""The wrapper of the aiohttp session: what its errors become."""

from __future__ import annotations

import aiohttp
import pytest

from distribute_async import DistributeError
from distribute_async._engine.http import connection_fault
from distribute_async._policy.faults import RULES, rule_for


def all_subclasses(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind}.union(*(all_subclasses(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(all_subclasses(aiohttp.ClientError), key=str), ids=str)
def test_every_aiohttp_error_has_its_counterpart(kind: type[BaseException]) -> None:
    """Whatever the aiohttp client raises becomes one of ours, with a row in the fault table, and is not kept in it."""
    theirs = kind.__new__(kind)
    ours = connection_fault(theirs)
    assert isinstance(ours, DistributeError)
    assert rule_for(ours) in RULES
    assert theirs not in (ours.__cause__, ours.__context__, *ours.args)
