"""Markdown on a terminal while it comes: it stands there once at the end, whatever pieces it came in."""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.markdown import Sheet
from tests.screens import COLUMNS, ROWS, Screen, Terminal, terminal

BLOCKS = [
    "# A *long* answer",
    "Prose with `code` and <b>tags</b>.",
    "| name | size |\n|---|---|\n" + "".join(f"| row {n} | {n} |\n" for n in range(40)),
    "".join(f"{n}. item {n}\n" for n in range(1, 61)),
    *(f"Paragraph {n}." for n in range(40)),
    "```text\n" + "".join(f"code {n}\n" for n in range(60)) + "```",
    "The end.",
]


class Tty(io.StringIO):
    """A terminal in memory."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(ROWS))


@pytest.fixture
def screen() -> Iterator[Terminal]:
    with terminal() as made:
        yield made


def test_markdown_longer_than_the_window_stands_there_once(screen: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "\n\n".join(BLOCKS)
    with screen.opened() as out:
        monkeypatch.setattr(sys, "stdout", out)
        sheet = Sheet()
        for at in range(0, len(source), 9):
            sheet.write(source[at : at + 9])
            sheet.draw()
            time.sleep(0.005)
        sheet.end()
    assert screen.read().count("\x1b[J") > 5, "it was seen while it came"
    lines = [line.strip() for line in screen.screen.lines if line.strip()]
    rows = [f"row {n:<2}  {n}" for n in range(40)]
    shown = ["A long answer", "Prose with code and <b>tags</b>.", *rows, *(f"{n} item {n}" for n in range(1, 61)),
             *(f"Paragraph {n}." for n in range(40)), *(f"code {n}" for n in range(60)), "The end."]  # fmt: skip
    assert [line for line in lines if line in shown] == shown
    assert len(lines) == len(shown) + 2, "the head of the table, and its line"


def test_another_attempt_takes_the_place_of_the_old_markdown(screen: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with screen.opened() as out:
        monkeypatch.setattr(sys, "stdout", out)
        sheet = Sheet()
        sheet.write("# Old\n\n- it was\n- never \x1b[2Jfinished")
        sheet.draw()
        screen.read()
        assert screen.screen.lines[-1] == " • never [2Jfinished"
        assert sheet.restart() is False
        sheet.write("**New**")
        sheet.end()
    screen.read()
    assert screen.screen.lines == ["New"]


PIECES = st.sampled_from(
    ["# ", "## ", "- ", "1. ", "   - ", "> ", "```\n", "| a | b |\n|---|---|\n", "| x | y |\n", "**", "*", "`", "word ",
     "[a](http://b)", "\n", "\n\n", "<b>", "&amp;", "---\n", "===\n", "~~", "    code\n", "\\", "é", "|", "two words "]
)  # fmt: skip


def shown(pieces: list[str]) -> list[str]:
    """The screen when a page was drawn after each piece."""
    with redirect_stdout(Tty()) as out:
        sheet = Sheet()
        for piece in pieces:
            sheet.write(piece)
            sheet._next = 0.0
            sheet.draw()
        sheet.end()
    screen = Screen()
    screen.feed(out.getvalue().replace("\n", "\r\n"))
    return screen.lines


@given(st.lists(PIECES, min_size=1, max_size=25))
def test_any_pieces_of_a_text_end_as_the_whole_of_it(pieces: list[str]) -> None:
    assert shown(pieces) == shown(["".join(pieces)])
