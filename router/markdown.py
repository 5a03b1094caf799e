"""Markdown on a terminal while it comes: what is finished is printed once, and only what may change is drawn again."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING

from router.terminal import clean, console, tolerant

if TYPE_CHECKING:
    from markdown_it.token import Token

_STYLE = re.compile(r"\x1b\[[0-9;]*m|\s")
_EVERY_S = 0.09
_REST = 5  # times as long as a drawing took, the call has its turn before the next one


class Sheet:
    """A Markdown answer on stdout.

    A block is final once the next one has begun, and scrolls away as any text does. Of the last block only as much as
    fits the window is drawn again; what it is longer by is final too, but in a table, where a row may change them all.
    """

    def __init__(self) -> None:
        from markdown_it import MarkdownIt
        from rich.markdown import Markdown

        self._parse = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse
        self._markdown = Markdown("", hyperlinks=False)  # an address is shown, not hidden behind a word
        self._console = console()
        self._moves = os.environ.get("TERM") != "dumb"
        self._next = 0.0
        self._blank()

    def _blank(self) -> None:
        self.shown = self._fresh = self._gap = False
        self._source = ""  # of the block that is not finished
        self._above = 0  # lines of that block that are final
        self._tail = 0  # lines at the end of the screen that are drawn again
        self._final = 0  # lines above these

    def write(self, text: str) -> None:
        """More of the answer; it is seen at the next drawing."""
        self._source += clean(text)
        self.shown = self._fresh = True

    def draw(self) -> None:
        """Bring the screen up to date, at most a dozen times a second."""
        began = monotonic()
        if self._fresh and began >= self._next:
            self._draw(over=False)
            self._next = began + max(_EVERY_S, _REST * (monotonic() - began))

    def end(self) -> None:
        """Nothing more comes: all of it is final, and the cursor at the beginning of a line."""
        if self._source:
            self._draw(over=True)

    def restart(self) -> bool:
        """Another answer takes this one's place: what of it is in the window goes. Whether it stays."""
        up = min(self._final + max(self._tail - 1, 0), self._console.height - 1)
        if self._moves:
            _put(_back(up))
        else:
            self.end()
        self._blank()
        return not self._moves

    def _draw(self, *, over: bool) -> None:
        self._fresh, room = False, self._console.height - 1
        tokens = self._parse(self._source)
        last = len(tokens) if over else _last(tokens, self._source.count("\n"))
        lines = self._lines(tokens[:last])
        final = lines[self._above :]
        if last:
            self._above, self._gap = 0, self._gap or bool(lines)
            self._source = "" if over else "\n".join(self._source.split("\n")[_line(tokens[last]) :])
        lines = self._lines(tokens[last:])
        cut = self._above
        if len(lines) - room > cut and tokens[last].type != "table_open":
            cut = len(lines) - room
        final += lines[self._above : cut]
        self._above = cut
        self._print(final, lines[cut:][-room:] if self._moves else [])

    def _lines(self, tokens: Sequence["Token"]) -> list[str]:
        """The blocks as lines of the terminal, each with an empty line above it where another one is."""
        lines: list[str] = []
        for block in _blocks(tokens):
            if rendered := self._rendered(block):
                lines += [*([""] if lines or self._gap else []), *rendered]
        return lines

    def _rendered(self, block: list["Token"]) -> list[str]:
        self._markdown.parsed = block
        with self._console.capture() as drawn:
            self._console.print(self._markdown)
        lines = [line.rstrip(" ") for line in drawn.get().split("\n")]
        full = [at for at, line in enumerate(lines) if "\x1b[48;" in line or _STYLE.sub("", line)]
        return lines[full[0] : full[-1] + 1] if full else []

    def _print(self, final: Sequence[str], tail: Sequence[str]) -> None:
        """In one write, so that nothing flickers."""
        back = _back(self._tail - 1) if self._tail else ""
        _put(back + "".join(f"{line}\n" for line in final) + "\n".join(tail))
        self._tail, self._final = len(tail), self._final + len(final)


def _begins(tokens: Sequence["Token"]) -> list[int]:
    """Where each block begins."""
    return [at for at, token in enumerate(tokens) if token.level == 0 and token.nesting >= 0]


def _last(tokens: Sequence["Token"], unfinished: int) -> int:
    """Where the last block begins; one that begins in the unfinished line may turn out to be more of the one above."""
    return max((at for at in _begins(tokens) if _line(tokens[at]) < unfinished), default=0)


def _blocks(tokens: Sequence["Token"]) -> Iterator[list["Token"]]:
    for first, after in pairwise([*_begins(tokens), len(tokens)]):
        yield list(tokens[first:after])


def _line(token: "Token") -> int:
    return token.map[0] if token.map else 0


def _back(lines: int) -> str:
    """To the beginning of the line that is so many above, and everything from there on goes.

    In two parts: some terminals keep in their history what is erased from the very first line on.
    """
    return f"\r\x1b[{lines}A\x1b[K\n\x1b[J\x1b[A" if lines else "\r\x1b[K"


def _put(words: str) -> None:
    tolerant(sys.stdout).write(words)
    sys.stdout.flush()
