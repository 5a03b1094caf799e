"""How long a lane takes, as this installation has seen it: shares of real turnarounds around a time. Pure."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from math import copysign
from operator import itemgetter
from typing import NamedTuple

from db.replay import Stay
from db.states import Lane
from jobs.pricing import PLAIN

NEAREST = 100  # turnarounds, those nearest in time
_STRIDE = 25  # they change at every so many


class Kind(NamedTuple):
    """What has turnarounds of its own; `tier` is background's window, and "default" for the usual one."""

    provider: str
    model: str
    lane: str
    tier: str
    interactive: bool

    @property
    def words(self) -> str:
        """For people: "batch for gpt-6-luna"."""
        tier = "" if self.tier == "default" else f" {self.tier}"
        return f"{self.lane}{tier} for {self.model}"

    @classmethod
    def of(cls, provider: str, model: str, lane: str, tier: str, interactive: bool) -> "Kind":
        """The kind of a call; whatever a provider calls its usual tier is that."""
        plain = tier in PLAIN or lane == Lane.BATCH.value
        return cls(provider, model, lane, "default" if plain else tier, interactive)


class Curve(NamedTuple):
    """Seconds, rising, and the share that was answered by then; what never was is missing at the end."""

    seconds: tuple[float, ...]
    shares: tuple[float, ...]

    def within(self, seconds: float) -> float:
        """The share that was answered within so many seconds."""
        place = bisect_right(self.seconds, seconds)
        return self.shares[place - 1] if place else 0.0

    def parts(self, most: float) -> Iterator[tuple[float, float]]:
        """Seconds and the share that was answered just then, up to `most` seconds."""
        before = 0.0
        for seconds, share in zip(self.seconds, self.shares, strict=True):
            if seconds > most:
                return
            yield seconds, share - before
            before = share


class History:
    """The turnarounds of each kind, in the order of time."""

    def __init__(self, found: Iterable[Stay]) -> None:
        seen: dict[Kind, tuple[array[float], array[float]]] = {}  # when each began, and seconds: below 0, not answered
        for one in found:
            began, took = seen.setdefault(Kind.of(*one[:5]), (array("d"), array("d")))
            began.append(one.began_at.timestamp())
            took.append(copysign(one.seconds, 1 if one.answered else -1))
        # A lane that never brought an answer has no history: all that is known is that it was too slow.
        self._seen = {kind: _ordered(*rows) for kind, rows in seen.items() if any(map(_answered, rows[1]))}
        self._curve = lru_cache(maxsize=256)(self._drawn)

    def near(self, kind: Kind, at: datetime) -> Curve | None:
        """What it took around this time; None where it has never ended in an answer.

        Jobs that a person waits for are told apart from others, where there are both.
        """
        found = kind if kind in self._seen else kind._replace(interactive=not kind.interactive)
        if found not in self._seen:
            return None
        began, _ = self._seen[found]
        place = bisect_left(began, at.timestamp()) - NEAREST // 2
        first = max(0, min(place, len(began) - NEAREST))
        return self._curve(found, first - first % _STRIDE)

    def _drawn(self, kind: Kind, first: int) -> Curve:
        return curve((abs(seconds), _answered(seconds)) for seconds in self._seen[kind][1][first : first + NEAREST])


def _answered(seconds: float) -> bool:
    return copysign(1, seconds) > 0


def _ordered(began: "array[float]", took: "array[float]") -> "tuple[array[float], array[float]]":
    """In the order of time, whatever order the database gave."""
    order = sorted(range(len(began)), key=lambda place: (began[place], took[place]))
    return array("d", (began[place] for place in order)), array("d", (took[place] for place in order))


def curve(took: Iterable[tuple[float, bool]]) -> Curve:
    """The shares of these turnarounds (seconds, and whether it was answered then or only left).

    By the estimate of Kaplan and Meier: what was left is counted as long as it was seen.
    """
    rows = sorted(took)
    seconds, shares = [], []
    pending, since, still = len(rows), len(rows), 1.0  # `still` of all were open when `since` were left to see
    for after, group in groupby(rows, itemgetter(0)):
        ends = [answered for _, answered in group]
        if answered := sum(ends):
            seconds.append(after)
            shares.append(1 - still * (pending - answered) / since)
        if len(ends) > answered:
            still *= (pending - answered) / since
            since = pending - len(ends)
        pending -= len(ends)
    return Curve(tuple(seconds), tuple(shares))
