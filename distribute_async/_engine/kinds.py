"""The kinds of task, one line each: the path of its calls, the type of its requests, and the type of its results.

Used by `_api` and by the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

from attrs import field, frozen

from distribute_async._engine.files import ImageResult, SpeechResult
from distribute_async._wire.models import ChatResult, Created, R, WireModel
from distribute_async._wire.requests import ChatRequest, ImageRequest, SpeechRequest, TaskRequest

P = ParamSpec("P")


@frozen(eq=False)
class Endpoint:
    """One call of the service: the name of its kind of task, its path, and the type of its response."""

    name: str
    path: str
    result_type: type[WireModel]
    #: The path for probes during an outage: that of the result call, which changes nothing.
    probe_path: str


@frozen(eq=False)
class Kind(Generic[P, R]):
    """A kind of task. `request_type` is called with the arguments of `submit`."""

    name: str
    path: str
    request_type: Callable[P, TaskRequest]
    result_type: type[R]
    create: Endpoint = field(init=False)
    result: Endpoint = field(init=False)

    def __attrs_post_init__(self) -> None:
        result_path = f"{self.path}/result"
        object.__setattr__(self, "create", Endpoint(self.name, f"{self.path}/create", Created, result_path))
        object.__setattr__(self, "result", Endpoint(self.name, result_path, self.result_type, result_path))


CHAT = Kind("chat", "async/chat", ChatRequest, ChatResult)
IMAGES = Kind("images", "async/images", ImageRequest, ImageResult)
SPEECH = Kind("speech", "async/speech", SpeechRequest, SpeechResult)

#: All kinds, by name.
KINDS = {kind.name: kind for kind in (CHAT, IMAGES, SPEECH)}
