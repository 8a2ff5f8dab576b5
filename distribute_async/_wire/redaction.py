"""Removes secrets from texts that are shown, also where they are escaped. Pure; used by `http`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from functools import cached_property
from html.entities import html5

#: Characters of a text that are searched; the rest is dropped. A hostile text then takes at most 10 ms.
MAX_LENGTH = 1 << 14


class Redaction:
    """A callable that replaces these secrets in a text.

    A service that echoes a request may escape it for JSON, for JSON in JSON, a URL, HTML or a log, in part or more
    than once. So each character of a secret is searched for in all of these forms.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first, since one secret may be a part of another.
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def __repr__(self) -> str:
        return "<redaction>"

    def __call__(self, text: str) -> str:
        """The text, with "[key]" in place of each secret."""
        redacted = self._pattern.sub("[key]", text[:MAX_LENGTH])
        # A text that was cut may end in a part of a secret, so as much as a secret can take is dropped.
        return redacted if len(text) <= MAX_LENGTH else redacted[: -_MAX_ESCAPED * len(self._secrets[0])]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Compiled at the first use: most clients never need it.
        return re.compile("|".join(map(_secret_pattern, self._secrets)) or "(?!)", re.IGNORECASE)


#: Characters that one character of a secret may take when it is escaped.
_MAX_ESCAPED = 48


def _secret_pattern(secret: str) -> str:
    return "".join(_character_pattern(character, len(list(run))) for character, run in itertools.groupby(secret))


def _character_pattern(character: str, count: int) -> str:
    """The pattern for `count` times the same character. All repetitions in it are bounded, so that it is fast."""
    code = ord(character)
    names = (
        [] if character.isalnum() else [name for name, text in html5.items() if text == character and name[-1] == ";"]
    )
    forms = [
        rf"\\{{1,16}}(?:u00|x){code:02x}",
        rf"%(?:25){{0,4}}{code:02x}",
        rf"&(?:amp;){{0,4}}(?:#0{{0,7}}{code};|#x0{{0,7}}{code:x};{''.join(f'|{name}' for name in names)})",
    ]
    match character:
        case "\\":  # one pattern for the whole run: there would be too many ways to split it
            return rf"(?:\\{{{count},{16 * count}}}+|(?:{'|'.join(forms)}){{{count}}})"
        case " ":
            forms += [r"[^!-~]{1,16}", r"\+"]
        case _:
            forms.append(rf"\\{{0,16}}{re.escape(character)}")
    return rf"(?:{'|'.join(forms)}){{{count}}}"
