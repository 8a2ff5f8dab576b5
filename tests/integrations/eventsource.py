"""A browser's `EventSource`, as far as these tests need one, written from the WHATWG's standard."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp
from attrs import define, field, frozen


@frozen
class Message:
    """What a browser hands to the page."""

    event: str
    data: str
    last_event_id: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def brief(self) -> str:
        """The status of a `status` event, the kind of any other."""
        return str(self.json["status"]) if self.event == "status" else self.event


@define
class Parser:
    """§9.2.6, interpreting an event stream. Feed it bytes, cut wherever."""

    last_event_id: str = ""
    retry: int | None = None
    comments: list[str] = field(factory=list)
    _decoder: Any = field(factory=codecs.getincrementaldecoder("utf-8-sig"))
    _rest: str = ""
    _type: str = ""
    _data: str = ""
    _id: str = field(default="")

    def __attrs_post_init__(self) -> None:
        self._id = self.last_event_id

    def feed(self, data: bytes) -> list[Message]:
        text = self._rest + self._decoder.decode(data)
        messages: list[Message] = []
        while True:
            ends = [at for at in (text.find("\n"), text.find("\r")) if at >= 0]
            # A carriage return at the very end may be half of a line break.
            if not ends or (text[min(ends)] == "\r" and min(ends) == len(text) - 1):
                self._rest = text
                return messages
            end = min(ends)
            line = text[:end]
            text = text[end + (2 if text[end : end + 2] == "\r\n" else 1) :]
            message = self._line(line)
            if message is not None:
                messages.append(message)

    def _line(self, line: str) -> Message | None:
        if not line:
            return self._dispatch()
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name and colon:
            self.comments.append(value)
        elif name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
        return None

    def _dispatch(self) -> Message | None:
        self.last_event_id = self._id
        kind, data, self._type, self._data = self._type, self._data, "", ""
        return Message(kind or "message", data.removesuffix("\n"), self.last_event_id) if data else None


class Source:
    """One connection of a browser, as an async context manager and an iterator of messages."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        last_event_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._session = session
        self._url = url
        self.parser = Parser(last_event_id)
        self._headers = {**(headers or {}), "Accept": "text/event-stream"}
        if last_event_id:
            self._headers["Last-Event-ID"] = last_event_id
        self.messages: list[Message] = []

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None)
        self.response = await self._session.get(self._url, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.response.close()

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for chunk in self.response.content.iter_any():
            for message in self.parser.feed(chunk):
                self.messages.append(message)
                yield message

    async def until(self, brief: str) -> list[str]:
        """Read on until this status, or event, and give all that was read on this connection, in brief."""
        if brief not in self.briefs:
            async for message in self:
                if message.brief == brief:
                    break
        return self.briefs

    async def all(self) -> list[str]:
        """Read until the server ends the stream."""
        async for _ in self:
            pass
        return self.briefs

    @property
    def briefs(self) -> list[str]:
        return [message.brief for message in self.messages]
