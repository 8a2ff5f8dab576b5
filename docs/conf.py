"""How the documentation is built: `make docs`."""

import sys
from collections.abc import Iterable
from importlib.metadata import version as version_of
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sphinx.pycode import ModuleAnalyzer

from distribute_async._public import MODULES
from tests.faults.matrix import errors_of, showing
from tests.seams import RULES, TRANSITIONS, HealthSignal, Rule

project = "distribute-async"
author = "The distribute-async authors"
copyright = "2026, the distribute-async authors"
version = release = version_of("distribute-async")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_title = "distribute-async"

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_heading_anchors = 3

nitpick_ignore_regex = [
    (
        "py:.*",
        r"(aiohttp|asyncio|collections|contextlib|fastapi|opentelemetry|starlette|datetime|ssl|uuid|typing|types|yarl|enum|os|pathlib)\b.*",
    ),
    (
        "py:.*",
        r"(distribute_async\.(_|Default$)|P$|R$|R_co$|T$|Any$|Self$|StrEnum|Mapping|Generator|ClientSession|SSLContext|UUID|Default).*",
    ),
    (
        "py:.*",
        r"(Jitter|Endpoint|Engine|Subscription|FindEngine|StreamState|ClientState|TaskResult|TaskStatus|Transition|WireModel).*",
    ),
]

# autodoc looks for the comments on fields, and for the order of members, in the module that a class names.
_face = ModuleAnalyzer.for_module("distribute_async")
_face.analyze()
for _module in {*MODULES.values()}:
    _analyzer = ModuleAnalyzer.for_module(_module)
    _analyzer.analyze()
    _face.attr_docs.update({at: comment for at, comment in _analyzer.attr_docs.items() if at[0] in MODULES})
    _face.tagorder.update(_analyzer.tagorder)

_OUTAGE = {HealthSignal.DOWN: "counts", HealthSignal.UP: "ends it", HealthSignal.UNCLEAR: "", HealthSignal.CUT: ""}


def _ranges(codes: Iterable[int]) -> str:
    runs = (list(run) for _, run in groupby(enumerate(sorted(codes)), lambda at: at[1] - at[0]))
    return ", ".join(str(run[0][1]) if len(run) == 1 else f"{run[0][1]} to {run[-1][1]}" for run in runs)


def _row(rule: Rule) -> str:
    errors = "<br>".join(f"`{error}`" for error in sorted(errors_of(rule)))
    told = " ".join([*(f"`{reason}`" for reason in sorted(rule.reasons)), _ranges(rule.codes)])
    return f"| {rule.fault} | {errors}<br>{told} | {rule.action.value} | {_OUTAGE[rule.signal]} |"


def _tests(rule: Rule) -> str:
    tests = (
        f"- `{test}`" + (f": {', '.join(f'*{case}*' for case in cases)}" if cases else "")
        for test, cases in showing(rule).items()
    )
    return "\n".join([f"**{rule.fault}**", "", *tests])


_HEAD = "| fault | error, with its reason or code | what the wait does | outage |\n|---|---|---|---|\n"


def _states() -> str:
    rows = [
        f"| `{state.name}` | {state.value} | "
        + "<br>".join(f"{event.value}: `{after.name}`" for event, after in row.items())
        + " |"
        for state, row in TRANSITIONS.items()
    ]
    return "\n".join(["| state | what it means | event: next state |", "|---|---|---|", *rows])


myst_substitutions = {
    "subscription_states": _states(),
    "fault_matrix": _HEAD + "\n".join(map(_row, RULES)),
    "fault_tests": "\n\n".join(map(_tests, RULES)),
}
