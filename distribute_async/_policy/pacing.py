"""When to ask next: the waits between polls and after faults. Pure; the only module that knows backoff."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import backoff
from attrs import Attribute, field, frozen

from distribute_async._policy.settings import Retry
from distribute_async._wire.arguments import growth, is_number, positive, seconds, short_repr
from distribute_async._wire.errors import ConfigurationError

#: Draws a part of a span of seconds at random, evenly; the random part of each wait.
Jitter = Callable[[float], float]

#: Of one backoff; a growth so slow that it needs more goes to its cap after them.
MAX_STEPS = 10_000


def draw(jitter: Jitter, span: float) -> float:
    """What `jitter` draws of a span, in seconds.

    Raises `ConfigurationError` where it fails or gives no number from 0 to the span: a poll planned for NaN would
    never come.
    """
    try:
        part = jitter(span)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as bug:  # CancelledError too: nothing can be cancelled within a plain function
        problem = f"raised {type(bug).__name__}"
    else:
        if is_number(part) and 0 <= part <= span:
            return part
        problem = f"gave {part!r}"
    raise ConfigurationError(f"Pacing.jitter {problem}: it must give a number from 0 to the span that it is given")


@frozen
class Steps:
    """Exponential backoff, computed once: the span of each wait, in seconds, the last one standing for all after it."""

    spans: tuple[float, ...]

    @classmethod
    def exponential(cls, initial: float, factor: float, cap: float) -> Steps:
        """`initial` · `factor`ⁿ, at most `cap`."""
        waits = backoff.expo(base=factor, factor=initial, max_value=cap)
        next(waits)  # backoff's generators want priming: the first yield is no wait
        if factor == 1:
            return cls((min(initial, cap),))
        below = itertools.takewhile(lambda span: span < cap, waits)
        spans: list[float] = []
        with contextlib.suppress(OverflowError):  # backoff's powers can outgrow a double before the cap is reached
            spans.extend(itertools.islice(below, MAX_STEPS))
        return cls((*spans, cap))

    def wait(self, n: int, jitter: Jitter) -> float:
        """The n-th wait: half its span, and a random part of the other half.

        Jitter on the whole span nearly doubles the polls (27 against 15 a minute for 0.5 → 5 s) and can wait 0 s;
        on half of it clients that began together still drift apart.
        """
        span = self.spans[min(n, len(self.spans) - 1)]
        return span / 2 + draw(jitter, span / 2)


def _at_least_two(_: object, attribute: Attribute[float | None], value: Any) -> None:
    if value is not None and not (is_number(value) and value >= 2):
        raise ConfigurationError(
            f"Pacing.{attribute.name} must be a number of 2 or more, or None, not {short_repr(value)}"
        )


@frozen(kw_only=True)
class Pacing:
    """How often a task is asked for: exponential backoff that starts afresh at each change of status.

    The n-th interval after a change is `initial` · `factor`ⁿ seconds, at most `max`, half of it random, and never
    below `floor`. `jitter` draws the random part; the default is `backoff.full_jitter` (give a seeded function to
    make runs repeatable). `polls_per_task` is for learned pacing, see `learned`; None, the default, learns nothing.
    """

    initial: float = positive(0.5)
    factor: float = growth(1.3)
    max: float = positive(10.0)
    floor: float = seconds(0.1)
    polls_per_task: float | None = field(default=None, validator=_at_least_two)
    jitter: Jitter = field(default=backoff.full_jitter, repr=False)
    _steps: Steps = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        # After the validators, which a default would come before.
        object.__setattr__(self, "_steps", Steps.exponential(self.initial, self.factor, self.max))

    @classmethod
    def learned(
        cls,
        polls_per_task: float = 10.0,
        *,
        initial: float = 0.5,
        factor: float = 1.3,
        max: float = 10.0,  # noqa: A002 - the field's name
        floor: float = 0.1,
        jitter: Jitter = backoff.full_jitter,
    ) -> Pacing:
        """Polls where tasks are likely to end, as the client learns it from its own polls.

        It begins as exponential backoff and tightens as tasks of the same kind and model are seen to end, spending
        `polls_per_task` polls on a whole task, the first included, on average (at least 2; the other fields may
        force more). The gaps stay within `floor`, `max`, and `initial` plus half the time already waited, so that
        what was learned wrongly costs little.
        """
        return cls(polls_per_task=polls_per_task, initial=initial, factor=factor, max=max, floor=floor, jitter=jitter)

    def interval(self, polls_since_change: int) -> float:
        """Seconds from an answer to the next poll, after this many answers that brought no change."""
        return max(self.floor, self._steps.wait(polls_since_change, self.jitter))


def retry_steps(retry: Retry) -> Steps:
    """The waits between attempts after transient faults."""
    return Steps.exponential(retry.initial, retry.factor, retry.max)
