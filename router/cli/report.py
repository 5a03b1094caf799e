"""report cost, latency, savings, errors, forecast and reconcile."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="What it cost, how long it took, what went wrong, and what routing saved.")

By = Annotated[
    str, typer.Option("--by", help="Group by any of lane, class, model, provider, tier, day, hour, tag:NAME.")
]
Since = Annotated[str | None, typer.Option("--since", help="From here on: 7d, 24h, 08:00 or an ISO time.")]
Until = Annotated[str | None, typer.Option("--until", help="Up to here, in the same forms.")]
Zone = Annotated[
    str, typer.Option("--tz", help="Whose days and hours: UTC, as on bills, or Europe/Berlin and the like.")
]
Plot = Annotated[bool, typer.Option("--plot", help="As bars.")]
Csv = Annotated[bool, typer.Option("--csv", help="The rows as CSV.")]
Json = Annotated[bool, typer.Option("--json", help="The whole report as JSON, money exact.")]


@app.command()
def cost(by: By = "lane,model", since: Since = None, until: Until = None, tz: Zone = "UTC", plot: Plot = False,
         csv: Csv = False, json: Json = False) -> None:  # fmt: skip
    """What was paid. Attempts of unknown cost are counted, never taken for free.

    Examples:

      shunter report cost --since 7d --by day --plot

      shunter report cost --by day,tag:project --tz Europe/Berlin --csv > costs.csv
    """
    _report("cost", by, since, until, tz, plot=plot, csv=csv, json=json)


@app.command()
def latency(by: By = "lane", since: Since = None, until: Until = None, tz: Zone = "UTC", plot: Plot = False,
            csv: Csv = False, json: Json = False) -> None:  # fmt: skip
    """How long it took: the first token, between tokens, a live call, the wait to be sent, submit to answer, batches.

    Examples:

      shunter report latency --by model --since 24h --plot
    """
    _report("latency", by, since, until, tz, plot=plot, csv=csv, json=json)


@app.command()
def savings(by: By = "lane", since: Since = None, until: Until = None, tz: Zone = "UTC", plot: Plot = False,
            csv: Csv = False, json: Json = False) -> None:  # fmt: skip
    """What was paid against the same tokens as plain calls, and against the lanes that turned out cheapest.

    Examples:

      shunter report savings --since 30d --by day
    """
    _report("savings", by, since, until, tz, plot=plot, csv=csv, json=json)


@app.command()
def errors(by: By = "lane", since: Since = None, until: Until = None, tz: Zone = "UTC", plot: Plot = False,
           csv: Csv = False, json: Json = False) -> None:  # fmt: skip
    """Attempts without a usable answer, by cause, what they cost, and the jobs that failed for good.

    Examples:

      shunter report errors --since 24h --by model
    """
    _report("errors", by, since, until, tz, plot=plot, csv=csv, json=json)


@app.command()
def forecast(
    submission: Annotated[
        str | None, typer.Argument(help="The id that submit gave; else the newest files.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """What files of requests will have cost in all: a range at first, an estimate once ten rows have ended.

    Examples:

      shunter report forecast
    """
    from contextlib import closing

    from db.forecasts import sums
    from jobs.errors import UsageError
    from router import show
    from router.forecast import view
    from router.opening import open_store

    with closing(open_store()) as store:
        found = [view(one) for one in sums(store, submission)]
    if submission and not found:
        raise UsageError(f"there is no submission {submission!r}; `shunter report forecast` lists the newest")
    show.data(found) if json else show.forecasts(found)


@app.command()
def reconcile(
    bill: Annotated[
        Path | None, typer.Option("--bill", help="A provider's usage or cost export: JSON or CSV.", show_default=False)
    ] = None,
    since: Since = "30d",
    until: Until = None,
    json: Json = False,
) -> None:
    """A provider's bill against the ledger, line by line: what is missing, doubled, different. Exits 1 if any is.

    Every line of --bill is held against the time that it is of itself.

    Without --bill each batch sent since then is held against the usage that its provider shows for it.

    Examples:

      shunter report reconcile --bill usage.json

      shunter report reconcile --since 7d --json
    """
    from datetime import UTC, datetime

    from router import auditing, reconciling, show
    from router.when import period

    start, end = period(since, until, datetime.now(UTC))
    found = reconciling.of_file(bill.expanduser()) if bill else reconciling.of_batches(start, end)
    show.data(found.view()) if json else auditing.reconciled(found.view())
    raise typer.Exit(0 if found.agrees else 1)


def _report(kind: str, by: str, since: str | None, until: str | None, zone: str, *, plot: bool, csv: bool,
            json: bool) -> None:  # fmt: skip
    from contextlib import closing
    from datetime import UTC, datetime

    from db import reports
    from jobs.errors import UsageError
    from router import show
    from router.opening import open_store
    from router.when import period, zone_of

    if plot + csv + json > 1:
        raise UsageError("--plot, --csv and --json are three ways to see a report; write one of them")
    words, named = _words(by), zone_of(zone)
    start, end = period(since, until, datetime.now(UTC))
    with closing(open_store()) as store:
        value = getattr(reports, kind)(store, words, start, end, named)
    if json:
        show.data(value)
    elif csv:
        show.report_csv(kind, value, words)
    elif plot:
        show.plot_report(kind, value, words)
    else:
        show.report(kind, value, words)


def _words(by: str) -> list[str]:
    """The columns to group by; UsageError for one that is none, or is given twice."""
    from db.summing import BY
    from jobs.errors import UsageError

    words = [word.strip() for word in by.split(",") if word.strip()]
    for word in words:
        if word not in BY and not (word.startswith("tag:") and word != "tag:"):
            raise UsageError(f"--by {word!r} is not known; write any of {', '.join(BY)}, tag:NAME")
    if len(set(words)) < len(words):
        raise UsageError(f"--by {by!r} names a column twice")
    return words
