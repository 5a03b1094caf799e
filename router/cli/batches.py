"""batches list, show, cancel, adopt and resubmit."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from db.engine import Store

app = typer.Typer(
    no_args_is_help=True, help="Look at provider batches, cancel them, and decide for those that stand still."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="A batch: its id, the beginning of it, or the provider's own.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command("list")
def list_(
    background: Annotated[bool, typer.Option("--background", help="Responses in the background, a row each.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """Batches, newest first: how far each is, when it may end, what it cost (with ~: may cost in all).

    Examples:

      shunter batches list
    """
    from contextlib import closing

    from db import reports
    from router import show
    from router.opening import open_store

    with closing(open_store()) as store:
        rows = _told(store, reports.batches(store, limit, "background" if background else "batch"))
    show.data({"batches": rows}) if json else show.batches(rows)


@app.command("show")
def show_(batch: Id, json: Json = False) -> None:
    """One batch: where it is, when it may end, when it is looked at next, how its jobs stand, what it costs.

    Examples:

      shunter batches show batch_68f1
    """
    from contextlib import closing

    from router import show
    from router.opening import open_store

    with closing(open_store()) as store:
        (row,) = _told(store, [_find(store, batch)])
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


@app.command()
def adopt(
    batch: Id,
    provider_id: Annotated[str, typer.Argument(metavar="PROVIDER_ID", help="The batch at the provider.")],
    force: Annotated[bool, typer.Option("--force", help="On your word, where nothing shows whose it is.")] = False,
    json: Json = False,
) -> None:
    """Tell a batch whose create got no clear answer which one at the provider it is; a worker then goes on with it.

    Its metadata, its file or its results must show that it is this batch's.

    Examples:

      shunter batches adopt 06a3tq batch_68f1
    """
    from contextlib import closing

    from router import show, stuck
    from router.opening import open_store

    with closing(open_store()) as store:
        row = _find(store, batch)
    result = stuck.adopt(row["id"], provider_id, force=force)
    if json:
        show.data(result)
    show.say(f"batch {row['id']} is {provider_id}, which is {result['status']}; a worker polls and imports it")


@app.command()
def resubmit(
    batch: Id,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Send the open rows of a batch again that is unsure, forgotten or stuck. They may be paid twice.

    Their tries stay on the ledger as unknown, with what they may have cost at risk; late answers still settle them.

    Examples:

      shunter batches resubmit 06a3tq
    """
    from contextlib import closing

    from router import show, stuck
    from router.opening import open_store

    with closing(open_store()) as store:
        row = _find(store, batch)
        asked = stuck.twice(store, row["id"])
    _agree(asked, yes=yes)
    result = stuck.resubmit(row["id"])
    if json:
        show.data(result)
    show.say(stuck.said(result))


def _agree(what: str, *, yes: bool) -> None:
    """Ask at a terminal; elsewhere only --yes will do. Refused when it is not wanted."""
    import sys

    from jobs.errors import Refused

    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{what}; --yes does it", code="not_confirmed")
    if not typer.confirm(f"{what}. Go on?", err=True):
        raise Refused("nothing was changed", code="not_confirmed")


def _told(store: "Store", rows: "list[dict[str, Any]]") -> "list[dict[str, Any]]":
    from router import looking, rules
    from router.settings import load

    return looking.batches(store, rows, rules.load(load().policy))


def _find(store: "Store", word: str) -> dict[str, Any]:
    from router.looking import the_batch

    return the_batch(store, word)


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
