"""Mutation testing of the core: `python -m tests.mutants [--jobs N] [--every N] [MODULE | MODULE:LINE …]`.

Prints the mutants that survive, and the score of each module; the exit code is 1 where one is below its least. A mutant
is a module with one small change, by the operators of mutmut. It runs in a process of its own, forked from this one,
against the tests that MODULES names, until one of them fails. mutmut's own runner is of no use here: it changes
functions only, and those without a decorator (so neither the fault table nor the codec's hooks), and by default it
forks from a process that has run the tests, so that every mutant inherits what their event loops left behind.

Left out are changes that say nothing: of type annotations, decorators and prose (text with a blank in it), and
those with which the library can't even be imported.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.abc
import importlib.machinery
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from attrs import field, frozen


@frozen
class Judged:
    """A module whose mutants are judged, and the tests that must notice a change of it, the quickest first."""

    tests: list[str]
    #: In percent; less is a failure.
    least_score: float
    #: Its tests need an event loop, and so what `conftest.py` says of it; without that a mutant takes half as long.
    is_asynchronous: bool = False


_WAITING = [
    "engine/test_poller.py",
    "engine/test_subscription.py",
    "api/test_deadlines.py",
    "api/test_watch.py",
    "api/test_sharing.py",
    "api/test_client.py",
]
_FOLLOWING = [
    *_WAITING,
    "faults/test_pause.py",
    "faults/test_connections.py",
    "telemetry",
    "api/test_cancellation.py",
]
MODULES = {
    "_policy.pacing": Judged(["policy/test_pacing.py", "policy/test_task_state.py"], 92.0),
    "_policy.faults": Judged(["policy/test_faults.py"], 100.0),
    "_policy.throttle": Judged(["policy/test_throttle.py"], 94.0),
    "_policy.task_state": Judged(["policy/test_task_state.py", "policy/test_faults.py"], 98.8),
    "_policy.attempts": Judged(["policy/test_task_state.py"], 98.8),
    "_policy.health": Judged(["policy/test_health.py"], 94.0),
    "_wire.codec": Judged(["wire/test_codec.py", "wire/test_models.py"], 93.9),
    "_engine.schedule": Judged(_WAITING, 90.0, is_asynchronous=True),
    "_engine.subscription": Judged(["engine/test_subscription.py"], 90.0, is_asynchronous=True),
    "_engine.exchanges": Judged(_FOLLOWING, 90.0, is_asynchronous=True),
    "_engine.poller": Judged(_FOLLOWING, 90.0, is_asynchronous=True),
}
#: Loaded once for all mutants: what takes long to import, and nothing of ours.
LIBRARIES = ["aiohttp.web", "backoff", "cattrs", "hypothesis", "looptime", "pytest_asyncio", "schemathesis", "trustme"]

#: Nobody reads how an assertion failed, and to make that readable takes time; as does measuring memory.
_PYTEST = ["-q", "--assert=plain", "-p", "no:cacheprovider", "-k", "not one_answer_costs"]
#: Each mutant has its own limits (`_fork`): pytest-timeout would take over the alarm, and faulthandler's exit code of 1
#: would say that the mutant survived.
_PYTEST += ["--override-ini=timeout=0", "--override-ini=faulthandler_timeout=0"]
_HERE = Path(__file__).parent
_KILLED, _SURVIVED, _STILLBORN = 0, 1, 2


@frozen
class Mutant:
    """A module with one change."""

    module: str
    line: int
    before: str
    after: str
    source: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.module}:{self.line}\n    - {self.before}\n    + {self.after}"


def mutants(module: str, lines: set[int]) -> list[Mutant]:
    """All mutants of a module, or those of some of its lines."""
    libcst: Any = importlib.import_module("libcst")
    metadata: Any = importlib.import_module("libcst.metadata")
    operators = importlib.import_module("mutmut.mutation.mutators").mutation_operators
    source = (_HERE.parent / "distribute_async" / f"{module.replace('.', '/')}.py").read_text()
    wrapper = metadata.MetadataWrapper(libcst.parse_module(source))
    positions = wrapper.resolve(metadata.PositionProvider)
    found: dict[str, Mutant] = {}
    for node, changed in _changes(libcst, operators, wrapper.module):
        position = positions.get(node)
        if position is None or (lines and position.start.line not in lines):
            continue
        code = wrapper.module.deep_replace(node, changed).code
        before, after = (_first_difference(source, code), _first_difference(code, source))
        if before != after:
            found.setdefault(code, Mutant(module, position.start.line, before, after, code))
    return list(found.values())


def _changes(libcst: Any, operators: Sequence[tuple[Any, Any]], node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, libcst.Annotation | libcst.Decorator | libcst.Import | libcst.ImportFrom):
        return
    if isinstance(node, libcst.Call) and isinstance(node.func, libcst.Name) and node.func.value in {"TypeVar", "cast"}:
        return
    if isinstance(node, libcst.Assign) and getattr(node.targets[0].target, "value", None) == "__slots__":
        return
    is_prose = isinstance(node, libcst.SimpleString) and " " in node.value
    for kind, operator in operators:
        if isinstance(node, kind) and not is_prose:
            for changed in operator(node):
                yield node, changed
    for child in node.children:
        yield from _changes(libcst, operators, child)


def _first_difference(of: str, other: str) -> str:
    """The first line in which a text differs from another one."""
    lines, others = of.splitlines(), other.splitlines()
    return next((one for one, two in zip(lines, others, strict=False) if one != two), "").strip()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutant in place of the module."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != f"distribute_async.{self.mutant.module}":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(name, spec.origin, self.mutant.source)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)


def _run_tests(mutant: Mutant | None, module: str, *, is_quiet: bool = True) -> int:
    """In the forked process: whether the tests notice."""
    if is_quiet:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
        try:
            importlib.import_module(f"distribute_async.{mutant.module}")
        except Exception:
            return _STILLBORN
    hypothesis: Any = importlib.import_module("hypothesis")
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # it is enough to know that there is a failure
    hypothesis.settings.register_profile("mutants", database=None, phases=phases, deadline=None)
    hypothesis.settings.load_profile("mutants")
    files = [str(_HERE / name) for name in MODULES[module].tests]
    conftest = [] if MODULES[module].is_asynchronous else ["--noconftest"]
    code = pytest.main([*_PYTEST, *conftest, "-x", "--tb=line", *files])
    return _SURVIVED if code == pytest.ExitCode.OK else _KILLED


def _fork(mutant: Mutant | None, module: str, limit: int, *, is_quiet: bool = True) -> int:
    pid = os.fork()
    if pid == 0:
        # Ends a mutant that goes round in circles, and one that waits for ever.
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        signal.alarm(60 + 10 * limit)
        code = _KILLED
        try:
            code = _run_tests(mutant, module, is_quiet=is_quiet)
        finally:
            os._exit(code)
    return pid


def judge(module: str, lines: set[int], jobs: int, every: int) -> float:
    """Try all mutants of a module; print those that survive, and the score; give the score in percent."""
    began = time.monotonic()
    _, status, used = os.wait4(_fork(None, module, 600, is_quiet=False), 0)
    if os.waitstatus_to_exitcode(status) != _SURVIVED:
        sys.exit(f"{module}: its tests fail before anything is changed")
    limit = math.ceil(2 + 3 * (used.ru_utime + used.ru_stime))
    waiting = mutants(module, lines)[::every]
    total, born, hung, survivors = len(waiting), 0, 0, []
    print(f"{module}: {total} mutants, at most {limit} s of processor time for each", flush=True)
    running: dict[int, Mutant] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop(0)
            running[_fork(mutant, module, limit)] = mutant
        pid, status = os.wait()
        mutant, code = running.pop(pid), os.waitstatus_to_exitcode(status)
        born += code != _STILLBORN
        hung += code < 0
        if code == _SURVIVED:
            survivors.append(mutant)
            print(mutant, flush=True)
    score = 100.0 * (born - len(survivors)) / max(born, 1)
    print(
        f"{module}: {score:.1f} % ({born - len(survivors)} of {born} mutants killed, {hung} of them as they hung; "
        f"{total - born} stillborn; {time.monotonic() - began:.0f} s)",
        flush=True,
    )
    return score


def _load_libraries() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    pytest.main([*_PYTEST, "--noconftest", "--collect-only", str(_HERE / "spec")])  # loads the plugins, finds nothing
    rooms = tuple(f"distribute_async.{module}" for module in MODULES)
    assert not any(name.startswith(rooms) for name in sys.modules)  # a mutant replaces one
    gc.freeze()  # what is loaded now stays: no mutant has to look through it


def main() -> None:
    """Judge the modules named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time (all processors)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th mutant only, for a first look")
    choice = f"one of {', '.join(MODULES)}; MODULE:LINE for less"
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=choice)
    arguments = parser.parse_args()
    wanted: dict[str, set[int]] = {}
    for text in arguments.modules or MODULES:
        module, _, line = text.partition(":")
        wanted.setdefault(module, set()).update([int(line)] if line else [])
    _load_libraries()
    below = []
    for module, lines in wanted.items():
        score, least = judge(module, lines, arguments.jobs, arguments.every), MODULES[module].least_score
        if round(score, 1) < least:  # the least scores have one decimal, too
            below.append(f"{module}: {score:.1f} % is less than {least} %")
    sys.exit("\n".join(below) or 0)


if __name__ == "__main__":
    main()
