"""Data on stdout, talk on stderr; colour, width and signs as far as the terminal or the pipe takes them.

Rich is imported where it is needed: most commands never draw.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

    Group = tuple[Sequence[str | Text], Sequence[Sequence[RenderableType]]]  # its names, and its rows

RIGHT: Mapping[str, Any] = {"justify": "right"}
WRAP: Mapping[str, Any] = {"no_wrap": False, "overflow": "fold"}
SHRINK: Mapping[str, Any] = {"no_wrap": False}  # the first to give way where there is little room

Column = str | tuple[str, Mapping[str, Any]]  # its name, or its name and Rich's options
WIDE = 110  # columns of a terminal from which on there is room for what can be spared
_STATES = {
    "queued": "yellow", "running": "cyan", "submitted": "blue", "succeeded": "green", "failed": "red",
    "cancelled": "dim", "sent": "cyan", "ok": "green", "expired": "yellow", "unknown": "magenta", "packed": "yellow",
    "uploaded": "yellow", "unsure": "magenta", "ended": "cyan", "imported": "green",
}  # fmt: skip
talk: Callable[[str], None] | None = None  # takes what is said, where lines for machines are wanted
_PIPE_WIDTH = 1000  # columns of a pipe: what reads it wants lines, not a layout


def complain(message: str) -> None:
    """Say on stderr, in one line, what went wrong."""
    head = "shunter: error:"
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        head = f"\x1b[1;31m{head}\x1b[0m"
    _line(sys.stderr, f"{head} {clean(' '.join(message.split()))}")


def say(message: str) -> None:
    """Talk to the person, on stderr."""
    if talk is not None:
        talk(message)
    else:
        _line(sys.stderr, clean(message))


def data(value: Any, *, line: bool = False) -> None:
    """JSON on stdout: one indented document, or with `line` one event on a line of its own, sent at once."""
    shape: dict[str, Any] = {"separators": (",", ":")} if line else {"indent": 2}
    _line(sys.stdout, json.dumps(value, ensure_ascii=not speaks_utf(sys.stdout), **shape))


def text(words: str) -> None:
    """Words on stdout as they are, but for control characters where a terminal would obey them."""
    _line(sys.stdout, clean(words) if sys.stdout.isatty() else words)


def csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A header and rows on stdout; unknown values are empty."""
    from csv import DictWriter

    writer = DictWriter(tolerant(sys.stdout), columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _line(stream: TextIO, words: str) -> None:
    tolerant(stream).write(words + "\n")
    stream.flush()


def clean(words: str) -> str:
    """The words without control characters: what a model or a server says must not steer the terminal."""
    if words.isprintable():
        return words
    return "".join(sign for sign in words if sign in "\n\t" or (ord(sign) >= 0x20 and not 0x7F <= ord(sign) < 0xA0))


def speaks_utf(stream: TextIO) -> bool:
    """Whether every sign can be written to the stream."""
    return (getattr(stream, "encoding", None) or "").lower().startswith("utf")


def sign(fine: str, plain: str) -> str:
    """The fine sign where stdout can write it."""
    return fine if speaks_utf(sys.stdout) else plain


def tolerant(stream: TextIO) -> TextIO:
    """The stream, made to write `?` where its encoding lacks a sign."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure and getattr(stream, "errors", "") in ("strict", "surrogateescape"):
        reconfigure(errors="replace")
    return stream


def console(stream: TextIO | None = None) -> "Console":
    """A console on stdout, or on this stream: plain in a pipe, and without markup, so that data stays what it is."""
    from rich.console import Console

    stream = tolerant(stream or sys.stdout)
    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    if stream.isatty():
        return Console(file=stream, **plain)
    width = None if os.environ.get("COLUMNS") else _PIPE_WIDTH
    return Console(file=_Pipe(stream), width=width, **plain)  # type: ignore[arg-type]


class _Pipe:
    """A stream whose lines end with their last sign: tables are padded with spaces, which would only wrap."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, words: str) -> int:
        """Write without the spaces before each line's end."""
        return self._stream.write(re.sub(" +$", "", words, flags=re.MULTILINE))


def table(*columns: Column, show_footer: bool = False) -> "Table":
    """An empty table in the house's look."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    look: dict[str, Any] = {"show_edge": False, "pad_edge": False, "padding": (0, 1), "collapse_padding": True}
    made = Table(box=SIMPLE_HEAD, header_style="bold", footer_style="bold", show_footer=show_footer, **look)
    for column in columns:
        name, options = column if isinstance(column, tuple) else (column, {})
        made.add_column(name, **{"no_wrap": True, "overflow": "ellipsis", **options})
    return made


def grouped(
    names: Sequence[Column],
    columns: Sequence[Column],
    groups: "Sequence[Group]",
    foot: Sequence[str] = (),
    *,
    apart: bool = False,
) -> None:
    """Draw rows in groups: a group's names beside its first row, or above it where there is no room for both.

    `foot` has a word for each column, those of the names first; `apart` keeps the groups a line apart.
    """
    from rich.text import Text

    out = console()
    beside = _rows(names, columns, groups, foot, apart)
    whole = beside.__rich_measure__(out, out.options.update_width(_PIPE_WIDTH)).maximum
    if not names or whole <= out.width:
        out.print(beside)
        return
    flat = [(one, {}) if isinstance(one, str) else (one[0], {**one[1], "no_wrap": True}) for one in columns]
    made = _rows([""], flat, [([""], rows) for _, rows in groups], [*foot[:1], *foot[len(names) :]], apart)
    lines = iter(out.render_lines(made, pad=False, new_lines=True))
    _lines(out, lines, 2)  # the heads, and the rule below them
    for called, rows in groups:
        out.print(Text(" ").join(Text(clean(word)) if isinstance(word, str) else word for word in called))
        _lines(out, lines, len(rows) + apart)
    _lines(out, lines)


def _lines(out: "Console", lines: "Iterator[list[Segment]]", count: int | None = None) -> None:
    """The next lines, or all that are left."""
    from itertools import islice

    from rich.segment import Segments

    for line in islice(lines, count):
        out.print(Segments(line), end="")


def _rows(names: Any, columns: Any, groups: Any, foot: Sequence[str], apart: bool) -> "Table":
    made = table(*names, *columns, show_footer=bool(foot))
    for called, rows in groups:
        for cells in rows:
            made.add_row(*called, *cells)
            called = [""] * len(names)
        if apart:
            made.add_section()
    for column, word in zip(made.columns, foot, strict=False):
        column.footer = word
    return made


def styled(words: str, style: str) -> "Text":
    """Words in a style, without control characters."""
    from rich.text import Text

    return Text(clean(words), style=style)


def state(word: str) -> "RenderableType":
    """A state in its colour."""
    return styled(word, _STATES.get(word, ""))


def fields(pairs: Iterable[tuple[str, "RenderableType | None"]]) -> "Table":
    """Name and value, a line each; those without a value are left out."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            grid.add_row(name, clean(value) if isinstance(value, str) else value)
    return grid


def bar(done: int, total: int, width: int = 10) -> "RenderableType":
    """How far something is, as a bar."""
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=max(total, 1), completed=min(done, max(total, 1)), width=width)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show on stderr how far long work is: call what it gives with the count so far. Silent where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn

    class Rate(ProgressColumn):
        """Items a second."""

        def render(self, task: Task) -> "RenderableType":
            speed = task.finished_speed or task.speed
            return styled(f"{speed:,.0f}/s" if speed else "", "dim")

    words: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if total is None:
        words.append(TextColumn("{task.completed:,.0f}"))
    else:
        words += [BarColumn(bar_width=24), TextColumn("{task.completed:,.0f} of {task.total:,.0f}")]
    with Progress(*words, Rate(), TimeElapsedColumn(), console=console(sys.stderr), transient=True) as shown:
        task = shown.add_task(label, total=total)
        yield lambda done: shown.update(task, completed=done)
