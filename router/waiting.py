"""Waiting in the terminal until jobs are final."""

import asyncio
from datetime import UTC, datetime
from time import monotonic

from db import lookup, workers
from db.engine import Store
from router import show
from router.dispatch import Router
from router.when import local, relative

SILENT_S = 60.0  # after which a worker that does not beat is said to be gone
_LOOK_S = 5.0


class Absence:
    """Whether somebody moves the jobs along that are waited for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._look_at = 0.0
        self._said = False

    def news(self) -> str | None:
        """What to say when no worker has beaten for a minute, once; look as often as you like."""
        if monotonic() < self._look_at:
            return None
        self._look_at = monotonic() + _LOOK_S
        beat, now = workers.last_beat(self._store), datetime.now(UTC)
        gone = beat is None or (now - beat).total_seconds() > SILENT_S
        if gone == self._said:
            return None
        self._said = gone
        if not gone:
            return "a worker runs now"
        since = f"no worker has beaten since {local(beat, now)} ({relative(beat, now)})" if beat else "no worker runs"
        return f"{since}: start one with `shunter worker`, or `shunter worker --once`"


async def until_final(router: Router, job_ids: list[str], submission: str | None = None) -> None:
    """Until every one of the jobs is final; says so while no worker moves them."""
    absence = Absence(router.store)
    with show.progress("waiting", total=None) as told:
        while left := _left(router, job_ids, submission):
            for news in (absence.news(), *router.context().latest()):
                if news:
                    show.say(news)
            told(left)
            await asyncio.sleep(0.5)


def _left(router: Router, job_ids: list[str], submission: str | None) -> int:
    if submission is None:
        return lookup.unfinished(router.store, job_ids)
    states = lookup.counts(router.store, submission)
    return states["queued"] + states["running"] + states["submitted"]
