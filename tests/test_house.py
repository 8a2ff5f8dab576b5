"""The house rules: public names, import direction, what an import costs, and what the wheel needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import distribute_async
from distribute_async._public import MODULES
from distribute_async._public import ROOMS as PUBLISHED
from tests import mutants

PACKAGE = Path(distribute_async.__file__).parent
ROOT = PACKAGE.parent
TESTS = Path(__file__).parent

# The rooms of the core, from the ground up. A module may import modules of its own room, and of those below it.
ROOMS = ["_wire", "_policy", "_engine", "_api"]
#: What is built on the core.
OUTSIDE = ["cli", "integrations", "testing", "emulator"]
#: The rooms whose private modules have tests of their own, in folders of the same names.
TESTED_FROM_INSIDE = ["wire", "policy", "engine"]
#: Others that may name private modules: the judge of the random runs reads the fault table, and the test of the public
#: names checks that no private path shows.
REACHING_IN = ["machine", "test_public_names.py"]
#: What uses the public names only.
BUILT_ON_THE_CORE = [
    *(f"distribute_async/{room}/**/*.py" for room in ["cli", "integrations", "testing"]),
    *("examples/**/*.py", "docs/conf.py"),
]
#: Rooms of pure values and decisions: no socket, no clock, no event loop.
PURE = ["_wire", "_policy"]

# Who alone may know a library.
TENANTS = {
    # The client and its state only name the type of `session=`.
    "aiohttp": {"_engine/http", "_engine/download", "_api/client", "_api/client_state"},
    "cattrs": {"_wire/codec"},
    "json": {"_wire/codec", "_wire/requests"},  # the latter writes what is sent
    "backoff": {"_policy/pacing"},
    "orjson": {"_wire/codec"},
    "click": set(),
    "rich": set(),
    "opentelemetry": set(),
}


def imported(module: Path) -> set[str]:
    """The dotted names of what a module imports, wherever in it; of `from a import b` both `a` and `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [*package_of(module, node.level), node.module]))
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def package_of(module: Path, level: int) -> tuple[str, ...]:
    """What the dots of a relative import stand for; nothing for an absolute one."""
    return module.relative_to(ROOT).parts[:-level] if level else ()


def private_names(module: Path) -> set[str]:
    """The private rooms of the core that a module imports from, or names in a text, such as a path to patch."""
    texts = {
        node.value
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {
        name
        for text in texts | imported(module)
        for name in re.findall(rf"\bdistribute_async\.(?:{'|'.join(ROOMS)})\b", text)
    }


def room_of(name: str) -> str:
    """The room of a module of this package, given its dotted name; "" for the package itself."""
    return name.removeprefix("distribute_async").strip(".").partition(".")[0]


def core_modules() -> list[Path]:
    return [module for room in ROOMS for module in sorted((PACKAGE / room).rglob("*.py"))]


def place(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").as_posix()


def test_there_is_no_other_room() -> None:
    """Each module of the package is in a room of the core or outside it, so that none escapes the rules."""
    modules = {module.relative_to(PACKAGE).parts[0] for module in PACKAGE.rglob("*.py")}
    assert modules == {"__init__.py", "_public.py", *ROOMS, *OUTSIDE}


@pytest.mark.parametrize("module", core_modules(), ids=place)
def test_imports_go_down_only(module: Path) -> None:
    """A module of the core imports only its own room and those below it; the room itself publishes its names, too."""
    below = ROOMS[: ROOMS.index(module.relative_to(PACKAGE).parts[0]) + 1]
    if module.name == "__init__.py":
        below = [*below, "_public"]
    ours = {name for name in imported(module) if name.partition(".")[0] == "distribute_async"}
    assert {name for name in ours if room_of(name) not in below} == set()


def test_no_imports_go_in_a_circle() -> None:
    """Within a room, too, what a module imports doesn't import it, by however many steps."""
    arrows = {"distribute_async." + place(module).replace("/", "."): imported(module) for module in core_modules()}
    order = TopologicalSorter({name: names & arrows.keys() for name, names in arrows.items()})
    assert len([*order.static_order()]) == len(arrows)  # raises where there is a circle


def test_the_public_face_imports_the_core_alone() -> None:
    """`__init__` re-exports names of the core's rooms, and of nothing that is built on it."""
    assert {room_of(name) for name in imported(PACKAGE / "__init__.py")} == {*ROOMS, "_public"}
    assert {room_of(module) for module in MODULES.values()} == set(ROOMS)
    assert [*PUBLISHED] == ROOMS
    tops = {name.partition(".")[0] for name in imported(PACKAGE / "_public.py")}
    assert tops == {"importlib", "inspect", "typing"}


def test_type_checkers_see_what_is_there_at_run_time() -> None:
    """The imports that type checkers read are of the modules from which the names come at run time."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {name: MODULES[name] for name in distribute_async.__all__}


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_know_no_event_loop_and_no_socket(room: str) -> None:
    """What is decided is decided without I/O, so that it is tested without any."""
    names = {name.partition(".")[0] for module in (PACKAGE / room).rglob("*.py") for name in imported(module)}
    assert names & {"aiohttp", "asyncio", "socket", "ssl", "threading", "yarl"} == set()


@pytest.mark.parametrize("module", core_modules(), ids=place)
def test_libraries_stay_in_their_rooms(module: Path) -> None:
    """Each library of the core is known to the module that wraps it, and to no other."""
    tops = {name.partition(".")[0] for name in imported(module)}
    assert {library for library in tops & TENANTS.keys() if place(module) not in TENANTS[library]} == set()


def test_the_emulator_knows_nothing_of_the_client() -> None:
    """The emulator speaks from the specification alone, so that a mistake of the client can't hide in both."""
    foreign = {
        name
        for module in (PACKAGE / "emulator").rglob("*.py")
        for name in imported(module)
        if name.startswith("distribute_async") and not name.startswith("distribute_async.emulator")
    }
    assert foreign == set()


@pytest.mark.parametrize("pattern", BUILT_ON_THE_CORE)
def test_what_is_built_on_the_core_uses_the_public_face_only(pattern: str) -> None:
    """What is built on the core gets along with what every user has."""
    modules = [*ROOT.glob(pattern)]
    assert modules
    assert {name for module in modules for name in private_names(module)} == set()


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


def test_importing_the_package_loads_nothing_else() -> None:
    """The package alone is imported where no name of it is asked for: its own module, and none of Python's either."""
    program = "import sys; before = {*sys.modules}; import distribute_async; print({*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'distribute_async'}"


def test_importing_the_library_loads_no_extra() -> None:
    """All public names together cost what the core needs, and no extra, server or emulator."""
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
    program = (
        f"import sys; from distribute_async import *; print([name for name in {unwanted!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def modules_of_tests() -> list[Path]:
    return sorted(TESTS.rglob("*.py"))


def name_in_tests(module: Path) -> str:
    return module.relative_to(TESTS).with_suffix("").as_posix()


def may_reach_in(module: Path) -> bool:
    return module.relative_to(TESTS).parts[0] in {"seams.py", *TESTED_FROM_INSIDE, *REACHING_IN}


@pytest.mark.parametrize("module", [it for it in modules_of_tests() if not may_reach_in(it)], ids=name_in_tests)
def test_private_modules_are_reached_through_the_seams(module: Path) -> None:
    """Apart from the tests of the rooms, `tests/seams.py` alone knows what lies where in the library."""
    assert private_names(module) == set()


@pytest.mark.parametrize("module", modules_of_tests(), ids=name_in_tests)
def test_every_test_says_what_must_hold(module: Path) -> None:
    """A test's docstring is one sentence, and no test returns before it has shown that it holds."""
    tests = [
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert [node.name for node in tests if not (ast.get_docstring(node) or "").endswith(".")] == []
    assert [node.name for node in tests if any(isinstance(part, ast.Return) for part in own_parts(node))] == []


@pytest.mark.parametrize("module", mutants.MODULES)
def test_mutants_are_made_of_what_there_is(module: str) -> None:
    """Each module that is judged by its mutants exists, and so do the tests that judge it."""
    places = [PACKAGE / f"{module.replace('.', '/')}.py", *(TESTS / test for test in mutants.MODULES[module].tests)]
    assert [place for place in places if not place.exists()] == []


def own_parts(function: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, but not in those within it."""
    for part in ast.iter_child_nodes(function):
        if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield part
            yield from own_parts(part)
