"""Deltas on their way to the log: taken at once, written by one thread in groups, at most 50 ms behind."""

import asyncio
import threading
from collections import deque
from contextlib import suppress
from itertools import groupby

from db.engine import Store
from db.log import Piece, Writer
from db.states import DeltaKind
from jobs.chat import Delta

EVERY_S = 0.035  # between two writes; with the write itself, less than 0.05
IDLE_S = 5.0  # a writer with nothing to do for so long goes home


class Log:
    """What a process writes to the log. Nothing here waits for the database but its own thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Condition()
        self._waiting: list[Entry] = []
        self._thread: threading.Thread | None = None
        self._unwritten: list[Piece] = []
        self._closed = False

    def open(self, job_id: str, n: int) -> "Entry":
        """The log of one attempt."""
        return Entry(self, job_id, n)

    def ready(self) -> None:
        """Get the writer ready while the first delta is waited for."""
        with self._lock:
            self._start()

    def wake(self, entry: "Entry") -> None:
        """There is something to write."""
        with self._lock:
            self._waiting.append(entry)
            self._start()
            self._lock.notify()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="delta-log", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """End the writer; what waits is no longer needed: the words are stored with their attempt."""
        with self._lock:
            self._closed, thread = True, self._thread
            self._lock.notify()
        if thread is not None:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        try:
            writer = Writer(self._store)
        except Exception:  # no descriptor left, say: the next delta tries again
            with self._lock:
                for entry in self._waiting:
                    entry.postpone()
                self._waiting, self._thread = [], None
            return
        try:
            while (entries := self._next()) is not None:
                self._unwritten += [piece for entry in entries for piece in entry.take()]
                with suppress(Exception):  # what can never be written must not end the log of all others
                    if not writer.append(self._unwritten):
                        continue
                self._unwritten = []
        finally:
            writer.close()

    def _next(self) -> "list[Entry] | None":
        """Who has something to write, a moment after the first of them; nobody when it is time to go home."""
        with self._lock:
            self._lock.wait_for(lambda: self._waiting or self._closed, EVERY_S if self._unwritten else IDLE_S)
            if self._waiting and not self._closed:
                self._lock.wait_for(lambda: self._closed, EVERY_S)
            entries, self._waiting = self._waiting, []
            if not (entries or self._unwritten) or self._closed:
                self._thread = None
                return None
            return entries


class Entry:
    """The log of one attempt; deltas are added by one thread and taken by another."""

    def __init__(self, log: Log, job_id: str, n: int) -> None:
        self._log = log
        self._key = job_id, n
        self._deltas: deque[Delta] = deque()
        self._due = False
        self._seq = 0
        self._position = 0

    def add(self, delta: Delta) -> None:
        """Take a delta."""
        self._deltas.append(delta)
        if not self._due:
            self._due = True
            self._log.wake(self)

    def postpone(self) -> None:
        """Nobody writes now: what waits goes with the next delta."""
        self._due = False

    def take(self) -> list[Piece]:
        """What came since the last time, joined where it is of one kind and choice."""
        self._due = False  # first: a delta that comes from now on wakes the writer again
        said: list[tuple[tuple[int, str], str]] = []
        while (delta := self._first()) is not None:
            parts = (("reasoning", delta.reasoning), ("text", delta.text), ("refusal", delta.refusal))
            said += [((delta.choice, kind), text) for kind, text in parts if text]
        runs = groupby(said, key=lambda one: one[0])
        return [self._piece(choice, kind, "".join(text for _, text in run)) for (choice, kind), run in runs]

    def _first(self) -> Delta | None:
        try:
            return self._deltas.popleft()
        except IndexError:  # the attempt may end, and empty it, between any two steps
            return None

    def close(self) -> None:
        """Drop what waits: the words are stored with the attempt."""
        self._deltas.clear()

    def _piece(self, choice: int, kind: str, text: str) -> Piece:
        piece = Piece(*self._key, self._seq, self._position, choice, kind, text)
        self._seq += len(text)
        self._position += len(text) if (choice, kind) == (0, DeltaKind.TEXT) else 0
        return piece
