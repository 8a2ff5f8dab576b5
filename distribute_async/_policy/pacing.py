"""The intervals between polls, and the waits after faults. Pure; the only module that uses the library backoff."""

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

#: Draws the random part of a wait: given a span in seconds, it returns a number from 0 to the span.
Jitter = Callable[[float], float]

#: Steps that are computed of one backoff. One that grows so slowly that it needs more jumps to its cap after these.
MAX_STEPS = 10_000


def draw(jitter: Jitter, span: float) -> float:
    """The random part that `jitter` draws of a span, in seconds.

    Raises `ConfigurationError` if `jitter` raises or returns anything but a number from 0 to the span. (A poll planned
    for NaN, for example, would never start.)
    """
    try:
        part = jitter(span)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # CancelledError too: a plain function can't be cancelled
        problem = f"raised {type(error).__name__}"
    else:
        if is_number(part) and 0 <= part <= span:
            return part
        problem = f"returned {part!r}"
    raise ConfigurationError(f"Pacing.jitter {problem}: it must return a number from 0 to the span that it is given")


@frozen
class Steps:
    """Exponential backoff, computed once. `spans` are the waits in seconds; the last one repeats without end."""

    spans: tuple[float, ...]

    @classmethod
    def exponential(cls, initial: float, factor: float, cap: float) -> Steps:
        """The spans `initial` · `factor`ⁿ, up to and including `cap`."""
        waits = backoff.expo(base=factor, factor=initial, max_value=cap)
        next(waits)  # the first value of backoff's generators is None: they wait for `send`
        if factor == 1:
            return cls((min(initial, cap),))
        below = itertools.takewhile(lambda span: span < cap, waits)
        spans: list[float] = []
        with contextlib.suppress(OverflowError):  # a power may exceed a double before the cap is reached
            spans.extend(itertools.islice(below, MAX_STEPS))
        return cls((*spans, cap))

    def wait(self, n: int, jitter: Jitter) -> float:
        """Seconds of the n-th wait, counted from 0: half of its span, plus a random part of the other half.

        Jitter on the whole span would nearly double the number of polls (27 instead of 15 a minute for 0.5 to 5 s), and
        a wait could be 0 s. With jitter on half of it, clients that started together still drift apart.
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
    """How often a task is polled: exponential backoff that starts anew at each change of status.

    The n-th interval after a change is `initial` · `factor`ⁿ seconds, at most `max`. Half of it is random, and it is
    never below `floor`.

    - `initial`: seconds, 0.5 by default. `factor`: 1 or more, 1.3 by default. `max`: seconds, 10 by default.
      `floor`: seconds, 0.1 by default.
    - `polls_per_task`: for learned pacing, see `learned`. None, the default, learns nothing.
    - `jitter`: draws the random part. It is given a span in seconds and returns a number from 0 to the span. The
      default is `backoff.full_jitter`; a seeded function makes runs repeatable.

    Raises `ConfigurationError` for a number out of range.
    """

    initial: float = positive(0.5)
    factor: float = growth(1.3)
    max: float = positive(10.0)
    floor: float = seconds(0.1)
    polls_per_task: float | None = field(default=None, validator=_at_least_two)
    jitter: Jitter = field(default=backoff.full_jitter, repr=False)
    _steps: Steps = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        # Not a default of the field: that would be computed before the validators run.
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
        """Pacing that polls when tasks are likely to end, which the client learns from its own polls.

        It starts as exponential backoff. As the client sees tasks of a kind and model end, it polls more densely at the
        ages at which they end, and less in between.

        - `polls_per_task`: polls to spend on a whole task on average, the first poll included. At least 2; 10 by
          default. The other fields may force more polls.
        - The other arguments are the fields of `Pacing`.

        An interval is at least `floor` and at most `max`. It is also at most `initial`, plus half of the time already
        waited, plus half of the age at which the first tasks end (one in `polls_per_task`). These bounds limit what a
        wrong estimate costs.

        Raises `ConfigurationError` for a number out of range.
        """
        return cls(polls_per_task=polls_per_task, initial=initial, factor=factor, max=max, floor=floor, jitter=jitter)

    def interval(self, polls_since_change: int) -> float:
        """Seconds from a response to the next poll, after this many responses without a change of status."""
        return max(self.floor, self._steps.wait(polls_since_change, self.jitter))


def retry_steps(retry: Retry) -> Steps:
    """The backoff between attempts after transient faults."""
    return Steps.exponential(retry.initial, retry.factor, retry.max)
