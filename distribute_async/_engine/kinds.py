"""The kinds of task: one line each, with the path of its calls, what one is created from, and its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

from attrs import field, frozen

from distribute_async._engine.files import ImageResult, SpeechResult
from distribute_async._wire.models import ChatResult, Created, R, R_co
from distribute_async._wire.requests import ChatRequest, ImageRequest, SpeechRequest, TaskRequest

P = ParamSpec("P")


@frozen(eq=False)
class Endpoint(Generic[R_co]):
    """One call of the service: for which kind of task, its path, and what the response becomes."""

    name: str
    path: str
    result_type: type[R_co]
    #: Of the call that asks for a task of this kind, which changes nothing: an outage is probed with it.
    probe_path: str


@frozen(eq=False)
class Kind(Generic[P, R]):
    """A kind of task. `request_type` makes what is sent to create one, from the fields that `submit` is given."""

    name: str
    path: str
    request_type: Callable[P, TaskRequest]
    result_type: type[R]
    create: Endpoint[Created] = field(init=False)
    result: Endpoint[R] = field(init=False)

    def __attrs_post_init__(self) -> None:
        result_path = f"{self.path}/result"
        object.__setattr__(self, "create", Endpoint(self.name, f"{self.path}/create", Created, result_path))
        object.__setattr__(self, "result", Endpoint(self.name, result_path, self.result_type, result_path))


CHAT = Kind("chat", "async/chat", ChatRequest, ChatResult)
IMAGES = Kind("images", "async/images", ImageRequest, ImageResult)
SPEECH = Kind("speech", "async/speech", SpeechRequest, SpeechResult)

#: All of them, by name.
KINDS = {kind.name: kind for kind in (CHAT, IMAGES, SPEECH)}
