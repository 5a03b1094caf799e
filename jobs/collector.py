"""Python's collector of cycles while many rows go through: rows make none, and looking for them takes a tenth of it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_OBJECTS = 20_000  # more than a page of rows has

_one = Lock()
_before: list[tuple[int, int, int]] = []  # what held before each open block, which end in any order


@contextmanager
def seldom() -> Iterator[None]:
    """Look for cycles seldom in this block."""
    with _one:
        _before.append(gc.get_threshold())
        gc.set_threshold(_OBJECTS, 50, 100)
    try:
        yield
    finally:
        with _one:
            gc.set_threshold(*_before.pop())
        gc.collect()  # what little there was, before the next batch adds its own
