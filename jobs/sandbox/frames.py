"""One server-sent event with what it is, so that a drill can find it (pure)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson


class Tag(StrEnum):
    OPEN = "open"
    DELTA = "delta"
    CLOSE = "close"
    FINISH = "finish"
    USAGE = "usage"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Frame:
    """`data` is the event's bytes with its blank line; a DELTA is worth one output token."""

    tag: Tag
    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    how: str


Step = Frame | Pause | Cut


def unnamed(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def named(event: str, value: Any) -> bytes:
    return b"event: " + event.encode() + b"\ndata: " + orjson.dumps(value) + b"\n\n"
