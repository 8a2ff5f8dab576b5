"""The kinds of task: one line each, with the path of its calls, what one is created from, and its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

from attrs import field, frozen

from distribute_async._engine.files import ImageResult, SpeechResult
from distribute_async._wire.models import ChatResult, Created, R, Wire
from distribute_async._wire.requests import ChatRequest, ImageRequest, SpeechRequest, TaskRequest

P = ParamSpec("P")


@frozen(eq=False)
class Endpoint:
    """One call of the service: for which kind of task, its path, and what the response becomes."""

    name: str
    path: str
    result_type: type[Wire]
    #: The path of the status request for this kind of task, which changes nothing: an outage is probed with it.
    probe_path: str


@frozen(eq=False)
class Kind(Generic[P, R]):
    """A kind of task. `request_type` makes what is sent to create one, from the fields that `submit` is given."""

    name: str
    path: str
    request_type: Callable[P, TaskRequest]
    result_type: type[R]
    create: Endpoint = field(init=False)
    result: Endpoint = field(init=False)

    def __attrs_post_init__(self) -> None:
        ask = f"{self.path}/result"
        object.__setattr__(self, "create", Endpoint(self.name, f"{self.path}/create", Created, ask))
        object.__setattr__(self, "result", Endpoint(self.name, ask, self.result_type, ask))


CHAT = Kind("chat", "async/chat", ChatRequest, ChatResult)
IMAGES = Kind("images", "async/images", ImageRequest, ImageResult)
SPEECH = Kind("speech", "async/speech", SpeechRequest, SpeechResult)

#: All of them, by name.
KINDS = {kind.name: kind for kind in (CHAT, IMAGES, SPEECH)}
