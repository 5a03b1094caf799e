"""jobs show --follow: an answer as it comes, from another process than the one that asks for it."""

import asyncio
import sys
from contextlib import aclosing
from typing import TextIO

from db import lookup
from db.engine import Store
from db.states import JobState
from jobs.follow import Anew, Heard, Position, follow
from router import show, telling
from router.terminal import clean

DONE, FAILED, INTERRUPTED = 0, 1, 130


def follow_job(store: Store, job_id: str, after: str | None, *, json: bool) -> int:
    """Show what comes until the job is final, or the reader leaves, which changes nothing for the job; exit code."""
    reader = _Reader(Position.read(after) if after else Position(), sys.stdout, json=json)
    try:
        asyncio.run(reader.read(store, job_id))
    except KeyboardInterrupt:
        reader.end_line()
        show.say(f"left; `shunter jobs show {job_id[:8]} --follow --after {reader.at}` goes on from here")
        return INTERRUPTED
    job = lookup.job(store, job_id)
    assert job is not None
    if json:
        show.data({"event": "job"} | job, line=True)
    else:
        reader.end_line()
        telling.ending(job)
    return DONE if job["state"] == JobState.SUCCEEDED else FAILED


class _Reader:
    """Where one reader is, and what it has shown."""

    def __init__(self, at: Position, out: TextIO, *, json: bool) -> None:
        self.at = at
        self._out = out
        self._json = json
        self._in_line = False

    async def read(self, store: Store, job_id: str) -> None:
        """Show what comes."""
        async with aclosing(follow(store, job_id, self.at)) as events:
            async for event in events:
                if isinstance(event, Heard):
                    self.at = event.position
                    self._hear(event)
                elif isinstance(event, Anew):
                    self._anew(event.attempt)

    def _hear(self, event: Heard) -> None:
        delta = event.delta
        if self._json:
            said = {"text": delta.text, "refusal": delta.refusal, "reasoning": delta.reasoning}
            words = {name: piece for name, piece in said.items() if piece}
            show.data({"event": "delta", "position": str(event.position), "choice": delta.choice} | words, line=True)
        elif text := (delta.text if delta.choice == 0 else ""):
            self._out.write(clean(text) if self._out.isatty() else text)
            self._out.flush()
            self._in_line = not text.endswith("\n")

    def _anew(self, attempt: int) -> None:
        if self._json:
            show.data({"event": "anew", "attempt": attempt}, line=True)
        else:
            self.end_line()
            show.say(f"try {attempt} begins anew: what follows replaces what is above")

    def end_line(self) -> None:
        """Leave the cursor at the beginning of a line."""
        if self._in_line and not self._json:
            self._out.write("\n")
            self._out.flush()
            self._in_line = False
