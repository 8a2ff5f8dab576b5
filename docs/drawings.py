"""Draws the rooms and the states of `docs/design.md` from the code: `python -m docs.drawings` writes the two SVG files.

A test says that the files are what this makes now, so that a change of the code is drawn again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

from tests.seams import TRANSITIONS

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "distribute_async"
FOLDER = HERE / "_static"

#: The rooms of the core, from the top down, with what each is for.
ROOMS = {
    "_api": "what users hold",
    "_engine": "what acts: sockets and asyncio",
    "_policy": "what is decided: pure",
    "_wire": "what goes over the wire: pure values",
}
#: The centre of each state's box. A state that is new has none yet, and the script says so.
PLACES = {
    "IDLE": (110, 90),
    "SLEEPING": (380, 90),
    "QUEUED": (650, 90),
    "PARKED": (570, 185),
    "CUTTING": (110, 350),
    "IN_FLIGHT": (650, 350),
    "OVER": (380, 450),
}
#: Half the width and half the height of a state's box.
HALF_WIDTH, HALF_HEIGHT = 62, 20
_STYLE = (
    "<style>text{font:14px sans-serif;fill:#1c2733}.small{font-size:12px}.title{font-weight:bold}"
    "rect{fill:#fff;stroke:#3b5a7a}.room{fill:#eef3f8}path{fill:none;stroke:#3b5a7a;marker-end:url(#head)}"
    "path.all{stroke-dasharray:5 4}.label{paint-order:stroke;stroke:#f8fafc;stroke-width:5px;font-size:12px}</style>"
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<polygon points="0,0 8,4 0,8" fill="#3b5a7a"/></marker>'
)


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    ground = f'<rect x="0" y="0" width="{width}" height="{height}" style="fill:#f8fafc;stroke:none"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", _STYLE, ground, *parts, "</svg>", ""])


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def _imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distribute_async._"):
            yield str(node.module).split(".")[1]


def rooms() -> str:
    """The four rooms, their modules, and an arrow from each to those that it imports."""
    parts, bottoms = [], {}
    top = 14
    for room, words in ROOMS.items():
        names = sorted(path.stem for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__")
        lines = [" · ".join(names[n : n + 7]) for n in range(0, len(names), 7)]
        height = 34 + 18 * len(lines)
        parts.append(f'<rect class="room" x="14" y="{top}" width="732" height="{height}" rx="6"/>')
        parts.append(_text(28, top + 21, f"{room}: {words}", "title", "start"))
        parts += [_text(28, top + 42 + 18 * n, line, "small", "start") for n, line in enumerate(lines)]
        bottoms[room] = top, top + height
        top += height + 46
    arrows = {(room, below) for room in ROOMS for module in (PACKAGE / room).glob("*.py") for below in _imports(module)}
    order = list(ROOMS)
    for room, below in sorted(arrows):
        if below in ROOMS and below != room:
            x = 330 + 150 * (order.index(below) - order.index(room)) + 24 * order.index(room)
            start, end = bottoms[room][1], bottoms[below][0]
            parts.append(f'<path d="M{x},{start} V{end}"/>')
    return _svg(760, top - 32, "The four rooms of the core; arrows are imports, and all go down", parts)


def states() -> str:
    """The states of a subscription, and the events that move it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, row in TRANSITIONS.items():
        for event, after in row.items():
            if after.name != "OVER" and after is not state:
                arrows.setdefault((state.name, after.name), []).append(event.name)
    parts = [_arrow(*pair, is_paired=pair[::-1] in arrows, events=events) for pair, events in arrows.items()]
    x, y = PLACES["OVER"]
    parts.append(f'<path class="all" d="M{x - 210},{y} H{x - HALF_WIDTH}"/>')
    parts.append(_text(x - 216, y + 5, "every state", "small", "end"))
    parts.append(_text(x - 140, y - 6, "END", "label"))
    for state in TRANSITIONS:
        x, y = PLACES[state.name]
        box = f'x="{x - HALF_WIDTH}" y="{y - HALF_HEIGHT}" width="{2 * HALF_WIDTH}" height="{2 * HALF_HEIGHT}"'
        parts += [f'<rect {box} rx="6"/>', _text(x, y + 5, state.name)]
    return _svg(760, 490, "The states of a subscription and the events between them", parts)


def _arrow(start: str, end: str, *, is_paired: bool, events: list[str]) -> str:
    (x1, y1), (x2, y2) = PLACES[start], PLACES[end]
    label = ", ".join(events)
    if (start, end) == ("QUEUED", "IDLE"):  # around what lies between
        path = f"M{x1},{y1 - HALF_HEIGHT} C{x1},16 {x2},16 {x2},{y2 - HALF_HEIGHT}"
        return f'<path d="{path}"/>' + _text((x1 + x2) / 2, 32, label, "label")
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    shift = 9 if is_paired else 0
    x1, y1, x2, y2 = (x1 - dy * shift, y1 + dx * shift, x2 - dy * shift, y2 + dx * shift)
    gap = min(HALF_WIDTH / abs(dx) if dx else 1e9, HALF_HEIGHT / abs(dy) if dy else 1e9)
    x1, y1, x2, y2 = x1 + dx * gap, y1 + dy * gap, x2 - dx * gap, y2 - dy * gap
    at = 0.5 if is_paired else 0.36
    label_x, label_y = x1 + (x2 - x1) * at, y1 + (y2 - y1) * at + (15 if dx > 0 and is_paired else -4)
    return f'<path d="M{x1:.1f},{y1:.1f} L{x2:.1f},{y2:.1f}"/>' + _text(label_x, label_y, label, "label")


DRAWINGS = {"rooms.svg": rooms, "states.svg": states}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (FOLDER / name).write_text(draw())


if __name__ == "__main__":
    main()
