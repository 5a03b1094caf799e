"""A replay for people: a sentence or two, then the tables, then what could not be told."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.figures import count, money, money_column
from router.terminal import RIGHT, WRAP, clean, console, say, styled, table
from router.whatif import COST, WAIT
from router.when import span

if TYPE_CHECKING:
    from rich.table import Table

View = Mapping[str, Any]


def tell(value: View) -> None:
    """Draw what a replay found, from its JSON form."""
    if not value["jobs"]:
        say("no jobs came in in this time")
        return
    out = console()
    out.print(clean(sentences(value)))
    for made in (_moves(value), _waits(value), _untold(value)):
        if made:
            out.print()
            out.print(made)


def sentences(value: View) -> str:
    """What would have been otherwise, in short."""
    jobs, told = value["jobs"], value["cost"]["jobs"]
    under = f"Under {Path(value['file']).name}"
    if not told:
        words = f"{under} nothing can be told of the cost of {count(jobs, 'job')}"
    elif not value["moved"] and value["cost"]["saved_usd"] == "0":
        words = f"{under} {_same(told)} would have gone the same way, for {money(value['cost']['paid_usd'])}"
    elif value["cost"]["saved_usd"] == "0":
        words = f"{under} {_same(told)} would have cost as much, {money(value['cost']['paid_usd'])}"
    else:
        paid, would = money_column([value["cost"]["paid_usd"], value["cost"]["would_usd"]])
        words = f"{under} {_same(told)} would have cost {would} instead of {paid}{_percent(value['cost'])}"
    due = f"; {_deadlines(value['deadlines'])}" if value["deadlines"]["jobs"] else ""
    return f"{words}{due}.{_rest(value)}"


def _same(jobs: int) -> str:
    return "the same job" if jobs == 1 else f"the same {jobs:,} jobs"


def _percent(cost: View) -> str:
    saved = cost["saved_percent"]
    return f" ({abs(saved):g} % {'less' if saved > 0 else 'more'})" if saved else ""


def _deadlines(value: View) -> str:
    """How many more deadlines would have been missed; a share of a job is one in the long run."""
    missed = value["met"] - value["would_meet"]
    number = round(abs(missed))
    if not number:
        return f"as many deadlines would have been met ({value['met']:,} of {value['jobs']:,})"
    about = "" if float(missed).is_integer() else "about "
    return f"{about}{number:,} {'more' if missed > 0 else 'fewer'} deadline{'s' * (number > 1)} would have been missed"


def _rest(value: View) -> str:
    """How much of all is in the sums."""
    jobs, told = value["jobs"], value["cost"]["jobs"]
    waits = sum(row["jobs"] for row in value["waits"])
    if told == waits == jobs:
        return ""
    parts = [f"{what} of {jobs - known:,}" for what, known in (("the cost", told), ("the wait", waits)) if known < jobs]
    words = f"{jobs - told:,}" if told == waits else " and ".join(parts)
    return f" Of {count(jobs, 'job')} in this time {words} cannot be told: see below."


def _moves(value: View) -> "Table | None":
    if not value["moves"]:
        return None
    made = table(("went", WRAP), ("would have gone", WRAP), *((name, RIGHT) for name in ("jobs", "paid", "would cost")),
                 ("saved", RIGHT), show_footer=True)  # fmt: skip
    told = [row[COST] for row in value["moves"]] + [value["cost"]]
    columns = [money_column([one[name] for one in told]) for name in ("paid_usd", "would_usd", "saved_usd")]
    cells = [[amount if one["jobs"] else "-" for amount in row]
             for one, row in zip(told, zip(*columns, strict=True), strict=True)]  # fmt: skip
    for row, amounts in zip(value["moves"], cells, strict=False):
        to = styled("the same way", "dim") if row["from"] == row["to"] else row["to"]
        some = "" if row[COST]["jobs"] in (0, row["jobs"]) else f" ({row[COST]['jobs']:,} told)"
        made.add_row(row["from"], to, f"{row['jobs']:,}{some}", *amounts)
    _foot(made, ["all", "", f"{sum(row['jobs'] for row in value['moves']):,}", *cells[-1]])
    return made


def _foot(made: "Table", words: Sequence[str]) -> None:
    for column, word in zip(made.columns, words, strict=True):
        column.footer = word


def _waits(value: View) -> "Table | None":
    if not value["waits"]:
        return None
    made = table("class", ("jobs", RIGHT), ("p50 wait", RIGHT), ("would be", RIGHT), ("p95 wait", RIGHT),
                 ("would be", RIGHT))  # fmt: skip
    for row in value["waits"]:
        pairs = [(row["really"][name], row["would"][name]) for name in ("p50_s", "p95_s")]
        made.add_row(row["class"], f"{row['jobs']:,}", *(_span(one) for pair in pairs for one in pair))
    return made


def _span(seconds: float | None) -> str:
    return "longer" if seconds is None else span(seconds)


def _untold(value: View) -> "Table | None":
    if not value["untold"]:
        return None
    made = table(("jobs", RIGHT), "not told", ("because", WRAP))
    words = {(COST, WAIT): "cost, wait", (COST,): "cost", (WAIT,): "wait"}
    for row in value["untold"]:
        made.add_row(f"{row['jobs']:,}", words[tuple(row["lacks"])], clean(row["text"]))
    return made
