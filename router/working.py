"""The worker and the sandbox as a person meets them."""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

from db import lookup
from db.queue import Claim
from db.states import BatchState
from db.tables import Batch
from jobs import worker
from jobs.errors import UsageError
from jobs.runner import Ended
from jobs.sandbox.settings import SandboxError, SandboxSettings
from router import show, telling
from router.dispatch import Router

DONE, FAILED, SOME_FAILED = 0, 1, 4


class Shift:
    """What one run of a worker did."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.jobs: Counter[str] = Counter()
        self.batches: dict[str, Batch] = {}
        self.troubles: list[str] = []
        self.progress: Callable[[int], None] = lambda done: None

    def told(self) -> worker.Told:
        """What the worker tells as it goes."""
        return worker.Told(self._job, self._batch, self._trouble)

    def _job(self, claim: Claim, ended: Ended) -> None:
        self.jobs[type(ended.ending).__name__.lower()] += 1
        self.progress(self.jobs.total())

    def _batch(self, moved: Batch) -> None:
        before = self.batches.get(moved.id)
        self.batches[moved.id] = moved
        if not self.quiet and (before is None or (before.state, before.status) != (moved.state, moved.status)):
            show.say(telling.batch_line(moved))

    def _trouble(self, message: str) -> None:
        if message not in self.troubles:
            self.troubles.append(message)
            show.complain(message)


def work(*, once: bool, concurrency: int | None, json: bool) -> int:
    """Work until nothing is due, or until told to stop; 4 when jobs failed, 1 when something stood in the way."""
    router = Router()
    if not router.settings.endpoints:
        raise UsageError(
            "no provider is configured: set OPENAI_API_KEY or ANTHROPIC_API_KEY (or a base URL), or try `shunter demo`",
            code="no_key",
        )
    return asyncio.run(_work(router, once=once, concurrency=concurrency, json=json))


async def _work(router: Router, *, once: bool, concurrency: int | None, json: bool) -> int:
    stop, shift = asyncio.Event(), Shift()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, stop)
    before = lookup.counts(router.store)
    context = router.context(concurrency=concurrency) if concurrency else router.context()
    try:
        with show.progress("live calls") as shift.progress:
            if once:
                await worker.once(context, shift.told(), stop)
            else:
                show.say("the worker runs; Ctrl-C ends it")
                await worker.forever(context, shift.told(), stop, router.settings.poll_seconds)
    finally:
        await context.close()
    summary = _summary(shift, before, lookup.counts(router.store))
    if json:
        show.data(summary)
    else:
        telling.worked(summary)
    await router.close()
    if shift.troubles:
        return FAILED
    return SOME_FAILED if summary["done"]["failed"] else DONE


def _summary(shift: Shift, before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
    done = {state: after[state] - before[state] for state in ("succeeded", "failed", "cancelled")}
    left = {state: after[state] for state in ("queued", "running", "submitted")}
    imported = sum(1 for moved in shift.batches.values() if moved.state == BatchState.IMPORTED)
    return {"done": done, "left": left, "batches_imported": imported, "troubles": shift.troubles}


def _stop(stop: asyncio.Event) -> None:
    show.say("stopping: calls in flight are finished and kept; again to end at once")
    stop.set()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)


def serve_sandbox(settings: SandboxSettings) -> None:
    """Run the sandbox until Ctrl-C."""
    from jobs.sandbox.server import serve

    def ready(url: str) -> None:
        show.say(f"sandbox at {url} (Ctrl-C ends it). Its answers are made up. To use it:")
        show.say(f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=sk-sandbox")
        show.say(f"  export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=sk-sandbox")

    try:
        with contextlib.suppress(KeyboardInterrupt):
            serve(settings, on_ready=ready)
    except SandboxError as error:
        raise UsageError(str(error)) from None
