"""report cost, latency, savings and forecast."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="What it cost, how long it took, and what routing saved.")

By = Annotated[str, typer.Option("--by", help="Group by any of lane, class, model, provider, tier, day, tag:NAME.")]
Since = Annotated[str | None, typer.Option("--since", help="From here on: 7d, 24h, 08:00 or an ISO time.")]
Until = Annotated[str | None, typer.Option("--until", help="Up to here, in the same forms.")]
Csv = Annotated[bool, typer.Option("--csv", help="The rows as CSV.")]
Json = Annotated[bool, typer.Option("--json", help="The whole report as JSON, money exact.")]


@app.command()
def cost(by: By = "lane,model", since: Since = None, until: Until = None, csv: Csv = False, json: Json = False) -> None:
    """What was paid. Attempts of unknown cost are counted, never taken for free. Days are UTC days.

    Examples:

      shunter report cost --since 7d

      shunter report cost --by day,tag:project --csv > costs.csv
    """
    _report("cost", by, since, until, csv=csv, json=json)


@app.command()
def latency(by: By = "lane", since: Since = None, until: Until = None, csv: Csv = False, json: Json = False) -> None:
    """How long it took: to the first token, a whole live call, until a job was sent, and from submit to the answer.

    Examples:

      shunter report latency --by model --since 24h
    """
    _report("latency", by, since, until, csv=csv, json=json)


@app.command()
def savings(by: By = "lane", since: Since = None, until: Until = None, csv: Csv = False, json: Json = False) -> None:
    """What was paid against what the same tokens cost as plain calls at the standard price.

    Examples:

      shunter report savings --since 30d --by day
    """
    _report("savings", by, since, until, csv=csv, json=json)


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


def _report(kind: str, by: str, since: str | None, until: str | None, *, csv: bool, json: bool) -> None:
    from contextlib import closing
    from datetime import UTC, datetime

    from db import reports
    from router import show
    from router.opening import open_store
    from router.when import moment

    now, words = datetime.now(UTC), _words(by)
    start, end = (moment(text, now, past=True) if text else None for text in (since, until))
    with closing(open_store()) as store:
        value = {"cost": reports.cost, "latency": reports.latency, "savings": reports.savings}[kind](
            store, words, start, end
        )
    if json:
        show.data(value)
    elif csv:
        show.report_csv(kind, value, words)
    else:
        show.report(kind, value, words)


def _words(by: str) -> list[str]:
    """The columns to group by; UsageError for one that is none, or is given twice."""
    from db.reports import BY
    from jobs.errors import UsageError

    words = [word.strip() for word in by.split(",") if word.strip()]
    for word in words:
        if word not in BY and not (word.startswith("tag:") and word != "tag:"):
            raise UsageError(f"--by {word!r} is not known; write any of {', '.join(BY)}, tag:NAME")
    if len(set(words)) < len(words):
        raise UsageError(f"--by {by!r} names a column twice")
    return words
