"""The asyncio client for Distribute.AI's queued inference. This module holds the public names, nothing else.

Each name is imported when it is first asked for (PEP 562), so that importing the package costs next to nothing.
"""

TYPE_CHECKING = False  # type checkers take it for true; importing `typing` would be most of what this module costs
if TYPE_CHECKING:
    from distribute_async._api.client import DistributeClient
    from distribute_async._api.shared import as_completed, fetch, wait_for_result, watch, watch_many
    from distribute_async._api.stream import TaskStream
    from distribute_async._api.stream_state import Progress
    from distribute_async._api.watch import Watch
    from distribute_async._engine.files import File, ImageResult, SpeechResult
    from distribute_async._engine.observer import ObservedEnding, ObservedExchange, ObservedWait, Observer, Stats
    from distribute_async._policy.adaptive import LearnedPacing
    from distribute_async._policy.pacing import Pacing
    from distribute_async._policy.settings import Limits, Retry
    from distribute_async._wire.errors import (
        APIConnectionError,
        APIResponseValidationError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ClientClosedError,
        ConfigurationError,
        DistributeError,
        InternalServerError,
        InvalidRequestError,
        InvalidTaskIdError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        SubmitUncertainError,
        TaskFailedError,
        WaitTimeoutError,
    )
    from distribute_async._wire.models import (
        ChatResult,
        Choice,
        FunctionCall,
        Message,
        Outcome,
        ToolCall,
        Transition,
        Usage,
    )
    from distribute_async._wire.requests import ChatRequest, ImageRequest, SpeechRequest
    from distribute_async._wire.status import TaskStatus

__all__ = [
    "APIConnectionError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ChatRequest",
    "ChatResult",
    "Choice",
    "ClientClosedError",
    "ConfigurationError",
    "DistributeClient",
    "DistributeError",
    "File",
    "FunctionCall",
    "ImageRequest",
    "ImageResult",
    "InternalServerError",
    "InvalidRequestError",
    "InvalidTaskIdError",
    "LearnedPacing",
    "Limits",
    "Message",
    "NotFoundError",
    "ObservedEnding",
    "ObservedExchange",
    "ObservedWait",
    "Observer",
    "Outcome",
    "Pacing",
    "PermissionDeniedError",
    "Progress",
    "RateLimitError",
    "Retry",
    "SpeechRequest",
    "SpeechResult",
    "Stats",
    "SubmitUncertainError",
    "TaskFailedError",
    "TaskStatus",
    "TaskStream",
    "ToolCall",
    "Transition",
    "Usage",
    "WaitTimeoutError",
    "Watch",
    "as_completed",
    "fetch",
    "wait_for_result",
    "watch",
    "watch_many",
]

if not TYPE_CHECKING:  # or a type checker would take any name for a public one

    def __getattr__(name: str) -> object:
        from distribute_async._public import MODULES, find  # noqa: PLC0415

        if name not in MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = find(name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
