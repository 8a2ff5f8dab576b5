"""Which tests show which row of the fault table: for the test that no row has none, and for the documentation."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

from distribute_async import DistributeError
from tests.faults.cases import CASES, rule_of
from tests.seams import Rule


def shows(rule: Rule, *errors: type[DistributeError]) -> pytest.MarkDecorator:
    """Says of a test that doesn't run through the cases which row it shows, and which errors may come of that."""
    return pytest.mark.row(rule, errors)


def showing(rule: Rule) -> dict[str, list[str]]:
    """The tests that show a row, as pytest names them, each with the names of the cases that it runs through."""
    return {test: _cases(marks, rule) for test, marks in _tests() if _cases(marks, rule) or any(_rows(marks, rule))}


def errors_of(rule: Rule) -> set[str]:
    """What a wait or fetch raises where a fault of this row ends it."""
    named = {error for _, marks in _tests() for mark in _rows(marks, rule) for error in mark.args[1]}
    return {error.__name__ for error in named | {case.error for case in CASES if rule_of(case.fault) is rule}}


def _tests() -> Iterator[tuple[str, list[pytest.Mark]]]:
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for name, test in vars(importlib.import_module(f"tests.faults.{path.stem}")).items():
            if isinstance(test, FunctionType) and name.startswith("test_"):
                yield f"{path.name}::{name}", getattr(test, "pytestmark", [])


def _cases(marks: list[pytest.Mark], rule: Rule) -> list[str]:
    loops = [mark.args[1] for mark in marks if mark.name == "parametrize" and mark.args[0] == "case"]
    return [case.name for loop in loops for case in loop if rule_of(case.fault) is rule]


def _rows(marks: list[pytest.Mark], rule: Rule) -> Iterator[pytest.Mark]:
    return (mark for mark in marks if mark.name == "row" and mark.args[0] is rule)
