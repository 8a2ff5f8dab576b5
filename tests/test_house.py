"""The house rules: public names, import direction, what an import costs, and what the wheel needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

import distribute_async
from distribute_async._errors import DistributeError
from distribute_async._faults import RULES, rule_for
from distribute_async._session import connection_fault

PACKAGE = Path(distribute_async.__file__).parent

# From the ground up: a module may import those before it.
FLOORS = [
    "_status",
    "_models",
    "_errors",
    "_config",
    "_observer",
    "_codec",
    "_faults",
    "_redaction",
    "_session",
    "_saving",
    "_download",
    "_media",
    "_requests",
    "_endpoints",
    "_pacing",
    "_hazard",
    "_learning",
    "_walk",
    "_gate",
    "_fair_queue",
    "_track",
    "_schedule",
    "_tally",
    "_poller",
    "_watch",
    "_ids",
    "_many",
    "_client",
    "_shared",
    "__init__",
]

# Who alone may know a library.
TENANTS = {
    "aiohttp": {"_session", "_download", "_client"},  # the client only names the type of `session=`
    "cattrs": {"_codec"},
    "json": {"_codec", "_requests", "_walk"},  # these two write what is sent
    "backoff": {"_pacing"},
    "orjson": {"_codec"},
    "click": set(),
    "rich": set(),
    "opentelemetry": set(),
}


def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def core_modules() -> list[Path]:
    return sorted(PACKAGE.glob("*.py"))


def test_every_core_module_has_its_floor() -> None:
    """The list of floors is complete, so that no module escapes the rule."""
    assert {module.stem for module in core_modules()} == set(FLOORS)


@pytest.mark.parametrize("module", core_modules(), ids=lambda module: module.stem)
def test_imports_go_down_only(module: Path) -> None:
    """A core module imports only modules below it, and nothing of the subpackages."""
    below = {f"distribute_async.{name}" for name in FLOORS[: FLOORS.index(module.stem)]}
    assert {name for name in imported(module) if name.startswith("distribute_async")} <= below


@pytest.mark.parametrize("module", core_modules(), ids=lambda module: module.stem)
def test_libraries_stay_in_their_rooms(module: Path) -> None:
    """Each library of the core is known to the module that wraps it, and to no other."""
    tops = {name.partition(".")[0] for name in imported(module)}
    assert {library for library in tops & TENANTS.keys() if module.stem not in TENANTS[library]} == set()


def test_the_emulator_knows_nothing_of_the_client() -> None:
    """The emulator speaks from the specification alone, so that a mistake of the client can't hide in both."""
    foreign = {
        name
        for module in (PACKAGE / "emulator").glob("*.py")
        for name in imported(module)
        if name.startswith("distribute_async") and not name.startswith("distribute_async.emulator")
    }
    assert foreign == set()


@pytest.mark.parametrize("room", ["cli", "integrations", "testing"])
def test_what_is_built_on_the_core_uses_the_public_face_only(room: str) -> None:
    """What is built on the core gets along with what every user has."""
    private = {
        name
        for module in (PACKAGE / room).rglob("*.py")
        for name in imported(module)
        if name.startswith("distribute_async._")
    }
    assert private == set()


def test_all_is_what_the_design_names() -> None:
    """The public names are a contract: adding or losing one is a decision."""
    assert distribute_async.__all__ == [
        *(
            "APIConnectionError",
            "APIResponseValidationError",
            "APIStatusError",
            "APITimeoutError",
            "AuthenticationError",
        ),
        *("BadRequestError", "ChatRequest", "ChatResult", "Choice", "ClientClosedError"),
        *("ConfigurationError", "DistributeClient", "DistributeError", "File", "FunctionCall"),
        *("ImageRequest", "ImageResult", "InternalServerError", "InvalidRequestError", "InvalidTaskIdError"),
        *("LearnedPacing", "Limits"),
        *("Message", "NotFoundError", "ObservedEnding", "ObservedExchange", "ObservedWait"),
        *("Observer", "Outcome", "Pacing", "PermissionDeniedError", "Progress"),
        *("RateLimitError", "Retry", "SpeechRequest", "SpeechResult", "Stats"),
        *("SubmitUncertainError", "TaskFailedError", "TaskStatus", "TaskStream", "ToolCall"),
        *("Transition", "Usage", "WaitTimeoutError", "Watch", "as_completed"),
        *("fetch", "wait_for_result", "watch", "watch_many"),
    ]


def test_importing_the_library_loads_no_extra() -> None:
    """The import costs what the core needs, and no extra, server or emulator."""
    unwanted = [
        "click",
        "rich",
        "fastapi",
        "starlette",
        "opentelemetry",
        "pytest",
        "orjson",
        "aiohttp.web",
        "distribute_async.emulator",
        "distribute_async.cli",
    ]
    unwanted += ["opentelemetry", "distribute_async.integrations"]
    program = f"import sys, distribute_async; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", sorted(Path(__file__).parent.rglob("test_*.py")), ids=lambda module: module.stem)
def test_every_test_says_what_must_hold(module: Path) -> None:
    """A test's docstring is one sentence, and no test returns before it has shown that it holds."""
    tests = [
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert [node.name for node in tests if not (ast.get_docstring(node) or "").endswith(".")] == []
    assert [node.name for node in tests if any(isinstance(part, ast.Return) for part in own_parts(node))] == []


def own_parts(function: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, but not in those within it."""
    for part in ast.iter_child_nodes(function):
        if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield part
            yield from own_parts(part)


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
