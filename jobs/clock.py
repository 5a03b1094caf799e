"""Clock and Stopwatch: what time it is, and how long a call took."""

import time
from datetime import UTC, datetime


class Clock:
    """The time, aware UTC."""

    def now(self) -> datetime:
        """Now."""
        return datetime.now(UTC)


class Stopwatch:
    """Milliseconds of one call: to its first token and in all; starts when it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.first_token_ms: float | None = None

    def token(self) -> None:
        """A token came; only the first counts."""
        if self.first_token_ms is None:
            self.first_token_ms = self.ms()

    def ms(self) -> float:
        """Since the start."""
        return (time.perf_counter() - self._start) * 1000
