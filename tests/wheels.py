"""The built wheel, and environments that hold it: for the tests of what users install. Its fixture is in `conftest`."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _python(place: Path, *arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def built_wheel(place: Path) -> Path:
    """The wheel, built in a folder."""
    _python(place, "build", "--wheel", "--outdir", place, ROOT)
    (wheel,) = place.glob("*.whl")
    return wheel


def environment_with(place: Path, *requirements: str | Path) -> Path:
    """The folder of the programs of a new environment in this place, without pip, that holds these requirements."""
    home = place / "env"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    constraints = ROOT / "constraints.txt"
    _python(place, "pip", "--quiet", "--python", home, "install", "--constraint", constraints, *requirements)
    return home / ("Scripts" if os.name == "nt" else "bin")
