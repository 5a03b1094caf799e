"""Jobs by what they failed of: looked at as groups, and tried again as groups."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from db import queue, reports, triage
from db.engine import Store
from db.states import JobState
from db.triage import Which
from jobs.causes import Cause, causes
from jobs.errors import UsageError
from router.figures import count
from router.naming import job_named
from router.terminal import RIGHT, SHRINK, WIDE, WRAP, clean, complain, console, data, say, styled, table
from router.when import moment

View = Mapping[str, Any]


def which(
    store: Store, state: str | None, error: str | None, model: str | None, batch: str | None, since: str | None
) -> Which:
    """The jobs that the options mean; UsageError for a batch that is none, or a time that is not understood."""
    known_state(state)
    start = moment(since, datetime.now(UTC), past=True) if since else None
    if batch is not None:
        found = reports.batch(store, batch)
        if len(found) != 1:
            many = f"can be any of {', '.join(row['id'] for row in found[:5])}; say which"
            raise UsageError(f"{batch!r} {many if found else 'is no batch; `shunter batches list` shows them'}")
        batch = found[0]["id"]
    return Which(state, error, model, batch, start)


def known_state(word: str | None) -> str | None:
    """The word; UsageError for one that is no state of a job."""
    if word is not None and word not in list(JobState):
        raise UsageError(f"--state {word!r} is not one of {', '.join(JobState)}")
    return word


def grouped(store: Store, chosen: Which, by: str, *, json: bool) -> None:
    """The causes of the jobs' errors, drawn or as {"causes": […], "jobs": …}."""
    if by != "error":
        raise UsageError(f"--by {by!r} is not known: jobs are grouped by error (`shunter report` has other groups)")
    found = causes(triage.cases(store, chosen))
    if json:
        data({"causes": [_view(one) for one in found], "jobs": sum(one.jobs for one in found)})
    elif found:
        _draw(found)
    else:
        say("no jobs with an error")


def _view(cause: Cause) -> dict[str, Any]:
    view = asdict(cause)
    return {"error": view.pop("code"), "jobs": view.pop("jobs"), **view}


def _draw(found: Sequence[Cause]) -> None:
    out = console()
    wide = out.width >= WIDE
    made = table(("jobs", RIGHT), ("error", SHRINK), ("retry", {}), ("for example", WRAP), *(["job"] if wide else []))
    for cause in found:
        words = f"{clean(cause.message)} ({cause.why})"
        made.add_row(f"{cause.jobs:,}", clean(cause.code), styled("can help", "green") if cause.retry else "never",
                     words, *([cause.examples[0]] if wide else []))  # fmt: skip
    out.print(made)
    helped = [cause for cause in found if cause.retry]
    if helped:
        say(f"`shunter jobs retry --error {helped[0].code}` tries {count(helped[0].jobs, 'job')} again")


def are_named(ids: Sequence[str] | None, group: bool, *, dry_run: bool) -> Sequence[str]:
    """The jobs to be tried again, one by one; none where they are meant as a group. UsageError for both, or neither."""
    if bool(ids) == group or (ids and dry_run):
        raise UsageError("name jobs, or a group of them: --error, --model, --batch, --since or --all", code="which")
    return ids or ()


def retry_named(store: Store, words: Sequence[str], *, json: bool) -> int:
    """Queue these jobs again; the exit code: 1 when some could not be."""
    wanted = list(dict.fromkeys(job_named(store, word) for word in words))
    done = set(queue.retry(store, wanted, datetime.now(UTC)))
    rest = reports.states(store, [job_id for job_id in wanted if job_id not in done])
    if json:
        left = [{"id": job_id, "state": state} for job_id, state in rest.items()]
        data({"queued": [job_id for job_id in wanted if job_id in done], "left": left})
    else:
        say(f"{len(done)} queued")
    if rest:
        left_as = ", ".join(f"{job_id} ({state})" for job_id, state in rest.items())
        complain(f"neither failed nor cancelled, or pruned: left as they are: {left_as}")
    return 1 if rest else 0


def retry(store: Store, chosen: Which, *, dry_run: bool, json: bool) -> None:
    """Queue a whole group again, a thousand a transaction; what it comes to is said before."""
    if chosen.state not in triage.ended_badly():
        raise UsageError(f"--state {chosen.state!r}: only failed or cancelled jobs can be tried again")
    found = causes(triage.cases(store, chosen))
    total, never = triage.count(store, chosen), sum(one.jobs for one in found if not one.retry)
    lost = f"; {never:,} of them failed of what a retry does not mend" if never else ""
    say(f"{count(total, f'{chosen.state} job')} {'would be' if dry_run else 'to be'} queued again{lost}")
    queued = 0
    if not dry_run:
        now = datetime.now(UTC)
        queued = sum(len(queue.retry(store, ids, now)) for ids in triage.pages(store, chosen))
        say(f"{queued:,} queued; `shunter worker --once` moves them")
    if json:
        data({"found": total, "never": never, "queued": queued, "dry_run": dry_run})
