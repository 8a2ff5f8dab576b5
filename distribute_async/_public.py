"""Which names of the core are public, and where each is made. Below the rooms: used by the face and by each room."""

from importlib import import_module

#: From the ground up.
ROOMS = ("_wire", "_policy", "_engine", "_api")

#: The module of each public name: what `__all__` has, and the types that public signatures and bases name besides.
MODULES = {
    name: f"distribute_async.{module}"
    for module, names in {
        "_wire.arguments": "Default",
        "_wire.errors": """
            APIConnectionError APIResponseValidationError APIStatusError APITimeoutError AuthenticationError
            BadRequestError ClientClosedError ConfigurationError DistributeError InternalServerError
            InvalidRequestError InvalidTaskIdError NotFoundError PermissionDeniedError RateLimitError
            SubmitUncertainError TaskFailedError WaitTimeoutError
        """,
        "_wire.models": "ChatResult Choice FunctionCall Message Outcome TaskResult ToolCall Transition Usage WireModel",
        "_wire.requests": "ChatRequest ImageRequest SpeechRequest TaskRequest",
        "_wire.status": "TaskStatus",
        "_policy.adaptive": "LearnedPacing",
        "_policy.pacing": "Pacing",
        "_policy.settings": "Limits Retry",
        "_engine.files": "File FilesResult ImageResult SpeechResult",
        "_engine.observer": "ObservedEnding ObservedExchange ObservedWait Observer Stats",
        "_api.client": "DistributeClient Tasks",
        "_api.shared": "as_completed fetch wait_for_result watch watch_many",
        "_api.stream": "TaskStream",
        "_api.stream_state": "Progress",
        "_api.watch": "Watch",
    }.items()
    for name in names.split()
}


def publish(room: str) -> None:
    """Let the public names of a room say `distribute_async` as their module, for reprs, pickles and the reference.

    Each room does so as it is imported, which is before anything can be made of its classes. The annotations of a class
    are text, which `typing.get_type_hints` looks up in the module that the class names: so they become types first.
    """
    # The face imports this module, and is to cost next to nothing.
    import inspect  # noqa: PLC0415
    from typing import get_type_hints  # noqa: PLC0415

    for name, module in MODULES.items():
        if module.startswith(f"{room}."):
            made = getattr(import_module(module), name)
            if isinstance(made, type):
                types = get_type_hints(made, include_extras=True)
                made.__annotations__ = {field: types[field] for field in inspect.get_annotations(made)}
            made.__module__ = "distribute_async"
            # A line of the other module. Python 3.13 drops it with the name of that, but not for an enumeration.
            if "__firstlineno__" in vars(made):
                delattr(made, "__firstlineno__")


def find(name: str) -> object:
    """What has a public name. Raises `KeyError` where nothing has.

    Two threads may do so at once. One that imports a module waits for its room, and one that imports the room waits for
    the module: so all begin with the rooms, in one order.
    """
    module = MODULES[name]
    for room in ROOMS:
        import_module(f"distribute_async.{room}")
        if module.startswith(f"distribute_async.{room}."):
            break
    return getattr(import_module(module), name)
