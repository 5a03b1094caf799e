"""The seam to DBOS Transact, and the only file that imports it: queues, schedules and take-over for many workers.

What a workflow does is a handler in the event loop of the worker, idempotent over rows under a lease. So a workflow is
only a note that says "look at this now"; any worker may take it, and taking it twice does no harm.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from dbos import DBOS, DBOSConfig, SetWorkflowID

from db.beside import Beside
from db.engine import Store, StoreAway, passing
from jobs.errors import ShunterError

Handler = Callable[..., Awaitable[None]]

_NAME = "shunter"
_VERSION = "1"  # of the workflows and their arguments, pinned: else an upgrade would strand what is queued
_KEPT = timedelta(days=7)
_A_PRUNE = 500
_OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class Workflows:
    """DBOS in this process; one at a time. Its methods block: call them in a thread, not in the event loop."""

    _here: ClassVar["Workflows | None"] = None

    def __init__(self, store: Store, owner: str, handlers: Mapping[str, Handler], say: Callable[[str], None]) -> None:
        """`owner` names the process; the handlers, one for each workflow, run in the event loop of now."""
        self._handlers = handlers
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._beside = Beside(store, "dbos")
        self._config: DBOSConfig = {
            "name": _NAME,
            "system_database_engine": self._beside.engine,
            "executor_id": owner,
            "application_version": _VERSION,
            "log_level": "WARNING",
            "use_listen_notify": False,  # nothing here waits for a message
        }
        self._say = say

    def launch(self, queues: Mapping[str, tuple[int, float]]) -> None:
        """Begin to take workflows from the queues: of each, so many at once here, looked for every so many seconds.

        StoreAway when the database restarts just now, ShunterError when it cannot be used.
        """
        _speak(self._say)
        Workflows._here = self
        DBOS(config=self._config)
        try:
            DBOS.launch()
            for queue, (number, seconds) in queues.items():
                # No limit over all workers: one that a dead worker filled would stay full.
                shape: dict[str, Any] = {"worker_concurrency": number, "polling_interval_sec": seconds}
                DBOS.register_queue(queue, on_conflict="always_update", **shape)
        except Exception as error:
            text = f"the worker's queues cannot be opened: {error}"
            raise (StoreAway(text) if passing(error) else ShunterError(text, code="no_queues")) from error

    def start(self, name: str, workflow_id: str, *args: str) -> None:
        """Have one worker do this; a workflow of the same id, queued, running or over, makes it a no-op."""
        with SetWorkflowID(workflow_id):
            DBOS.enqueue_workflow(name, _WORKFLOWS[name], *args)

    def schedule(self, name: str, workflow: str, cron: str, zone: str | None = None) -> None:
        """Start the workflow whenever the cron line says, once over all workers; the line before it is replaced."""
        DBOS.apply_schedules(
            [
                {
                    "schedule_name": name,
                    "workflow_fn": _SCHEDULED[workflow],
                    "schedule": cron,
                    "context": None,
                    "cron_timezone": zone,
                    "queue_name": workflow,
                }
            ]
        )

    def unschedule(self, name: str) -> None:
        """Forget a schedule."""
        if DBOS.get_schedule(name) is not None:
            DBOS.delete_schedule(name)

    def resume(self, dead: str) -> int:
        """Queue anew what a dead worker had begun; how many workflows. What it had only queued is anyone's."""
        begun: dict[str, list[str]] = {}
        for one in DBOS.list_workflows(status="PENDING", executor_id=dead, load_input=False, load_output=False):
            begun.setdefault(one.queue_name or "sweep", []).append(one.workflow_id)
        for queue, ids in begun.items():
            DBOS.resume_workflows(ids, queue_name=queue)
        return sum(map(len, begun.values()))

    def prune(self) -> None:
        """Forget what is over for a week."""
        before = (datetime.now(UTC) - _KEPT).isoformat()
        plain: dict[str, Any] = {"load_input": False, "load_output": False, "limit": _A_PRUNE}
        while old := DBOS.list_workflows(status=_OVER, completed_before=before, **plain):
            DBOS.delete_workflows([one.workflow_id for one in old])
        self._beside.tidy()

    def close(self, seconds: int) -> None:
        """Take nothing more, and let what runs be written down as over, at most so long."""
        try:
            DBOS.destroy(workflow_completion_timeout_sec=seconds)
        finally:
            self._closed = True
            Workflows._here = None
            self._beside.close()

    def call(self, name: str, *args: str) -> None:
        """Run a handler in the event loop, from a thread of DBOS."""
        future = asyncio.run_coroutine_threadsafe(_awaited(self._handlers[name], *args), self._loop)
        while True:
            try:
                return future.result(timeout=1.0)
            except TimeoutError:
                if self._closed or self._loop.is_closed():  # else this thread would keep the process alive
                    return None
            except CancelledError:  # the worker stops: the row says what is left to do
                return None


async def _awaited(handler: Handler, *args: str) -> None:
    await handler(*args)


def _call(name: str, *args: str) -> None:
    if Workflows._here is not None:
        Workflows._here.call(name, *args)


@DBOS.workflow(name="sweep")
def _sweep(at: str) -> None:
    _call("sweep", at)


@DBOS.workflow(name="scheduled_sweep")
def _scheduled_sweep(at: datetime, _context: Any) -> None:
    _call("sweep", at.isoformat())


@DBOS.workflow(name="move_batch")
def _move_batch(batch_id: str) -> None:
    _call("move_batch", batch_id)


@DBOS.workflow(name="live_chunk")
def _live_chunk() -> None:
    _call("live_chunk")


@DBOS.workflow(name="background_chunk")
def _background_chunk() -> None:
    _call("background_chunk")


_WORKFLOWS: dict[str, Callable[..., None]] = {
    "sweep": _sweep, "move_batch": _move_batch, "live_chunk": _live_chunk, "background_chunk": _background_chunk,
}  # fmt: skip
_SCHEDULED = {"sweep": _scheduled_sweep}


class _Says(logging.Handler):
    """What DBOS warns of, in one line, where the worker speaks."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say_it = say

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        self._say_it("dbos: " + (text.splitlines() or [""])[-1 if "Traceback" in text else 0])


def _speak(say: Callable[[str], None]) -> None:
    """DBOS puts up its own log where there is none: with ours in place it writes to no terminal."""
    log = logging.getLogger("dbos")
    log.handlers[:] = [_Says(say)]
    log.propagate = False
