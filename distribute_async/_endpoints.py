"""The kinds of task: one line each, its path and its result type. Uses `_models` alone."""

from __future__ import annotations

from typing import Generic

from attrs import frozen

from distribute_async._models import ChatResult, R_co


@frozen(eq=False)
class Endpoint(Generic[R_co]):
    """Where a kind of task is asked for, and what the answer becomes."""

    name: str
    result_path: str
    result_type: type[R_co]


CHAT = Endpoint("chat", "async/chat/result", ChatResult)
