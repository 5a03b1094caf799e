"""submit and explain as a person meets them: what is shown while it runs, and the exit code at the end."""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

from db import lookup
from jobs import live
from jobs.chat import Request
from router import bulk, logs, show, telling
from router.asking import Asked, opened
from router.bulk import Summary
from router.dispatch import Router
from router.intake import Rejects
from router.reading import DONE, INTERRUPTED, Reader
from router.settings import provider_of
from router.voices import Json, Voice, Words
from router.waiting import until_final

SOME_FAILED = 4


# ---- one prompt ----


def submit_prompt(asked: Asked, *, json: bool) -> int:
    """Submit one prompt: its answer on stdout where somebody waits for it, else its id.

    130 when it was interrupted, 141 when its reader closed the pipe; the job is settled in every case.
    """
    router = Router()
    logs.configure(router.settings)
    request = asked.request(router)  # before any signal is watched for: it may read stdin
    voice = Json() if json else Words(markdown=asked.markdown, whole=asked.post_process is not None)
    return asyncio.run(_submit_prompt(router, request, asked, voice))


async def _submit_prompt(router: Router, request: Request, asked: Asked, voice: Voice) -> int:
    try:
        return await Reader(router, request, voice).read(asked.wish(), wait=asked.wait)
    finally:
        _tell(router)
        await router.close()


def _tell(router: Router) -> None:
    """What is new of budgets: the answer on stdout is not interrupted by it."""
    for note in router.context().latest() if router.exists() else ():
        show.say(note)


# ---- a file ----


def submit_file(asked: Asked, *, json: bool) -> int:
    """Submit a file of requests; the refused rows go to a file beside it."""
    asked.check_file()
    router = Router()
    logs.configure(router.settings)
    try:
        return _submit_file(router, asked, json=json)
    except KeyboardInterrupt:
        show.say("stopped: what was accepted is kept; submit the same file again for the rest")
        return INTERRUPTED
    finally:
        asyncio.run(router.close())


def _submit_file(router: Router, asked: Asked, *, json: bool) -> int:
    name = str(asked.file)
    provider = provider_of(router.model(asked.model), router.settings.endpoints)
    router.context().endpoint(provider)
    asyncio.run(_learn(router, provider))
    with opened(name) as source, show.progress(f"submitting {name}", total=None) as told:
        reader = asked.reader(source, router)
        rejects = Rejects(None if name == "-" else Path(name))
        summary = bulk.submit(router, reader, asked.wish(), rejects, name, lambda so_far: told(so_far.rows))
    _report(summary, reader.ignored, json=json)
    if asked.wait and summary.accepted:
        asyncio.run(_wait_for_file(router, summary.submission))
        _tell(router)
        states = lookup.counts(router.store, summary.submission)
        telling.counted(states)
        if states["failed"] or states["cancelled"]:
            return SOME_FAILED
    if not summary.rows:
        show.say(f"{name} has no requests")
    if summary.rejected:
        return SOME_FAILED if summary.accepted or summary.duplicates else summary.exit_code
    return DONE


async def _wait_for_file(router: Router, submission: str) -> None:
    """Run what is due in the live lanes in this process, and wait for the rest."""
    context, running = router.context(), asyncio.Event()
    async with context.holding():
        live_jobs = asyncio.create_task(_run_live(router, running))
        try:
            await until_final(router, [], submission)
        finally:
            running.set()
            await live_jobs
            await context.close()


async def _run_live(router: Router, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await live.drain(router.context(), lambda claim, ended: None, stop)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await stop.wait()


async def _learn(router: Router, provider: str) -> None:
    await router.learn(provider)
    await router.context().close()  # its connections belong to this event loop


def _report(summary: Summary, ignored: Counter[str], *, json: bool) -> None:
    if json:
        names = ("submission", "accepted", "duplicates", "rejected", "rejects_file")
        show.data({name: getattr(summary, name) for name in names})
    elif summary.accepted or not summary.rejected:
        telling.submitted(summary)
    if ignored:
        show.say(f"not sent, since no request has such a field: {', '.join(sorted(ignored))}")
    if summary.duplicates:
        some = ", ".join(summary.skipped) + (", …" if summary.duplicates > len(summary.skipped) else "")
        show.say(f"{summary.duplicates} known already and skipped ({some}); --again runs them again")
    if summary.rejected:
        show.complain(f"{summary.rejected} rejected, {summary.first_reject}; all of them: {summary.rejects_file}")
