"""jobs list, show, cancel, retry, wait and export; `router.cli.settle` is the last one."""

from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.settle import settle

if TYPE_CHECKING:
    from db.engine import Store

app = typer.Typer(no_args_is_help=True, help="Look at jobs, cancel them, try them again, wait for them.")

Ids = Annotated[list[str], typer.Argument(help="Jobs: ids, beginnings of ids, or client keys.", show_default=False)]
State = Annotated[
    str | None, typer.Option("--state", help="queued, running, submitted, succeeded, failed or cancelled.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Error = Annotated[str | None, typer.Option("--error", metavar="CODE", help="Only those that failed of this.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only those of this model.")]
InBatch = Annotated[str | None, typer.Option("--batch", metavar="ID", help="Only those with a row in this batch.")]
Since = Annotated[str | None, typer.Option("--since", help="Submitted since: 7d, 24h or an ISO time.")]


@app.command("list")
def list_(
    state: State = None,
    by: Annotated[str | None, typer.Option("--by", help="error: grouped by what they failed of.")] = None,
    error: Error = None,
    model: Model = None,
    batch: InBatch = None,
    since: Since = None,
    after: Annotated[str | None, typer.Option("--after", help="Older than this job: the `next` of a page.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Jobs on the page.", min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """Jobs, newest first; or why they failed, most frequent first, and whether trying again can help.

    Examples:

      shunter jobs list --state failed

      shunter jobs list --state failed --by error
    """
    from contextlib import closing

    from db import lookup
    from router import show, triaging
    from router.opening import open_store

    with closing(open_store()) as store:
        which = triaging.which(store, state, error, model, batch, since)
        if by is not None:
            triaging.grouped(store, which, by, json=json)
            return
        page = lookup.jobs(store, which=which.where(), after=after, limit=limit)
    show.data(page) if json else show.jobs(page)


@app.command("show")
def show_(
    job: Annotated[str, typer.Argument(metavar="ID", help="A job: its id, the beginning of it, or its client key.")],
    follow: Annotated[bool, typer.Option("--follow", help="Show the answer as it comes, from the beginning.")] = False,
    after: Annotated[
        str | None, typer.Option("--after", metavar="POSITION", help="Follow from where another --follow was left.")
    ] = None,
    json: Json = False,
) -> None:
    """One job: its answer, why it took its lane, and what each attempt cost.

    Examples:

      shunter jobs show 06a3 --json

      shunter jobs show 06a3 --follow
    """
    from contextlib import closing

    from db import lookup
    from router import show
    from router.opening import open_store

    with closing(open_store()) as store:
        if follow or after:
            from router.following import follow_job

            raise typer.Exit(follow_job(store, _find(store, job), after, json=json))
        view = lookup.job(store, _find(store, job))
    assert view is not None
    show.data(view) if json else show.job(view)


@app.command()
def cancel(ids: Ids, json: Json = False) -> None:
    """Cancel jobs wherever they are: one that waits at once, one that runs in the process that runs it.

    What the provider has begun by then may still be billed.

    Examples:

      shunter jobs cancel 06a3tq 06a3tr
    """
    from contextlib import closing

    from router.opening import open_store
    from router.stopping import cancel as stop

    with closing(open_store()) as store:
        wanted = list(dict.fromkeys(_find(store, word) for word in ids))
        raise typer.Exit(stop(store, wanted, json=json))


@app.command()
def retry(
    ids: Annotated[list[str] | None, typer.Argument(help="Jobs: ids, beginnings, or client keys.")] = None,
    state: Annotated[str, typer.Option("--state", help="failed or cancelled.")] = "failed",
    error: Error = None,
    model: Model = None,
    batch: InBatch = None,
    since: Since = None,
    everything: Annotated[bool, typer.Option("--all", help="All of that state.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many there are; change nothing.")] = False,
    json: Json = False,
) -> None:
    """Queue failed or cancelled jobs again: those named, or all that failed of the same thing.

    Examples:

      shunter jobs retry invoice-17

      shunter jobs retry --error http_500 --since 24h --dry-run
    """
    from contextlib import closing

    from router import triaging
    from router.opening import open_store

    named = triaging.are_named(ids, any((error, model, batch, since, everything)), dry_run=dry_run)
    with closing(open_store()) as store:
        if named:
            raise typer.Exit(triaging.retry_named(store, named, json=json))
        which = triaging.which(store, state, error, model, batch, since)
        triaging.retry(store, which, dry_run=dry_run, json=json)


@app.command()
def wait(
    ids: Ids,
    timeout: Annotated[str | None, typer.Option("--timeout", help="At most so long: 90s, 10m, 2h.")] = None,
    json: Json = False,
) -> None:
    """Wait until the jobs are final: exit 0 when all succeeded, 4 when not, 1 when the time was over before.

    Examples:

      shunter jobs wait --timeout 2h invoice-17 && shunter jobs show invoice-17
    """
    from contextlib import closing

    from router import show
    from router.opening import open_store
    from router.when import duration

    limit = duration(timeout).total_seconds() if timeout else None
    with closing(open_store()) as store:
        states = _wait(store, [_find(store, word) for word in ids], limit)
    if json:
        show.data({"jobs": [{"id": job_id, "state": state} for job_id, state in states.items()]})
    raise typer.Exit(0 if set(states.values()) == {"succeeded"} else 4)


@app.command()
def export(
    state: State = None,
    since: Since = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="A new file, for its owner only.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="jsonl, csv, or batch: as the output file of a Batch API, final jobs only.")
    ] = "jsonl",
    after: Annotated[str, typer.Option("--after", metavar="ID", help="Those that came in after this job.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the file of -o where it ends.")] = False,
) -> None:
    """Jobs with their answers, in the order they came in.

    Examples:

      shunter jobs export --state succeeded --since 24h -o answers.jsonl

      shunter jobs export --format batch -o answers.jsonl --resume
    """
    from contextlib import closing
    from datetime import UTC, datetime

    from router import show
    from router.exporting import export_to
    from router.opening import open_store
    from router.triaging import known_state
    from router.when import moment

    start = moment(since, datetime.now(UTC), past=True) if since else None
    with closing(open_store()) as store:
        begin = _find(store, after) if after else ""
        count = export_to(store, known_state(state), start, output, form, begin, resume=resume)
    if output:
        show.say(f"{count:,} job{'' if count == 1 else 's'} written to {output}")


app.command()(settle)


# ---- what they share ----


def _find(store: "Store", word: str) -> str:
    from router.naming import job_named

    return job_named(store, word)


def _wait(store: "Store", ids: list[str], limit: float | None) -> dict[str, str]:
    """Until every job is final; says so while no worker moves them. ShunterError when the time is over."""
    from time import monotonic, sleep

    from db import reports
    from db.states import FINAL
    from jobs.errors import ShunterError
    from router import show
    from router.waiting import Absence

    began, absence = monotonic(), Absence(store)
    with show.progress("waiting", total=len(ids)) as told:
        while True:
            states = reports.states(store, ids)
            left = [job_id for job_id, state in states.items() if state not in FINAL]
            told(len(states) - len(left))
            if not left:
                return states
            if news := absence.news():
                show.say(news)
            if limit is not None and monotonic() - began >= limit:
                raise ShunterError(f"not final in time: {len(left)} of {len(ids)}; they go on", code="timeout")
            sleep(0.25)
