"""The drawings of the design page."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.drawings import DRAWINGS, FOLDER
from tests.seams import TRANSITIONS

DESIGN = Path(__file__).parents[1] / "docs" / "design.md"


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_drawings_show_the_code_of_today(name: str) -> None:
    """Each drawing is what its script makes now: `python -m docs.drawings` draws them anew."""
    assert (FOLDER / name).read_text() == DRAWINGS[name]()


def test_each_state_is_in_its_drawing() -> None:
    """The drawing of the states has a box for each of them."""
    drawing = DRAWINGS["states.svg"]()
    assert [state for state in TRANSITIONS if f">{state.name}</text>" not in drawing] == []


def test_the_page_names_modules_that_there_are() -> None:
    """Each module of the core stands on the design page."""
    page = DESIGN.read_text()
    core = DESIGN.parents[1] / "distribute_async"
    names = [path.stem for room in ("_wire", "_policy", "_engine", "_api") for path in (core / room).glob("*.py")]
    assert [name for name in names if name != "__init__" and f"`{name}`" not in page and f"/{name}`" not in page] == []
