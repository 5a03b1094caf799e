"""batches list, show and cancel."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from db.engine import Store

app = typer.Typer(no_args_is_help=True, help="Look at provider batches, and cancel them.")

Id = Annotated[str, typer.Argument(metavar="ID", help="A batch: its id, the beginning of it, or the provider's own.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1, max=1000)] = 50, json: Json = False
) -> None:
    """Batches, newest first, with how far each is.

    Examples:

      shunter batches list
    """
    from contextlib import closing

    from db import reports
    from router import show
    from router.opening import open_store

    with closing(open_store()) as store:
        rows = reports.batches(store, limit)
    show.data({"batches": rows}) if json else show.batches(rows)


@app.command("show")
def show_(batch: Id, json: Json = False) -> None:
    """One batch: where it is, when it is looked at next, how its jobs stand.

    Examples:

      shunter batches show batch_68f1
    """
    from contextlib import closing

    from router import show
    from router.opening import open_store

    with closing(open_store()) as store:
        row = _find(store, batch)
    show.data(row) if json else show.batch(row)


@app.command()
def cancel(batch: Id, json: Json = False) -> None:
    """Cancel a batch and its jobs. Rows that the provider has done by then are billed, and their answers kept.

    Examples:

      shunter batches cancel 06a3tq
    """
    from contextlib import closing

    from router import show
    from router.opening import open_store

    with closing(open_store()) as store:
        result = _cancel(store, _find(store, batch))
    if json:
        show.data(result)
    there = "; a worker cancels it at the provider (`shunter worker --once`)" if result["at_provider"] else ""
    show.say(f"{result['jobs_cancelled']:,} jobs cancelled{there}")


def _find(store: "Store", word: str) -> dict[str, Any]:
    """The one batch that the word names."""
    from db import reports
    from jobs.errors import UsageError

    found = reports.batch(store, word)
    if not found:
        raise UsageError(f"there is no batch {word!r}; `shunter batches list` shows them", code="not_found")
    if len(found) > 1:
        raise UsageError(f"{word!r} can be any of {', '.join(row['id'] for row in found[:5])}; say which")
    return found[0]


def _cancel(store: "Store", row: dict[str, Any]) -> dict[str, Any]:
    """Its jobs are cancelled, a thousand a transaction; then it is marked for the worker."""
    from datetime import UTC, datetime

    from db import batches, queue, reports
    from jobs.errors import ShunterError

    if row["state"] in ("ended", "imported"):
        raise ShunterError(f"batch {row['id']} is {row['state']}: there is nothing left to cancel", code="ended")
    now, ids = datetime.now(UTC), reports.jobs_in(store, row["id"])
    parts = [ids[first : first + 1000] for first in range(0, len(ids), 1000)]
    marked = batches.cancelling(store, row["id"], now)  # first: a crash after it leaves nothing running by mistake
    cancelled = sum(len(queue.cancel(store, part, now)) for part in parts)
    there = row["state"] in ("submitted", "unsure")
    return {"batch": row["id"], "jobs_cancelled": cancelled, "at_provider": marked and there}
