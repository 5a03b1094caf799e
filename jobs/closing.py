"""When the window for bulk work has closed: one of the workers that share the database has its digest written.

A setting in the database says up to when there are digests, and until when somebody writes the next one: whoever dies
at it is followed by another. So a digest comes once, and again only when its writer died after it had handed it over.
"""

import asyncio
import json
from datetime import datetime, timedelta
from typing import NamedTuple

from db import facts
from db.engine import Store
from jobs import windows
from jobs.context import Context
from jobs.worker import Told

_KEY = "digest"  # of the setting
_WRITING = timedelta(seconds=180)  # for the figures, the file and the command


class _Kept(NamedTuple):
    """There is a digest of the window that `closed`; or `by` then there will be, which begins where the last ended."""

    closed: datetime
    by: datetime | None = None
    since: datetime | None = None

    def __str__(self) -> str:
        return json.dumps([at and at.isoformat() for at in self])

    @classmethod
    def read(cls, text: str) -> "_Kept":
        return cls(*(at and datetime.fromisoformat(at) for at in json.loads(text)))


async def look(context: Context, told: Told) -> None:
    """Have the digest of the last window that closed written, if there is none and nobody is at it."""
    text, now = await context.db(facts.get, windows.KEY), context.clock.now()
    if not (window := windows.parse(text) if text else None):
        return
    opened, closed = window.last(now)
    if since := await context.db(_claim, opened, closed, now):
        lines = await asyncio.to_thread(told.closed, min(since, opened), opened, closed)
        await context.db(facts.put, _KEY, str(_Kept(closed)))
        for line in lines:
            told.note(line)


def begin(store: Store, now: datetime) -> None:
    """A window was set: those that closed before had none of these hours."""
    if window := windows.parse(facts.get(store, windows.KEY) or windows.ALWAYS):
        facts.put(store, _KEY, str(_Kept(window.last(now)[1])))


def _claim(store: Store, opened: datetime, closed: datetime, now: datetime) -> datetime | None:
    """Since when nothing was told, for the one who may tell it now."""
    held = facts.get(store, _KEY)
    kept = _Kept.read(held) if held else _Kept(opened)
    if kept.closed > closed or (kept.closed == closed and (kept.by is None or kept.by > now)):
        return None
    since = kept.since or kept.closed
    return since if facts.swap(store, _KEY, held, str(_Kept(closed, now + _WRITING, since))) else None
