"""What the tests of files of requests share: rows in short, streams, and bytes that are nearly rows."""

import io
import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import strategies as st

from router.intake import Defaults, Kind, Reject, Row, read

M = Defaults(model="m")
USER = {"role": "user", "content": "Hello"}


def rows(data: bytes, kind: Kind | None = Kind.JSONL, defaults: Defaults = M) -> list[Row | Reject]:
    return list(read(io.BytesIO(data), kind, defaults, name="rows"))


def row(fields: Any, defaults: Defaults = M) -> Row:
    (item,) = rows(orjson.dumps(fields), defaults=defaults)
    assert isinstance(item, Row), item
    return item


def reason(data: Any, kind: Kind = Kind.JSONL, defaults: Defaults = M) -> str:
    (item,) = rows(data if isinstance(data, bytes) else orjson.dumps(data), kind, defaults)
    assert isinstance(item, Reject), item
    assert item.reason.isprintable()
    return item.reason


def batch(body: dict[str, Any] | None = None, **outer: Any) -> dict[str, Any]:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    return {**line, "body": {"model": "m", "messages": [USER], **(body or {})}, **outer}


class _Stream(io.RawIOBase):
    """What a generator yields, as a raw stream that is never whole in memory."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or next(self._pieces, b"")
        size = min(len(buffer), len(data))
        buffer[:size], self._rest = data[:size], data[size:]
        return size


def stream(pieces: Iterator[bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Stream(pieces))


def table(*lines: str) -> list[Row | Reject]:
    return rows("\n".join(lines).encode(), Kind.CSV)


def peak(source: io.BufferedReader, kind: Kind) -> tuple[list[int], list[Reject]]:
    """The peak of memory in bytes and the number of rows, and the rejects."""
    tracemalloc.start()
    try:
        items, bad = 0, []
        for item in read(source, kind, M, name="rows"):
            items += 1
            if isinstance(item, Reject):
                bad.append(item)
        return [tracemalloc.get_traced_memory()[1], items], bad
    finally:
        tracemalloc.stop()


jsonish = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from(
    ["custom_id", "method", "url", "body", "prompt", "messages", "model", "system", "max_tokens", "tools", "n", "x"]
)
values = jsonish | st.sampled_from(["POST", "/v1/chat/completions", "a", [USER], {"messages": [USER]}, 5])
almost_rows = st.dictionaries(words, values, max_size=6).map(lambda row: orjson.dumps(row))
some_bytes = st.lists(st.binary(max_size=20) | almost_rows, max_size=8).map(b"\n".join)
