"""Clock and Stopwatch: what time it is, and how long a call took."""

import time
from array import array
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil


class Clock:
    """The time, aware UTC."""

    def now(self) -> datetime:
        """Now."""
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a call took, in milliseconds, counted from its request's first byte on the wire.

    `connect_ms` is what a new connection took before that; None where an open one was used again. The gaps are those
    between one delta and the next, by nearest rank.
    """

    total_ms: float
    first_token_ms: float | None = None
    connect_ms: float | None = None
    chunks: int = 0
    gap_p50_ms: float | None = None
    gap_p95_ms: float | None = None
    gap_max_ms: float | None = None


class Stopwatch:
    """Times one call; it starts when it is made, and anew when the request is sent."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._connecting: float | None = None
        self._connected: float | None = None
        self._first: float | None = None
        self._last = 0.0
        self._gaps = array("d")

    def connecting(self) -> None:
        """A new connection is being made."""
        self._connecting = time.perf_counter()

    def connected(self) -> None:
        """It is there: called again when its TLS is, too."""
        self._connected = time.perf_counter()

    def sent(self) -> None:
        """The request goes out."""
        self._start = time.perf_counter()

    def token(self) -> None:
        """A delta came."""
        now = time.perf_counter()
        if self._first is None:
            self._first = now
        else:
            self._gaps.append(now - self._last)
        self._last = now

    def ms(self) -> float:
        """Since the start."""
        return (time.perf_counter() - self._start) * 1000

    def read(self) -> Timing:
        """The times so far."""
        gaps, first = sorted(self._gaps), self._first
        return Timing(
            total_ms=self.ms(),
            first_token_ms=None if first is None else (first - self._start) * 1000,
            connect_ms=self._connect_ms(),
            chunks=len(gaps) + (first is not None),
            gap_p50_ms=_rank(gaps, 0.5),
            gap_p95_ms=_rank(gaps, 0.95),
            gap_max_ms=_rank(gaps, 1.0),
        )

    def _connect_ms(self) -> float | None:
        if self._connecting is None or self._connected is None:
            return None
        return (self._connected - self._connecting) * 1000


def _rank(gaps: list[float], share: float) -> float | None:
    return gaps[max(ceil(share * len(gaps)), 1) - 1] * 1000 if gaps else None
