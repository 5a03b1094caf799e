"""Read along with a job from any process: join late, leave, and come back at a position.

A position counts characters, so the stored answer can serve it as well as the log, also days later.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import NamedTuple

from db import log
from db.engine import Store
from db.log import Piece, Tail
from db.states import FINAL, DeltaKind, JobState
from jobs.chat import Delta
from jobs.errors import UsageError

POLL_S = 0.05  # the log is at most so far behind the stream
WAITING_S = 0.25  # between two looks at a job that does not run


class Position(NamedTuple):
    """How far a reader has come: in which attempt, characters of the first choice's text, and of all else.

    Written `attempt.text.other`; the beginning is `0.0.0`.
    """

    attempt: int = 0
    text: int = 0
    other: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}.{self.text}.{self.other}"

    @classmethod
    def read(cls, words: str) -> "Position":
        """The position that `str` wrote; UsageError for anything else."""
        parts = words.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) < 12 for part in parts):
            raise UsageError(f"{words!r} is not a position: it is three numbers such as 1.240.0", code="bad_position")
        return cls(*map(int, parts))


class Heard(NamedTuple):
    """A piece of the answer, and the position after it."""

    delta: Delta
    position: Position


@dataclass(frozen=True, slots=True)
class Anew:
    """A new attempt begins: what was heard of the one before is replaced, never continued."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Over:
    """The job is final, and everything that there is of its answer was heard."""

    state: JobState


async def follow(
    store: Store, job_id: str, position: Position | None = None, quiet_s: float = inf
) -> AsyncGenerator[Heard | Anew | Over | None, None]:
    """What comes of a job's answer after a position, until the job is final. UsageError when there is no such job.

    None when nothing came for `quiet_s` seconds.
    """
    at, heard = position or Position(), monotonic()
    while True:
        tail = await asyncio.to_thread(log.tail, store, job_id, at.attempt, at.text + at.other)
        if tail is None:
            raise UsageError(f"there is no job {job_id!r}", code="not_found")
        for event in _news(tail, at):
            at = event.position if isinstance(event, Heard) else Position(event.attempt)
            yield event
            heard = monotonic()
        if tail.state in FINAL:
            yield Over(tail.state)
            return
        if monotonic() - heard > quiet_s:
            yield None
            heard = monotonic()
        await asyncio.sleep(POLL_S if tail.state is JobState.RUNNING else WAITING_S)


def _news(tail: Tail, at: Position) -> Iterator[Heard | Anew]:
    """What the reader at a position has not heard yet."""
    heard = [*_logged(tail.pieces, at)] if tail.stored is None else [*_stored(tail.stored, tail.attempt, at)]
    if (heard or tail.stored is not None) and at.attempt not in (0, tail.attempt):
        yield Anew(tail.attempt)
    yield from heard


def _logged(pieces: Sequence[Piece], at: Position) -> Iterator[Heard]:
    for piece in pieces:
        here = at.text + at.other if at.attempt == piece.attempt else 0
        said = piece.text[max(here - piece.seq, 0) :]
        if said:
            end, main = piece.seq + len(piece.text), (piece.choice, piece.kind) == (0, DeltaKind.TEXT)
            text = piece.position + (len(piece.text) if main else 0)
            yield Heard(_delta(piece, said), Position(piece.attempt, text, end - text))


def _delta(piece: Piece, said: str) -> Delta:
    match DeltaKind(piece.kind):
        case DeltaKind.TEXT:
            return Delta(said, choice=piece.choice)
        case DeltaKind.REFUSAL:
            return Delta(refusal=said, choice=piece.choice)
        case DeltaKind.REASONING:
            return Delta(reasoning=said, choice=piece.choice)


def _stored(text: str, attempt: int, at: Position) -> Iterator[Heard]:
    """The stored text of the first choice; its reader has the whole job for all else."""
    known = at if at.attempt == attempt else Position(attempt)
    if len(text) > known.text:
        yield Heard(Delta(text[known.text :]), Position(attempt, len(text), known.other))
