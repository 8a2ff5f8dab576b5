"""Projects of users: their tests, run by a pytest of their own in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import frozen

# Plugins by name instead of all that happen to be installed: what a project has is part of what is tested.
ASYNCIO = ("asyncio", "looptime_plugin")
ANYIO = ("anyio", *ASYNCIO)


@frozen
class Outcome:
    """What a run of pytest ended with."""

    code: int
    #: How many tests "passed", "failed", had "errors".
    counts: dict[str, int]
    output: str


@frozen
class Project:
    """A directory for a project's files, and an interpreter to test it with."""

    place: Path
    python: Path = Path(sys.executable)

    def test(self, files: Mapping[str, str], *options: str, plugins: tuple[str, ...] | None = None) -> Outcome:
        """Write the files and run pytest with warnings as errors; `plugins` besides ours, None for all installed."""
        for name, text in files.items():
            (self.place / name).write_text(text)
        ours = ("PYTHON", "COV_", "PYTEST", "DISTRIBUTE_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment.pop("CI", None)  # pytest says more there, and some of it twice
        if plugins is not None:
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            # By a plugin's name pytest takes `asyncio` itself for a module to rewrite.
            options = ("-Wignore::pytest.PytestAssertRewriteWarning", *options)
            options = (*(f"-p{name}" for name in ("distribute_async.testing", *plugins)), *options)
        if plugins is None or "asyncio" in plugins:
            options = ("-oasyncio_default_fixture_loop_scope=function", *options)
        # looptime's plugin asks for the loop of a test that has none, and 3.12 and 3.13 warn of that.
        of_looptime = "ignore:There is no current event loop:DeprecationWarning:looptime._internal.plugin"
        warnings = ["-Werror", f"-W{of_looptime}"]
        command = [str(self.python), "-m", "pytest", *warnings, "-pno:cacheprovider", "--tb=short", *options]
        done = subprocess.run(
            command, cwd=self.place, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        output = done.stdout + done.stderr
        try:
            counts = pytest.RunResult.parse_summary_nouns(done.stdout.splitlines())
        except ValueError:
            counts = {}
        return Outcome(done.returncode, counts, output)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project, tested with this environment."""
    return Project(tmp_path)
