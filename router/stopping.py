"""jobs cancel: what waits is cancelled at once; what a worker, a server or a terminal runs is stopped there."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from db import stops
from db.engine import Store
from db.states import FINAL, JobState
from jobs.stopping import until_final
from router import show

DONE, FAILED = 0, 1


def cancel(store: Store, job_ids: Sequence[str], *, json: bool) -> int:
    """Cancel the jobs, and say what became of each; 1 when some are not cancelled, or not yet."""

    async def look() -> dict[str, JobState]:
        return await asyncio.to_thread(stops.stop, store, wanted, datetime.now(UTC))

    before = stops.states(store, job_ids)
    wanted = [job_id for job_id in job_ids if before[job_id] not in FINAL]
    states = before | (asyncio.run(until_final(look)) if wanted else {})
    cancelled = [job_id for job_id in wanted if states[job_id] is JobState.CANCELLED]
    stopping = [job_id for job_id in wanted if states[job_id] not in FINAL]
    left = {job_id: states[job_id] for job_id in job_ids if job_id not in (*cancelled, *stopping)}
    if json:
        told = [{"id": job_id, "state": state} for job_id, state in left.items()]
        show.data({"cancelled": cancelled, "stopping": stopping, "left": told})
    else:
        show.say(f"{len(cancelled)} cancelled")
    if stopping:
        show.complain(
            f"still stopping where they run: {', '.join(stopping)}; `shunter jobs show ID` says when they have"
        )
    if left:
        named = ", ".join(f"{job_id} ({state})" for job_id, state in left.items())
        show.complain(f"final already: left as they are: {named}")
    return FAILED if stopping or left else DONE
