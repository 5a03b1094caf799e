"""Reports as tables and as CSV, and the account."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from router.figures import ago, count, money, money_column
from router.terminal import RIGHT, SHRINK, WIDE, Column, clean, console, csv, fields, grouped, say, state, styled, table
from router.when import span

View = Mapping[str, Any]

PERCENTILES = ("p50", "p90", "p95", "p99")
MEASURES = {  # what a latency report measures: its name for people, and the unit in seconds
    "first_token_ms": ("first token", 0.001),
    "gap_ms": ("between tokens", 0.001),
    "call_ms": ("whole call", 0.001),
    "wait_s": ("wait to be sent", 1.0),
    "turnaround_s": ("submit to answer", 1.0),
    "batch_s": ("row of a batch", 1.0),
}
_TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_CSV = {
    "cost": ("jobs", "attempts", *_TOKENS, "cost_usd", "standard_usd", "unknown_attempts"),
    "savings": ("attempts", "unknown_attempts", "paid_usd", "standard_usd", "saved_usd", "saved_percent", "best_usd"),
    "errors": ("state", "error", "attempts", "of_attempts", "percent", "cost_usd", "unknown_attempts", "at_risk_usd"),
    "latency": tuple(f"{measure}_{part}" for measure in MEASURES for part in ("count", *PERCENTILES)),
}


def report(kind: str, value: View, by: Sequence[str]) -> None:
    """Draw a report of this kind: cost, latency, savings or errors."""
    if not value["rows"]:
        say(nothing(value))
        return
    {"cost": _cost, "latency": _latency, "savings": _savings, "errors": _errors}[kind](value, by)


def nothing(value: View) -> str:
    """What a report without rows says."""
    whole = value.get("of_attempts")
    return f"all of {count(whole, 'attempt')} brought an answer" if whole else "nothing was sent in this time"


def forecasts(found: Sequence[View]) -> None:
    """What files will have cost: paid so far, and all of it with its range."""
    if not found:
        say("no file was submitted yet")
        return
    made = table(("file", SHRINK), ("rows", RIGHT), ("ended", RIGHT), ("paid", RIGHT), ("in all", RIGHT), "between")
    for one in found:
        parts = money_column([one["paid_usd"], one["expected_usd"], one["low_usd"], one["high_usd"]])
        between = f"{parts[2].strip()} and {parts[3].strip()}"
        sure = "that is all" if one["finished"] == one["rows"] else between
        made.add_row(clean(one["source"]), f"{one['rows']:,}", f"{one['finished']:,}", parts[0], parts[1],
                     sure if one["expected_usd"] else "a price is unknown")  # fmt: skip
    console().print(made)


def report_csv(kind: str, value: View, by: Sequence[str]) -> None:
    """The rows of a report as CSV; the percentiles of a latency report are columns of their own."""
    csv([*by, *_CSV[kind]], (_flat(row) for row in value["rows"]))


def _flat(row: View) -> View:
    flat = dict(row)
    for measure in MEASURES:
        for part, number in (flat.pop(measure, None) or {}).items():
            flat[f"{measure}_{part}"] = number
    return flat


def names(row: View, by: Iterable[str]) -> list[str]:
    """What a row is called, in the words that it is grouped by."""
    return ["-" if row[word] is None else clean(str(row[word])) for word in by]


def _totals(by: Sequence[str]) -> list[str]:
    return ["all", *[""] * (len(by) - 1)] if by else []


def _by(by: Iterable[str]) -> list[Column]:
    """The columns to group by: long names give way before figures do, a day or a lane cut off says nothing."""
    return [word if word in ("day", "hour", "lane") else (word, SHRINK) for word in by]


def _cost(value: View, by: Sequence[str]) -> None:
    out, rows = console(), value["rows"]
    counts = {"jobs": "jobs", "attempts": "attempts", "input_tokens": "tokens in", "output_tokens": "tokens out"}
    if len(by) > 2 and out.width < WIDE:
        counts = {"attempts": "attempts"}
    after = {"unknown_attempts": "unknown"} if value["unknown_attempts"] else {}
    heads = [*counts.values(), "cost", *after.values()]
    costs = money_column([row["cost_usd"] for row in rows] + [value["total_usd"]])
    groups = [
        (names(row, by), [[*_numbers(row, counts), cost, *_numbers(row, after)]])
        for row, cost in zip(rows, costs, strict=False)
    ]
    sums = {name: sum(row[name] for row in rows) for name in (*counts, *after)}
    foot = [*_totals(by), *_numbers(sums, counts), costs[-1], *_numbers(sums, after)]
    grouped(_by(by), [(name, RIGHT) for name in heads], groups, foot if by else ())
    if value["unknown_attempts"]:
        out.print(styled(_unknown(value), "magenta"))


def _numbers(row: View, names: Iterable[str]) -> list[str]:
    return ["" if row[name] is None else f"{row[name]:,}" for name in names]


def _unknown(value: View) -> str:
    sent = f" ({value['open_attempts']:,} still on their way)" if value["open_attempts"] else ""
    risk = f", up to {money(value['at_risk_usd'])} at risk" if value["at_risk_usd"] != "0" else ""
    return f"{count(value['unknown_attempts'], 'attempt')} of unknown cost{sent}{risk}"


def _savings(value: View, by: Sequence[str]) -> None:
    rows = [*value["rows"], value]
    heads = ("attempts", "paid", "as plain calls", "saved", "%")
    columns = [money_column([row[name] for row in rows]) for name in ("paid_usd", "standard_usd", "saved_usd")]
    percents = ["-" if row["saved_percent"] is None else f"{row['saved_percent']:.1f}" for row in rows]
    cells = [[f"{row['attempts']:,}", *money, percent]
             for row, *money, percent in zip(rows, *columns, percents, strict=True)]  # fmt: skip
    groups = [(names(row, by), [drawn]) for row, drawn in zip(value["rows"], cells, strict=False)]
    grouped(_by(by), [(name, RIGHT) for name in heads], groups, [*_totals(by), *cells[-1]] if by else ())
    out = console()
    if value["unknown_attempts"]:
        out.print(styled(f"{count(value['unknown_attempts'], 'attempt')} left out: cost or price unknown", "magenta"))
    out.print(_in_hindsight(value))


def _in_hindsight(value: View) -> str:
    """What was paid against the best lanes, as it turned out."""
    missed = Decimal(value["paid_usd"]) - Decimal(value["best_usd"])
    if missed <= 0:
        return "in hindsight no lane that was used here would have been cheaper"
    best, more = money_column([value["best_usd"], str(missed)])
    return f"in hindsight, the cheapest lane that each class and model used would have made it {best}, {more} less"


def _errors(value: View, by: Sequence[str]) -> None:
    out, rows = console(), value["rows"]
    heads = ("attempts", "of all", "cost", "at risk")
    columns = [money_column([row[name] for row in (*rows, value)]) for name in ("cost_usd", "at_risk_usd")]
    cells = [[f"{row['attempts']:,}", f"{row['percent']:g}%", *money]
             for row, *money in zip((*rows, value), *columns, strict=True)]  # fmt: skip
    groups = [
        (names(row, by), [[clean(row["error"] or "-"), state(row["state"]), *drawn]])
        for row, drawn in zip(rows, cells, strict=False)
    ]
    shown: list[Column] = [("error", SHRINK), "state", *((name, RIGHT) for name in heads)]
    grouped(_by(by), shown, groups, [*([""] * len(by)), "all", "", *cells[-1]])
    if failed := value["jobs_failed"]:
        causes = ", ".join(f"{row['jobs']:,} {row['error'] or 'without a cause'}" for row in failed[:5])
        jobs = sum(row["jobs"] for row in failed)
        out.print(clean(f"{count(jobs, 'job')} failed for good: {causes}{', …' if len(failed) > 5 else ''}"))


def _latency(value: View, by: Sequence[str]) -> None:
    rows = [(names(row, by), _measured(row)) for row in value["rows"]]
    groups = [*rows, (_totals(by), _measured(value))] if len(rows) > 1 else rows
    grouped(_by(by), ["", *((name, RIGHT) for name in ("count", *PERCENTILES))], groups, apart=True)
    console().print(styled(f"each within {value['relative_error'] * 100:g} % of the exact percentile", "dim"))


def _measured(row: View) -> list[list[str]]:
    return [
        [label, f"{row[name]['count']:,}", *(span(row[name][part] * unit) for part in PERCENTILES)]
        for name, (label, unit) in MEASURES.items()
        if row[name]
    ]


def budgets(rows: Sequence[View], waiting: int) -> None:
    """Budgets by name, and how many jobs wait for room."""
    if not rows:
        say("no budgets: `shunter budget set NAME --usd 5 --per day` sets one")
        return
    now, names = datetime.now(UTC), ("limit", "spent", "set aside", "left", "until")
    made = table("budget", ("for", SHRINK), *((name, RIGHT) for name in names))
    columns = [money_column([row[f"{name}_usd"] for row in rows]) for name in ("limit", "spent", "reserved", "left")]
    for row, limit, *others in zip(rows, *columns, strict=True):
        per = f"{limit} {'in all' if row['per'] == 'total' else 'a ' + row['per']}"
        until = ago(row["ends_at"], now) if row["ends_at"] else ""
        cells = [clean(row["name"]), clean(row["tag"] or "all"), per, *others, until]
        made.add_row(*(styled(cell, "yellow" if row["nearly_used"] else "") for cell in cells))
    console().print(made)
    for row in rows:
        if row["nearly_used"]:
            say(f"{row['name']}: {_gone(row['left_usd'])}")
    if waiting:
        say(f"{count(waiting, 'job')} wait for room: `shunter budget set NAME --usd N` makes some")


def _gone(left_usd: str) -> str:
    left = float(left_usd)
    if left < 0:
        return f"over its limit by {money(left_usd.removeprefix('-'))}, so that nothing more fits"
    return "used up: all of it is spent or set aside" if left == 0 else "more than 80% is spent or set aside"


def account(value: View) -> None:
    """The account: what was accepted against the states, the attempts against the report."""
    states = ("queued", "running", "submitted", "succeeded", "failed", "cancelled")
    held = " + ".join(f"{value[state]:,} {state}" for state in states if value[state]) or "0"
    balance = styled("balances", "green") if value["balances"] else styled("DOES NOT BALANCE", "bold red")
    console().print(
        fields(
            [
                ("accepted", f"{value['accepted']:,} = {held}"),
                ("paid", f"{money(value['attempts_usd'])} over {count(value['attempts'], 'attempt')}"),
                ("unknown", _unknown(value) if value["unknown_attempts"] else None),
                ("account", balance),
            ]
        )
    )
