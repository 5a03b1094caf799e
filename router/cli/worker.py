"""worker."""

from typing import Annotated

import typer


def worker(
    once: Annotated[bool, typer.Option("--once", help="Move everything that is due, then end.")] = False,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Live calls at a time.", min=1, max=1000)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What was done, as JSON on stdout.")] = False,
) -> None:
    """Move queued jobs and provider batches along, until stopped; with --once, until nothing is due.

    Examples:

      shunter worker --once          for cron, a timer, or by hand

      shunter worker                 looks again whenever something is due; Ctrl-C ends it cleanly
    """
    from router.working import work

    raise typer.Exit(work(once=once, concurrency=concurrency, json=json))
