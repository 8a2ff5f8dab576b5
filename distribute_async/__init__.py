"""The asyncio client for Distribute.AI's queued inference. This module holds the public names, nothing else."""

from distribute_async._client import DistributeClient
from distribute_async._config import Limits, Retry
from distribute_async._errors import (
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
from distribute_async._learning import LearnedPacing
from distribute_async._many import Progress, TaskStream
from distribute_async._media import File, ImageResult, SpeechResult
from distribute_async._models import ChatResult, Choice, FunctionCall, Message, Outcome, ToolCall, Transition, Usage
from distribute_async._observer import ObservedEnding, ObservedExchange, ObservedWait, Observer, Stats
from distribute_async._pacing import Pacing
from distribute_async._requests import ChatRequest, ImageRequest, SpeechRequest
from distribute_async._shared import as_completed, fetch, wait_for_result, watch, watch_many
from distribute_async._status import TaskStatus
from distribute_async._watch import Watch

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
