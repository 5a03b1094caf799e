"""Waiting in the terminal until jobs are final."""

import asyncio

from db import lookup
from router import show
from router.dispatch import Router

_QUIET_S = 60.0  # without any move, before it is said that no worker seems to run


async def until_final(router: Router, job_ids: list[str], submission: str | None = None) -> None:
    """Until every one of the jobs is final; says so when nothing moves for a minute."""
    quiet, before = 0.0, -1
    with show.progress("waiting", total=None) as told:
        while left := _left(router, job_ids, submission):
            quiet = 0.0 if left != before else quiet + 0.5
            if quiet == _QUIET_S:
                show.say("nothing has moved for a minute: is a worker running? (`shunter worker --once`)")
            before = left
            told(left)
            await asyncio.sleep(0.5)


def _left(router: Router, job_ids: list[str], submission: str | None) -> int:
    if submission is None:
        return lookup.unfinished(router.store, job_ids)
    states = lookup.counts(router.store, submission)
    return states["queued"] + states["running"] + states["submitted"]
