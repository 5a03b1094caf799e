"""The worker and the sandbox as a person meets them."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from db import digests, facts, lookup
from db.queue import Claim
from db.states import BatchState
from db.tables import Batch
from jobs import closing, fleet, windows, worker
from jobs.errors import UsageError
from jobs.presence import Gone
from jobs.runner import Ended
from jobs.sandbox.settings import SandboxError, SandboxSettings
from router import digest, logs, show, telling
from router.dispatch import Router
from router.watching import Watch

Log = tuple[str | None, str | None]  # its level and its file, as flags

DONE, FAILED, SOME_FAILED, INTERRUPTED = 0, 1, 4, 130


class Shift:
    """What one run of a worker did."""

    def __init__(self, *, quiet: bool = False, watch: Watch | None = None) -> None:
        self.quiet = quiet
        self.jobs: Counter[str] = Counter()
        self.batches: dict[str, Batch] = {}
        self.troubles: list[str] = []
        self._watch = watch
        self._noted = ""

    def told(self) -> worker.Told:
        """What the worker tells as it goes."""
        return worker.Told(self._job, self._batch, self._trouble, self._note)

    def _job(self, claim: Claim, ended: Ended) -> None:
        self.jobs[type(ended.ending).__name__.lower()] += 1
        if self._watch:
            self._watch.call()

    def _batch(self, moved: Batch) -> None:
        before = self.batches.get(moved.id)
        self.batches[moved.id] = moved
        if not self.quiet and (before is None or (before.state, before.status) != (moved.state, moved.status)):
            self._say(telling.batch_line(moved))

    def _trouble(self, message: str) -> None:
        if message not in self.troubles:
            self.troubles.append(message)
            with self._watch.aside() if self._watch else contextlib.nullcontext():
                show.complain(message)

    def _note(self, message: str) -> None:
        if message != self._noted:
            self._noted = message
            self._say(message)

    def _say(self, message: str) -> None:
        with self._watch.aside() if self._watch else contextlib.nullcontext():
            show.say(message)


def work(*, once: bool, concurrency: int | None, json: bool, window: str | None = None, log: Log = (None, None)) -> int:
    """Work until nothing is due, or until told to stop; with `once`, 4 when jobs failed, 1 for a trouble.

    130 when it was told twice to stop, and cut off what ran.
    """
    router = Router()
    if not router.settings.endpoints:
        raise UsageError(
            "no provider is configured: set OPENAI_API_KEY or ANTHROPIC_API_KEY (or a base URL), or try `shunter demo`",
            code="no_key",
        )
    logs.configure(router.settings, *log)
    set_window(router, window or router.settings.window)
    _share_one_heap()
    try:
        return asyncio.run(_work(router, once=once, concurrency=concurrency, json=json))
    except asyncio.CancelledError:
        return INTERRUPTED


def _share_one_heap() -> None:
    """glibc gives each thread a heap, and each keeps what was freed in it: the worker's threads only take turns."""
    arena_max = -8  # mallopt's M_ARENA_MAX
    with contextlib.suppress(Exception):  # another C library needs nothing
        import ctypes

        ctypes.CDLL(None).mallopt(arena_max, 1)


def set_window(router: Router, text: str | None) -> None:
    """Keep the hours for bulk work in the database, where the policy and the other workers find them."""
    if text:
        window = windows.parse(text)
        kept = str(window) if window else windows.ALWAYS
        if facts.get(router.store, windows.KEY) != kept:
            facts.put(router.store, windows.KEY, kept)
            closing.begin(router.store, datetime.now(UTC))
            show.say(f"bulk work is submitted {f'from {kept}' if window else 'at any hour'} from now on")


async def _work(router: Router, *, once: bool, concurrency: int | None, json: bool) -> int:
    watch = Watch(router.store)
    logs.beside(watch.aside)
    stop, shift = asyncio.Event(), Shift(watch=watch)
    _obey_signals(stop, shift)
    before, began = lookup.counts(router.store), datetime.now(UTC)
    context = router.context(concurrency=concurrency) if concurrency else router.context()
    try:
        async with watch.shown():
            if once:
                await worker.once(context, shift.told(), stop)
            else:
                show.say(f"worker {context.owner} runs; Ctrl-C ends it")
                told = replace(shift.told(), closed=partial(_closed, router))
                await fleet.run(context, told, stop, router.settings.poll_seconds)
    except Gone as error:
        show.complain(str(error))
        sys.stderr.flush()
        os._exit(FAILED)  # threads that wait for the database would keep the process for ever
    finally:
        await context.close()
    summary = _summary(shift, before, lookup.counts(router.store))
    nightly = not once and facts.get(router.store, windows.KEY) not in (None, windows.ALWAYS)
    _tell(router, shift, summary, began, json=json, nightly=nightly)
    await router.close()
    if not once:
        return DONE  # what stood in the way was said when it did, and may be over since
    if shift.troubles:
        return FAILED
    return SOME_FAILED if summary["done"]["failed"] else DONE


def _tell(router: Router, shift: Shift, summary: dict[str, Any], began: datetime, *, json: bool,
          nightly: bool) -> None:  # fmt: skip
    """What was done, and the digest; a run in which nothing ended leaves the last one's where it is.

    Of a worker that goes by a window, it is said here only: what is written is the digest of the window.
    """
    value = digests.since(router.store, began, datetime.now(UTC))
    if not nightly:
        for trouble in _written(router, value):
            shift.told().trouble(trouble)
    if json:
        show.data(summary | {"digest": value})
        return
    telling.worked(summary)
    for line in digest.lines(value):
        show.say(line)


def _written(router: Router, value: dict[str, Any]) -> list[str]:
    """Hand the digest over, if anything ended; what went wrong."""
    if not any(one and (one["attempts"] or any(one["done"].values())) for one in (value, value.get("before"))):
        return []
    return digest.hand_over(value, router.settings.digest_file, router.settings.digest_command)


def _closed(router: Router, since: datetime, opened: datetime, closed: datetime) -> list[str]:
    """The digest of a window that closed, with what ended since the last one, handed over; what to say of it."""
    value = digests.of_window(router.store, since, opened, closed)
    head = f"the window closed at {closed:%Y-%m-%d %H:%M} UTC: {digest.done(value) or 'no job ended in it'}"
    return [head, *digest.lines(value), *_written(router, value)]


def _obey_signals(stop: asyncio.Event, shift: Shift) -> None:
    """Told once, it ends what runs; told twice, it cuts that off and settles it; the third time ends the process."""
    loop, work = asyncio.get_running_loop(), asyncio.current_task()
    assert work is not None
    signals = (signal.SIGINT, signal.SIGTERM)

    def obey() -> None:
        if not stop.is_set():
            shift.told().note("stopping: calls in flight are finished and kept; again to end at once")
            stop.set()
            return
        for number in signals:
            loop.remove_signal_handler(number)
        work.cancel()

    for number in signals:
        loop.add_signal_handler(number, obey)


def _summary(shift: Shift, before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
    done = {state: after[state] - before[state] for state in ("succeeded", "failed", "cancelled")}
    left = {state: after[state] for state in ("queued", "running", "submitted")}
    imported = sum(1 for moved in shift.batches.values() if moved.state == BatchState.IMPORTED)
    return {"done": done, "left": left, "batches_imported": imported, "troubles": shift.troubles}


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
