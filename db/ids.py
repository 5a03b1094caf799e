"""Ids that sort by the time they were made."""

import secrets
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import overload

_lock = threading.Lock()
_last = 0
_CHANCE = 60
_BYTES = 13


def new_id(now: datetime) -> str:
    """26 hex digits: milliseconds, then 60 bits of chance; ids of one process grow strictly, so rows keep their order.

    With `_` and an attempt's number it stays within what every Batch API takes as a custom_id.
    """
    global _last
    fresh = int(now.timestamp() * 1000) << _CHANCE
    with _lock:
        _last = _last + 1 if _last >> _CHANCE >= fresh >> _CHANCE else fresh | secrets.randbits(_CHANCE - 1)
        return f"{_last:026x}"


class Ids(Sequence[str]):
    """Many ids in 13 bytes each, where a text takes 75: a batch has 50,000."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def append(self, one: str) -> None:
        """Add an id that `new_id` made."""
        self._kept += bytes.fromhex(one)

    def __len__(self) -> int:
        return len(self._kept) // _BYTES

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        return self._kept[number * _BYTES : (number + 1) * _BYTES].hex()


def custom_id(job_id: str, n: int) -> str:
    """How a row of a provider batch names its attempt."""
    return f"{job_id}_{n}"


def parse_custom_id(text: str) -> tuple[str, int] | None:
    """The job and the attempt that a custom_id names; None when it is not one of ours."""
    job_id, _, n = text.rpartition("_")
    ours = len(job_id) == 26 and n.isdecimal() and len(n) < 10
    return (job_id, int(n)) if ours else None


COPIES = 1000


def copy(n: int, k: int) -> int:
    """The number of the attempt that stands for the k-th further bill of try `n`: no count of tries comes so far."""
    return n + k * COPIES


def copied(n: int) -> tuple[int, int]:
    """The try that an attempt's number stands for, and which further bill of it: 0 for the try itself."""
    return n % COPIES, n // COPIES
