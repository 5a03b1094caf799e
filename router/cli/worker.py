"""worker."""

from typing import Annotated

import typer

from router.cli import options


def worker(
    once: Annotated[bool, typer.Option("--once", help="Move everything that is due, then end.")] = False,
    window: Annotated[
        str | None,
        typer.Option(
            "--window",
            metavar="HOURS",
            help="From now on, bulk work is submitted in these hours only: 01:00-06:00, 22:00-06:00 Europe/Berlin; "
            "always for any hour. Kept for all workers of the database.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Live calls at a time.", min=1, max=1000)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What was done, as JSON on stdout.")] = False,
    log_level: options.LogLevel = None,
    log_file: options.LogFile = None,
) -> None:
    """Move queued jobs and provider batches along, until stopped; with --once, until nothing is due.

    Any number of workers share one database. Ctrl-C, or SIGTERM, ends one cleanly: calls in flight are finished.

    Examples:

      shunter worker --once          for cron, a timer, or by hand

      shunter worker --window 01:00-06:00

      shunter worker --log-level info --log-file worker.log
    """
    from router.working import work

    raise typer.Exit(work(once=once, concurrency=concurrency, json=json, window=window, log=(log_level, log_file)))
