"""How long things took, many of them in few bytes: sketches that add up, with percentiles within RELATIVE_ERROR.

A sketch counts values in bins whose width grows with them (DDSketch). Where the bins are is ddsketch's; what is stored
is the bins' numbers and counts alone, since its own form needs protobuf. Values are milliseconds.
"""

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddsketch.mapping import LogarithmicMapping

RELATIVE_ERROR = 0.005  # of every percentile, beside the value of that rank; what is stored rests on it
PERCENTILES = (50, 90, 95, 99)

_LEAST_MS = 0.001  # less than a microsecond is one
_BIN = struct.Struct("<hI").size

Bins = Counter[int]  # how many values are in each bin, by its number


@cache
def _mapping() -> "LogarithmicMapping":
    from ddsketch.mapping import LogarithmicMapping

    return LogarithmicMapping(RELATIVE_ERROR)


def bin_of(ms: float) -> int:
    """The number of the bin that a value falls into."""
    return _mapping().key(ms if ms > _LEAST_MS else _LEAST_MS)


def value_of(number: int) -> float:
    """The value that stands for a bin, in milliseconds."""
    return _mapping().value(number)


def packed(bins: Mapping[int, int]) -> bytes:
    """A sketch as it is stored: the bins' numbers, then their counts; nothing for bins that were taken back."""
    filled = {number: count for number, count in bins.items() if count}
    return struct.pack(f"<{len(filled)}h{len(filled)}I", *filled.keys(), *filled.values())


def pour(stored: bytes, into: Bins) -> None:
    """Add a stored sketch to another one."""
    n = len(stored) // _BIN
    numbers = struct.unpack(f"<{n}h{n}I", stored)
    for number, count in zip(numbers[:n], numbers[n:], strict=True):
        into[number] += count


class Heap:
    """Many stored sketches that are to be one: gathered and counted without work of ours for each bin."""

    def __init__(self) -> None:
        self._numbers, self._counts = array("h"), array("I")

    def add(self, stored: bytes) -> None:
        """One more."""
        end = len(stored) // _BIN * 2
        self._numbers.frombytes(stored[:end])
        self._counts.frombytes(stored[end:])

    def bins(self) -> Bins:
        """All of them together; the heap is done with."""
        if sys.byteorder == "big":
            for column in (self._numbers, self._counts):
                column.byteswap()
        bins = Counter(self._numbers)  # each bin once, as nearly all of a quarter of an hour are
        for number, count in zip(self._numbers, self._counts, strict=True):
            if count != 1:
                bins[number] += count - 1
        return bins


def merged(sketches: Iterable[Mapping[int, int]]) -> Bins:
    """All of them as one."""
    whole: Bins = Counter()
    for one in sketches:
        whole.update(one)
    return whole


def percentiles(bins: Mapping[int, int], ms_a_unit: float = 1.0) -> dict[str, Any] | None:
    """How many values there are, and the nearest-rank percentiles in the unit; None for no values."""
    total = sum(bins.values())
    if not total:
        return None
    found: dict[str, Any] = {"count": total}
    ranks = iter([(p, -(-p * total // 100)) for p in PERCENTILES])
    percent, rank = next(ranks)
    passed = 0
    for number in sorted(bins):
        passed += bins[number]
        while passed >= rank:
            found[f"p{percent}"] = round(_mapping().value(number) / ms_a_unit, 3)
            percent, rank = next(ranks, (0, total + 1))
    return found
