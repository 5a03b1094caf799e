"""One moving line on stderr that says how far a call is: only where a person looks, and gone before other words."""

import os
import sys
from time import monotonic
from typing import TextIO

from router.terminal import clean, tolerant

_CLEAR = "\r\x1b[K"


class Status:
    """`stream · gpt-6-luna · waiting 1.2 s`, then how many tokens came; a token is a delta, as far as is known yet."""

    def __init__(self) -> None:
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._moves = sys.stderr.isatty() and not plain
        self._what = ""
        self._drawn = False

    def begin(self, *what: str) -> None:
        """A call begins: its lane, its model, which try it is."""
        self._what, self._since = clean(" · ".join(what)), monotonic()
        self._first, self._tokens = 0.0, 0
        self.draw()

    def token(self) -> None:
        """A delta came."""
        self._tokens += 1
        self._first = self._first or monotonic()

    def draw(self) -> None:
        """Show how far it is now."""
        if self._moves and self._what and in_front():
            words = f"{self._what} · {self._progress()}"[: columns(sys.stderr) - 1]
            tolerant(sys.stderr).write(f"\r{words}\x1b[K")
            sys.stderr.flush()
            self._drawn = True

    def _progress(self) -> str:
        if not self._tokens:
            return f"waiting {monotonic() - self._since:.1f} s"
        seconds = monotonic() - self._first
        speed = f" · {(self._tokens - 1) / seconds:.0f}/s" if seconds > 0.5 else ""
        return f"{self._tokens:,} tokens{speed}"

    def erase(self, *, echo: bool = False) -> None:
        """Make room for what is said on this line; `echo`: a terminal has written ^C there."""
        if self._drawn or (echo and self._moves):
            self._drawn = False
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def stop(self) -> None:
        """It is over, or the text itself shows how far it is."""
        self._what = ""
        self.erase()


def in_front() -> bool:
    """A job in the background of a shell does not write over what its user types."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:
        return True  # a terminal, and not the one that controls us


def columns(stream: TextIO) -> int:
    """How wide its terminal is."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
