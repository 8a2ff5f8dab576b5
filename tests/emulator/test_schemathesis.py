"""Schemathesis, which knows the specification and nothing of us, against the emulator on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from distribute_async.emulator import Emulator, fault
from distribute_async.emulator._lifecycle import STATUSES

TESTS = Path(__file__).parents[1]


async def schemathesis(emulator: Emulator, directory: Path, *, max_examples: int) -> tuple[int | None, str]:
    """Run it as a process, seeded, with all checks but one; its exit code and what it printed.

    `status_code_conformance` is left out because the specification declares neither 400 nor 401. Every other check
    counts, among them those on bad data, good data, other methods, and missing and wrong keys.
    """
    known = [emulator.add_task([(0, status)]) for status in sorted(STATUSES)]
    known.append(emulator.add_task([(0, "COMPLETED")], tool_calls=[("look_up", "{}")]))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", str(TESTS / "spec/chat-result.openapi.json")),
        *("--url", emulator.base_url, "--header", f"authorization:{emulator.api_key}"),
        *("--checks", "all", "--exclude-checks", "status_code_conformance"),
        *("--max-examples", str(max_examples), "--seed", "1", "--generation-database", "none"),
        *("--suppress-health-check", "too_slow", "--no-color"),
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.emulator.schemathesis_hooks",
            "KNOWN_IDS": " ".join(known),
            "PYTHONPATH": str(TESTS.parent),
        },
        cwd=directory,  # it leaves its notes there
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode()


async def test_schemathesis_finds_nothing(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 500 examples there is no answer that the specification doesn't allow, and every kind of answer was given."""
    seen: Counter[str] = Counter()

    def count(_path: str, status: int, _content_type: str, body: bytes) -> None:
        seen[json.loads(body)["status"] if status == 200 else str(status)] += 1

    monkeypatch.setattr(Emulator, "listeners", [*Emulator.listeners, count])
    code, output = await schemathesis(emulator, tmp_path, max_examples=500)
    assert code == 0, output
    assert "No issues found" in output
    assert seen.total() >= 500
    assert seen.keys() == {*STATUSES, "400", "401", "404", "405"}


async def test_schemathesis_finds_what_is_wrong(emulator: Emulator, tmp_path: Path) -> None:
    """It does find something where answers are not as specified."""
    emulator.down = fault.status(200, body=b'{"status": "QUEUED"}', content_type="application/json")
    code, output = await schemathesis(emulator, tmp_path, max_examples=5)
    assert code == 1, output
    assert "FAILURES" in output
