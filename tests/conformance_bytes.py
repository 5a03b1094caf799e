"""Events as bytes, as other servers would send them, and split anywhere."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

MULTI_BYTE = "naïve e\u0301 日本語 \U0001f469\u200d\U0001f467 \u2028\n\ndata: [DONE]"  # in JSON, so one line and no end
BOM = b"\xef\xbb\xbf"
IN_AN_EVENT = (b": ping\n", b":\n", b"id: 7\n", b"retry: 9\n", b"other: x\n", b"other\n")
BETWEEN_EVENTS = (*IN_AN_EVENT, b"\n", b": ping\n\n", b"data:\n\n", b"event: x\n\n", b"id: 7\n\n: ping\n\n\n")


def data(event: Any, *, named: bool = False) -> bytes:
    """One event; text is data as it is, the rest is JSON with its characters as they are."""
    line = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    name = f"event: {event['type']}\n" if named else ""
    return f"{name}data: {line}\n\n".encode()


def varied(wire: bytes, noise: Sequence[tuple[int, int]], *, bom: bool, unended: bool, line_end: bytes) -> bytes:
    """The same events from another server: `noise` is where and which, `unended` lacks the last blank line."""
    lines = wire.split(b"\n")[:-1]
    for at, which in sorted(noise, reverse=True) if lines else ():
        place = at % len(lines) + 1
        kinds = IN_AN_EVENT if lines[place - 1] else BETWEEN_EVENTS
        lines[place:place] = kinds[which % len(kinds)].split(b"\n")[:-1]
    text = b"".join(line + line_end for line in lines)
    return BOM * bom + (text.rstrip(line_end) if unended else text)


def split(wire: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The bytes in reads that end at these places."""
    edges = sorted({0, len(wire), *(at % (len(wire) + 1) for at in cuts)})
    return [wire[start:end] for start, end in pairwise(edges)]
