"""submit and explain as a person meets them: what is shown while it runs, and the exit code at the end."""

import asyncio
import contextlib
import sys
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

from db import lookup
from db.settle import Again
from db.states import JobState
from jobs import live
from jobs.chat import Delta
from jobs.runner import Ended
from router import bulk, show, telling
from router.asking import Asked, opened
from router.bulk import Summary
from router.decided import Started
from router.dispatch import Router
from router.intake import Rejects
from router.settings import provider_of
from router.terminal import clean

DONE, FAILED, WRONG, SOME_FAILED, INTERRUPTED = 0, 1, 2, 4, 130

# Errors that the one who asked can put right: another key, model or request.
_THEIRS = ("no_key", "model_not_found", "not_found", "invalid_", "authentication", "permission", "unsupported", "401",
           "403", "404")  # fmt: skip
_QUIET_S = 60.0  # without any move, before --wait says that no worker seems to run


# ---- one prompt ----


def submit_prompt(asked: Asked, *, json: bool) -> int:
    """Submit one prompt: its answer on stdout where somebody waits for it, else its id."""
    voice = _Json() if json else _Words()
    try:
        return asyncio.run(_submit_prompt(Router(), asked, voice))
    except KeyboardInterrupt:
        known = f"; what came is kept: `shunter jobs show {voice.job_id}`" if voice.job_id else ""
        show.say(f"\ncancelled: the connection is closed{known}")
        return INTERRUPTED


async def _submit_prompt(router: Router, asked: Asked, voice: "_Words | _Json") -> int:
    try:
        request = asked.request(router)
        async with aclosing(router.stream(request, asked.wish())) as events:
            async for event in events:
                voice.hear(event)
        if asked.wait:
            await _wait(router, [voice.job_id])
        job = lookup.job(router.store, voice.job_id)
        assert job is not None
        voice.end(job)
        return _exit_code(job)
    finally:
        await router.close()


class _Words:
    """For people: the text on stdout, the rest on stderr."""

    def __init__(self) -> None:
        self.job_id = ""
        self._shown = ""

    def hear(self, event: Started | Delta | Ended) -> None:
        if isinstance(event, Started):
            self.job_id = event.job_id
            if event.known:
                show.say("known by its key: nothing new is sent (--again runs it again)")
        elif isinstance(event, Delta):
            self._shown += event.text
            # What a model says must not steer the terminal; a pipe gets it as it came.
            sys.stdout.write(clean(event.text) if sys.stdout.isatty() else event.text)
            sys.stdout.flush()
        elif isinstance(event, Ended) and isinstance(event.ending, Again):
            show.say(f"try {event.n} failed: {event.ending.error}; trying again")

    def end(self, job: dict[str, Any]) -> None:
        text = job["output"] if job["output"] is not None else job["text"]
        if text and not self._shown:
            sys.stdout.write(clean(text) if sys.stdout.isatty() else text)
        if (self._shown or text) and not (self._shown or text).endswith("\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()
        for call in job["tool_calls"] or ():
            show.data(call)
        if job["state"] == JobState.QUEUED and not text:
            show.text(job["id"])
        telling.ending(job)


class _Json:
    """For programs: one event a line, the job last."""

    def __init__(self) -> None:
        self.job_id = ""

    def hear(self, event: Started | Delta | Ended) -> None:
        match event:
            case Started(job_id, decision, _, known):
                self.job_id = job_id
                show.data({"event": "decision", "job": job_id, "known": known, "decision": decision.json()}, line=True)
            case Delta(text, refusal, reasoning, choice):
                pieces = {"text": text, "refusal": refusal, "reasoning": reasoning}
                said = {name: piece for name, piece in pieces.items() if piece}
                show.data({"event": "delta", "choice": choice} | said, line=True)
            case Ended(n, charge, ending):
                again = isinstance(ending, Again)
                show.data({"event": "attempt", "n": n, "state": charge.state, "again": again, "error": charge.error},
                          line=True)  # fmt: skip

    def end(self, job: dict[str, Any]) -> None:
        show.data({"event": "job"} | job, line=True)
        if job["state"] == JobState.FAILED:
            telling.ending(job)


def _exit_code(job: dict[str, Any]) -> int:
    if job["state"] != JobState.FAILED:
        return INTERRUPTED if job["state"] == JobState.CANCELLED else DONE
    code = job["error"]["code"] or ""
    return WRONG if any(word in code for word in _THEIRS) else FAILED


async def _wait(router: Router, job_ids: list[str], submission: str | None = None) -> None:
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


# ---- a file ----


def submit_file(asked: Asked, *, json: bool) -> int:
    """Submit a file of requests; the refused rows go to a file beside it."""
    asked.check_file()
    router = Router()
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
            await _wait(router, [], submission)
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
