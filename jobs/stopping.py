"""What runs here and can be stopped from any other process: a wish in the database is seen within a second or two."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic

from db.states import FINAL, JobState

LOOK_S = 1.0  # between two looks for wishes, while anything runs here
PATIENCE_S = 5.0  # of whoever asked, for the end of what another process runs
_AGAIN_S = 0.1


class Running:
    """The jobs that run here, each with the task that carries it."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopped: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def begin(self, job_id: str, task: "asyncio.Task[None]") -> None:
        """The task runs this job until it is done."""
        self._tasks[job_id] = task

    def end(self, job_id: str) -> None:
        """It does not run any more."""
        self._tasks.pop(job_id, None)
        self._stopped.discard(job_id)

    def stopped(self, job_id: str) -> bool:
        """Whether somebody wanted it to stop: then it is cancelled for good, and is no work for later."""
        return job_id in self._stopped

    async def stop(self, job_ids: Iterable[str]) -> None:
        """Cancel those of them that run in this event loop; their tasks settle them."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step does nothing at all
        here = asyncio.get_running_loop()
        for job_id in job_ids:
            task = self._tasks.get(job_id)
            if task is not None and task.get_loop() is here and job_id not in self._stopped:
                self._stopped.add(job_id)
                task.cancel()


async def until_final(look: Callable[[], Awaitable[dict[str, JobState]]]) -> dict[str, JobState]:
    """Look until every state is final, or patience is over; the states then."""
    end = monotonic() + PATIENCE_S
    while True:
        states = await look()
        if FINAL.issuperset(states.values()) or monotonic() >= end:
            return states
        await asyncio.sleep(_AGAIN_S)
