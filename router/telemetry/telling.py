"""What turns events into something else."""

from collections.abc import Callable, Mapping
from typing import Any

from jobs.observing import Event


class Teller:
    """Hands an event to what tells of its kind; all others pass by."""

    def __init__(self, tellers: Mapping[type, Callable[[Any], None]]) -> None:
        self._tellers = tellers

    def __call__(self, event: Event) -> None:
        """Tell of it, if it is of one of these kinds."""
        if teller := self._tellers.get(type(event)):
            teller(event)
