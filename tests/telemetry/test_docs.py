"""The how-to page does what it says: its code is run as it stands there, and the names in its tables are ours."""

from __future__ import annotations

import ast
import inspect
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from distribute_async import Stats
from distribute_async.emulator import Emulator, fault
from distribute_async.integrations import opentelemetry as names

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "telemetry.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    ours = logging.getLogger("distribute_async")
    yield
    ours.setLevel(logging.NOTSET)


@pytest.mark.looptime
@pytest.mark.usefixtures("logging_as_it_was")
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
async def test_the_code_runs(
    block: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each piece of code runs by itself, given a task that meets a fault."""
    monkeypatch.setenv("DISTRIBUTE_API_KEY", emulator.api_key)
    monkeypatch.setenv("DISTRIBUTE_BASE_URL", emulator.base_url)
    task_id = emulator.add_task([(0, "QUEUED"), (3, "COMPLETED")], faults=[fault.status(503)])
    named: dict[str, Any] = {"task_id": task_id, "__name__": "page"}
    running = eval(compile(block, "telemetry.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), named)
    if inspect.isawaitable(running):
        await running
        assert emulator.requests
    if "stats()" in block:
        assert "outcomes={'503': 1, '200': " in capsys.readouterr().out
    if "Faults" in block:
        assert capsys.readouterr().out == "Counter({'503': 1})\n"


def test_the_tables_have_the_names() -> None:
    """Every name that a span or metric has here is on the page, and every field of a snapshot."""
    said = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    assert len(said) > 30
    said.remove(names.SCHEMA_URL)
    assert [name for name in said if f"`{name}`" not in PAGE] == []
    assert names.SCHEMA_URL.rpartition("/")[2] in PAGE
    assert [field.name for field in attrs.fields(Stats) if f"`{field.name}`" not in PAGE] == []
