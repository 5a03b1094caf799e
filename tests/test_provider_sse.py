"""Events come out the same however the bytes are split and the lines are ended."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.providers.sse import Decoder, Event


def decoded(*pieces: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.rest()


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\ndata: b\n\n", [b"a\nb"]),
        (b"data:  a\n\n", [b" a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": ping\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b"id: 7\nretry: 10\ndata: a\n\n\n: x\n\n", [b"a"]),
        (b"event: x\n\ndata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),
        (b"data:\n\ndata\n\n", []),
        (b"", []),
    ],
)
def test_wire(wire: bytes, events: list[bytes]) -> None:
    assert [event.data for event in decoded(wire)] == events


def test_the_rest_comes_once() -> None:
    decoder = Decoder()
    decoder.feed(b"data: a")
    assert [decoder.rest(), decoder.rest()] == [[Event(b"a")], []]


def test_name_belongs_to_its_event() -> None:
    assert decoded(b"event: error\ndata: 1\n\ndata: 2\n\n") == [Event(b"1", b"error"), Event(b"2")]


@given(
    st.lists(st.text(alphabet="aé😀 :{}\u2028", max_size=8), max_size=6),
    st.sampled_from([b"\n", b"\r", b"\r\n"]),
    st.lists(st.integers(0, 200), max_size=30),
)
def test_any_split_gives_the_same_events(texts: list[str], line_end: bytes, cuts: list[int]) -> None:
    wire = b"".join(b"data: " + text.encode() + line_end + b":c" + line_end + line_end for text in texts)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    pieces = [wire[a:b] for a, b in pairwise(edges)]
    assert [event.data for event in decoded(*pieces)] == [text.encode() for text in texts if text]
