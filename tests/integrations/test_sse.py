"""The event format, against a reader that was written from the standard."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribute_async.integrations.sse import HEADERS, HEARTBEAT, Event, Mark, encode
from tests.integrations.eventsource import Message, Parser

one_line = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        ("", b"data: \n\n"),
        ("one", b"data: one\n\n"),
        (" one", b"data:  one\n\n"),
        ("one\ntwo", b"data: one\ndata: two\n\n"),
        ("one\r\ntwo\rthree\n", b"data: one\ndata: two\ndata: three\ndata: \n\n"),
        ("\n\nevent: done", b"data: \ndata: \ndata: event: done\n\n"),
        ("a\u2028b\x0bc\x85d", "data: a\u2028b\x0bc\x85d\n\n".encode()),
        ({"text": "a\nb\u2028é\ud800"}, b'data: {"text":"a\\nb\\u2028\\u00e9\\ud800"}\n\n'),
    ],
)
def test_data_goes_out_line_by_line(data: object, wire: bytes) -> None:
    """Only what the standard calls a line break parts data into lines, and JSON is one line of ASCII."""
    assert encode(data) == wire


def test_all_fields() -> None:
    """An event's kind, its id and the reconnection time go out as the standard names them."""
    assert encode("x", event="status", id="7", retry=2000) == b"retry: 2000\nevent: status\nid: 7\ndata: x\n\n"
    assert encode(retry=0) == b"retry: 0\n\n"


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "a\r\n"])
def test_no_field_can_be_forged(bad: str) -> None:
    """A line break or NUL in an event's kind or id is refused."""
    with pytest.raises(ValueError, match="line break"):
        encode("x", event=bad)
    with pytest.raises(ValueError, match="line break"):
        encode("x", id=bad)


def test_what_is_no_json_or_time() -> None:
    """NaN is no JSON, and no time is negative."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"n": float("nan")})
    with pytest.raises(ValueError, match="negative"):
        encode(retry=-1)


@given(st.text(st.characters(exclude_categories=["Cs"])), one_line, one_line, st.integers(1, 7))
def test_a_reader_gets_what_was_sent(data: str, event: str, id_: str, size: int) -> None:
    """Whatever text goes out comes in the same (but for the kind of its line breaks), however the bytes are cut."""
    parser = Parser()
    wire = HEARTBEAT + encode(data, event=event, id=id_) + HEARTBEAT
    messages = [message for at in range(0, len(wire), size) for message in parser.feed(wire[at : at + size])]
    assert messages == [Message(event or "message", re.sub("\r\n|\r", "\n", data), id_)]


def test_a_heartbeat_is_no_event() -> None:
    """A heartbeat is a comment: it tells a page nothing and leaves the last id as it is."""
    parser = Parser("before")
    assert parser.feed(HEARTBEAT) == []
    assert parser.comments == [""]
    assert parser.last_event_id == "before"


def test_nobody_on_the_way_keeps_events() -> None:
    """The headers forbid caches to store and proxies to collect."""
    assert HEADERS == {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@given(st.integers(0, 10**15 - 1), st.sampled_from(["status", "result", "error", "done"]), st.none() | st.text())
def test_a_mark_survives_the_way_through_a_browser(at: int, kind: str, status: str | None) -> None:
    """Whatever a status says, the mark as text is plain, short ASCII that names it, and parses to the same mark."""
    mark = Mark.of(at, kind, status)
    assert re.fullmatch("[!-~]{1,90}", str(mark))
    assert Mark.parse(str(mark)) == mark
    [message] = Parser().feed(Event.of(mark, {}).wire)
    assert Mark.parse(message.last_event_id) == mark


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "7",
        "x-status-QUEUED",
        "7-gossip-QUEUED",
        "7-status-A B",
        "-1-done-",
        "9" * 16 + "-done-",
        "7-status-" + "A" * 61,
        "7-status-A\n",
        "\u0667-status-A",
    ],
)
def test_what_is_no_mark_counts_as_none(text: str | None) -> None:
    """A `Last-Event-ID` that no server of ours gave says nothing."""
    assert Mark.parse(text) is None
