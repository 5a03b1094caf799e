"""Commands as processes of their own: in pipes, and on a terminal of 24 lines whose screen can be read."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

from tests.commands import Done

ROOT = Path(__file__).parent.parent
ROWS, COLUMNS = 24, 80
_PIECES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+")


class Screen:
    """What a terminal shows of the bytes that came, and what has scrolled away; it knows the few moves that we make."""

    def __init__(self) -> None:
        self.rows, self.gone = [""] * ROWS, list[str]()
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        for piece in _PIECES.finditer(text):
            number, move = int(piece[1]) if (piece[1] or "").isdigit() else 1, piece[2]
            match move or piece[0]:
                case "\r":
                    self._column = 0
                case "\n":
                    self._down()
                case "A":
                    self._row = max(self._row - number, 0)
                case "J" | "K":
                    self.rows[self._row] = self.rows[self._row][: self._column]
                    if move == "J":
                        self.rows[self._row + 1 :] = [""] * (ROWS - self._row - 1)
                case words if not move:
                    self._write(words)

    def _down(self) -> None:
        self._row += 1
        if self._row == ROWS:
            self.gone.append(self.rows.pop(0))
            self.rows.append("")
            self._row -= 1

    def _write(self, words: str) -> None:
        for sign in words:
            if self._column == COLUMNS:
                self._column = 0
                self._down()
            row = self.rows[self._row].ljust(self._column)
            self.rows[self._row] = row[: self._column] + sign + row[self._column + 1 :]
            self._column += 1

    @property
    def lines(self) -> list[str]:
        """Everything from the first line on, without the empty ones at the end."""
        lines = [row.rstrip() for row in self.gone + self.rows]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class Terminal:
    """A pty and what came out of it."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.raw, self._over = "", False
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        data = b""
        while True:
            if select.select([self._ours], [], [], 0.005)[0]:
                data += os.read(self._ours, 65536)
                self.raw = data.decode(errors="replace")
            elif self._over:
                return

    def opened(self) -> TextIO:
        """For this process to write to."""
        return open(self.theirs, "w", closefd=False)

    def read(self) -> str:
        """All that came, with what was still under way."""
        before = None
        while before != self.raw:
            before = self.raw
            time.sleep(0.05)
        return self.raw

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def close(self) -> None:
        """It goes away, and whoever has it still open is told."""
        self._over = True
        self._reading.join()
        os.close(self.theirs)
        os.close(self._ours)

    @property
    def screen(self) -> Screen:
        screen = Screen()
        screen.feed(self.raw)
        return screen


class Command:
    """`shunter …` as a process: in pipes, or on a terminal but for the `stdout` that is given."""

    def __init__(self, *words: str, terminal: Terminal | None = None, stdout: Any = None, **env: str) -> None:
        argv = [sys.executable, "-m", "router", *words]
        where = {"stdin": subprocess.DEVNULL, "stdout": stdout or subprocess.PIPE, "stderr": subprocess.PIPE}
        if terminal is not None:  # the first terminal that a session opens is its own: Ctrl-C is for its processes
            argv = ["sh", "-c", 'exec "$@" <"$0"', os.ttyname(terminal.theirs), *argv]
            where = {"stdout": stdout or terminal.theirs, "stderr": terminal.theirs}
        self.process = subprocess.Popen(
            argv, cwd=ROOT, env=os.environ | env, start_new_session=True, bufsize=0, **where
        )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def line(self) -> str:
        """The next line of its stdout, which is a pipe."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def heard(self, characters: int) -> str:
        """So much of its stdout."""
        assert self.process.stdout is not None
        found = b""
        while len(found) < characters and (more := self.process.stdout.read(characters - len(found))):
            found += more
        return found.decode()

    def leave(self) -> None:
        """Close our end of the pipe that its stdout is."""
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.stdout = None

    def ended(self) -> Done:
        """How it ended; an end is waited for, and must come."""
        try:
            out, err = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return Done(self.process.returncode, (out or b"").decode(), (err or b"").decode())

    def close(self) -> None:
        """It runs no longer, and its pipes are closed."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


Start = Callable[..., Command]


@contextmanager
def starting() -> Iterator[Start]:
    """Starts commands; none of them outlives the block."""
    with ExitStack() as stack:
        yield lambda *words, **more: stack.enter_context(closing(Command(*words, **more)))


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal for the length of the block."""
    made = Terminal()
    try:
        yield made
    finally:
        made.close()
