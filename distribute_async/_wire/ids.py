"""Task ids: validation against the specification's pattern. Pure; everybody may use it."""

from __future__ import annotations

import re
import uuid

from distribute_async._wire.errors import InvalidTaskIdError

#: The pattern of `id` in the specification's request body: a version 4 UUID.
TASK_ID_PATTERN = re.compile(
    r"[a-fA-F0-9]{8}-[a-fA-F0-9]{4}-4[a-fA-F0-9]{3}-[89abAB][a-fA-F0-9]{3}-[a-fA-F0-9]{12}", re.ASCII
)


def is_task_id(value: str) -> bool:
    """Whether the whole of `value` matches the specification's pattern (a trailing newline does not)."""
    return TASK_ID_PATTERN.fullmatch(value) is not None


def task_id_text(value: str | uuid.UUID) -> str | None:
    """The text of a task id; None if `value` is not a task id."""
    text = str(value) if isinstance(value, uuid.UUID) else value
    return text if isinstance(text, str) and is_task_id(text) else None


def checked_id(task_id: str | uuid.UUID) -> str:
    """The text of a task id. Raises `InvalidTaskIdError` if it doesn't match the specification's pattern."""
    text = task_id_text(task_id)
    if text is None:
        raise InvalidTaskIdError("a task id is a version 4 UUID, such as the one that creating a task gave")
    return text
