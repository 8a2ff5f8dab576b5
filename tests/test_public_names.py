"""The public face: each name says `distribute_async` as its module, and is imported when it is first asked for."""

from __future__ import annotations

import copy
import inspect
import pickle
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, ForwardRef, Literal, get_args, get_origin, get_type_hints

import attrs
import cattrs
import pytest

import distribute_async
from distribute_async import ChatResult, Choice, DistributeClient, Outcome, TaskStatus, Transition, Watch
from distribute_async._public import MODULES

# The client makes these, with parts of its own: no user calls their constructors.
MADE_BY_THE_CLIENT = {"TaskStream", "Tasks", "Watch"}


def run(program: str, *arguments: str) -> str:
    """What a program says, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    ).stdout


def parts(hint: Any) -> Iterator[Any]:
    """A type, and the types that it is made of."""
    yield get_origin(hint) or hint
    for part in () if get_origin(hint) is Literal else get_args(hint):
        for each in part if isinstance(part, list) else [part]:
            yield from parts(each)


def functions(made: Any) -> Iterator[Any]:
    """A function itself; of a class, its public methods and properties, and how users make one."""
    # attrs writes constructors, from the fields.
    is_made_by_users = made.__name__ not in MADE_BY_THE_CLIENT and not attrs.has(made)
    members = vars(made) if isinstance(made, type) else {made.__name__: made}
    for name, member in members.items():
        found = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not inspect.isfunction(found) or "for this library's own use" in (found.__doc__ or "").lower():
            continue
        if not name.startswith("_") or (name == "__init__" and is_made_by_users):
            yield found


def test_all_names_that_are_public_have_a_module() -> None:
    """What is in `__all__` is found, and a few types besides that its signatures and base classes name."""
    besides = {"Default", "FilesResult", "TaskRequest", "TaskResult", "Tasks", "WireModel"}
    assert MODULES.keys() == {*distribute_async.__all__, *besides}


@pytest.mark.parametrize("name", MODULES)
def test_a_public_name_says_the_package_as_its_module(name: str) -> None:
    """Neither a repr nor a pickle shows where a public name is made, and both a copy and a pickle lead back to it."""
    made = getattr(distribute_async, name)
    assert (made.__module__, made.__qualname__) == ("distribute_async", name)
    assert "._" not in repr(made)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(made, protocol)
        assert b"._" not in pickled
        assert pickle.loads(pickled) is made
    assert copy.copy(made) is made
    assert copy.deepcopy(made) is made


@pytest.mark.parametrize("name", MODULES)
def test_the_annotations_of_a_public_name_are_found(name: str) -> None:
    """`typing.get_type_hints` finds all types of a public name, of its bases and methods too, and none as text."""
    made = getattr(distribute_async, name)
    hints = get_type_hints(made, include_extras=True)
    assert not [part for hint in hints.values() for part in parts(hint) if isinstance(part, str | ForwardRef)]
    for function in functions(made):
        assert get_type_hints(function)
        assert inspect.getsource(function)
    if isinstance(made, type):
        assert hints.keys() >= inspect.get_annotations(made).keys()
        with suppress(OSError):  # the source of a class is looked for in the face, and not shown
            assert f"class {name}" in inspect.getsource(made)
        with suppress(ValueError):  # of builtins' constructors, such as those of errors, there is no signature
            assert inspect.signature(made)
    else:
        assert inspect.signature(made, eval_str=True)


@pytest.mark.parametrize("name", distribute_async.__all__)
def test_public_signatures_name_public_types(name: str) -> None:
    """Base classes, and the types that a constructor, a property or a field names, are public where they are ours."""
    made = getattr(distribute_async, name)
    hints = [hint for field, hint in get_type_hints(made).items() if not field.startswith("_")]
    named = [part for hint in hints for part in parts(hint)] + list(getattr(made, "__mro__", ()))
    for function in functions(made):
        named += [part for hint in get_type_hints(function).values() for part in parts(hint)]
    ours = {part for part in named if isinstance(part, type) and part.__module__.startswith("distribute_async")}
    assert {part.__module__ for part in ours} <= {"distribute_async"}


@pytest.mark.parametrize(
    "module", ["_wire.codec", "_wire.models", "_policy.throttle", "_engine.poller", "_api.watch"], ids=str
)
def test_a_room_publishes_its_names_before_they_are_used(module: str) -> None:
    """Whichever module of a room is imported, and without any use of the face, the room's names are public ones."""
    program = """if True:
        import importlib, sys
        importlib.import_module("distribute_async." + sys.argv[1])
        import distribute_async
        from distribute_async._public import MODULES
        assert not vars(distribute_async).keys() & MODULES.keys()
        here = {name: home for name, home in MODULES.items() if home in sys.modules}
        print({getattr(sys.modules[home], name).__module__ for name, home in here.items()})
        print({home.split(".")[1] for home in here.values()})
    """
    said, rooms = run(program, module).splitlines()
    assert said == "{'distribute_async'}"
    assert module.partition(".")[0] in rooms


def test_generics_show_public_names() -> None:
    """What is written of a generic class and its argument is what a user can import."""
    assert repr(Outcome[ChatResult]) == "distribute_async.Outcome[distribute_async.ChatResult]"
    assert repr(Watch[ChatResult]) == "distribute_async.Watch[distribute_async.ChatResult]"
    assert pickle.loads(pickle.dumps(Transition[ChatResult])) == Transition[ChatResult]


def test_values_are_unpickled_where_nothing_is_imported() -> None:
    """A pickle names the package alone, so that a fresh process reads it."""
    outcome: Outcome[Any] = Outcome(task_id="a", result=None, error=distribute_async.NotFoundError(404))
    pickled = pickle.dumps((TaskStatus.QUEUED, outcome))
    assert b"._" not in pickled
    program = "import pickle, sys; print(*map(repr, pickle.loads(bytes.fromhex(sys.argv[1]))))"
    assert run(program, pickled.hex()).strip() == f"{TaskStatus.QUEUED!r} {outcome!r}"


def test_a_converter_of_a_users_own_reads_the_models() -> None:
    """attrs and cattrs find the types of the models' fields."""
    told = {"finish_reason": "stop", "index": 0.0, "message": {"role": "assistant", "content": None, "tool_calls": []}}
    choice = cattrs.Converter().structure(told, Choice)
    assert choice.message.tool_calls == ()
    assert attrs.fields(attrs.resolve_types(Choice)).message.type is distribute_async.Message
    assert get_type_hints(ChatResult)["choices"] == tuple[Choice, ...]


def test_a_class_derived_from_a_public_one_has_all_types() -> None:
    """The types of a user's class are those of its own module, and those of its bases."""

    @attrs.frozen(kw_only=True)
    class Mine(ChatResult):
        mine: typing.Any = None

    assert get_type_hints(Mine)["choices"] == tuple[Choice, ...]
    assert get_type_hints(Mine)["mine"] is Any


def test_a_star_import_gives_the_public_names() -> None:
    """`from distribute_async import *` gives what `__all__` has, each the thing that the face has by that name."""
    names: dict[str, object] = {}
    exec("from distribute_async import *", names)
    del names["__builtins__"]
    assert names == {name: getattr(distribute_async, name) for name in distribute_async.__all__}


def test_the_face_lists_its_names_before_they_are_imported() -> None:
    """`dir` has every public name, imported or not: that is what completion at a prompt shows."""
    program = "import distribute_async as d; print({*d.__all__} <= {*dir(d)}, {*d.__all__} & {*vars(d)})"
    assert run(program).strip() == "True set()"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """A misspelt name is an error as for any module, and an ImportError where it is imported."""
    with pytest.raises(AttributeError, match=r"^module 'distribute_async' has no attribute 'DistributClient'$"):
        distribute_async.DistributClient  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(ImportError, match="DistributClient"):
        exec("from distribute_async import DistributClient")


def test_a_public_name_is_never_a_module() -> None:
    """No module of the package has the name of something public: importing it would take the name's place."""
    assert {module.name for module in pkgutil.iter_modules(distribute_async.__path__)}.isdisjoint(MODULES)
    program = "import distribute_async._api.watch, distribute_async as d; print(callable(d.watch), callable(d.fetch))"
    assert run(program).strip() == "True True"


def test_threads_may_ask_for_names_at_once() -> None:
    """Each of many threads that ask for different names first, and at the same time, gets its own, public by then."""
    program = """if True:
        import sys, threading
        import distribute_async
        sys.setswitchinterval(1e-5)
        begin = threading.Barrier(len(distribute_async.__all__))
        def ask(name):
            begin.wait()
            said.append(getattr(distribute_async, name).__module__)
        said = []
        threads = [threading.Thread(target=ask, args=(name,)) for name in distribute_async.__all__]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print({*said}, len(said) - len(threads))
    """
    assert run(program).strip() == "{'distribute_async'} 0"


def test_what_needs_no_client_is_had_without_one() -> None:
    """The values and errors, for a service that only stores and reads results, come without the HTTP library."""
    program = (
        "import sys; from distribute_async import ChatResult, RateLimitError, Retry; print('aiohttp' in sys.modules)"
    )
    assert run(program).strip() == "False"


def test_a_client_knows_its_kinds_of_task_by_a_public_name() -> None:
    """What `client.images` is says a name that can be imported."""
    client = DistributeClient("key")
    assert repr(type(client.images)) == "<class 'distribute_async.Tasks'>"
