"""Re-pricings and reconciliations as people ask for them and read them."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router import price_table, repricing
from router.figures import count, money, money_column
from router.opening import open_store
from router.settings import load
from router.terminal import RIGHT, SHRINK, clean, console, grouped, say, styled, table
from router.when import period

if TYPE_CHECKING:
    from router.terminal import Group

View = Mapping[str, Any]


def reprice(since: str, until: str | None, prices: Path | None, *, write: bool) -> View:
    """What was sent in that time by the prices that are known now, or by a table's, against the ledger."""
    settings, now = load(), datetime.now(UTC)
    used = price_table.read(prices.expanduser()) if prices else settings.prices
    start, end = period(since, until, now)
    assert start is not None  # it was given
    with closing(open_store(settings)) as store:
        return repricing.reprice(store, settings.endpoints, used, start, end, now, write=write).view()


def repriced(view: View) -> None:
    """What a re-pricing changes, by model and lane; on stderr what stays, and what to do next."""
    rows = view["rows"]
    if not rows:
        say("nothing that says what it used was sent in this time")
        return
    made = table(("model", SHRINK), "lane", *((name, RIGHT) for name in ("attempts", "changed", "was", "is", "more")),
                 show_footer=True)  # fmt: skip
    columns = [
        money_column([row[f"{name}_usd"] for row in (*rows, view)]) for name in ("before", "after", "difference")
    ]
    cells = [[f"{row['attempts']:,}", f"{row['changed']:,}", *prices]
             for row, *prices in zip((*rows, view), *columns, strict=True)]  # fmt: skip
    for row, drawn in zip(rows, cells, strict=False):
        made.add_row(clean(row["model"]), row["lane"], *drawn)
    for column, word in zip(made.columns, ["all", "", *cells[-1]], strict=True):
        column.footer = word
    out = console()
    out.print(made)
    out.print(clean(f"by {view['prices']}"), soft_wrap=True)
    for words in _stays(view):
        out.print(styled(words, "magenta"))
    if view["written"] is None:
        say("nothing was written: --yes appends the differences" if view["changed"] else "nothing differs")
    else:
        say(f"{count(view['written'], 'adjustment')} appended; the old figures stay beside them")


def _stays(view: View) -> list[str]:
    told = []
    if view["became_known"]:
        told.append(f"{count(view['became_known'], 'attempt')} of unknown cost: known by these prices")
    if view["unpriced"]:
        told.append(f"{count(view['unpriced'], 'attempt')} without a known price: left as before")
    if view["reported"]:
        told.append(f"{count(view['reported'], 'attempt')} with a cost that the provider reported: left as before")
    return told


_STYLES = {"same": "green", "doubled": "red", "not in the ledger": "red", "not on the bill": "magenta"}
_MEASURES = {
    "requests": "requests",
    "input_tokens": "tokens in",
    "cached_tokens": "cached",
    "output_tokens": "tokens out",
}


def reconciled(view: View) -> None:
    """What does not agree, with the bill's figures over the ledger's; on stderr what does."""
    wrong = [row for row in view["rows"] if row["verdict"] != "same"]
    if wrong:
        _differences(wrong)
    for words in view["repeated_lines"]:
        console().print(styled(f"the bill repeats itself: {clean(words)}", "red"))
    if view["without_usage"]:
        say(f"{len(view['without_usage']):,} of the batches left out: the provider shows no usage for them")
    if view["unknown_attempts"]:
        say(f"{count(view['unknown_attempts'], 'attempt')} here may have been billed and do not say what they used")
    say(f"{view['same']:,} of {count(view['compared'], 'line')} agree")


def _differences(rows: Sequence[View]) -> None:
    shown = [name for name in _MEASURES if any((row[side] or {}).get(name) for row in rows for side in _SIDES)]
    costs = any((row["billed"] or {}).get("cost_usd") for row in rows)
    names = [*(_MEASURES[name] for name in shown), *(["cost"] if costs else [])]
    groups: list[Group] = [
        (
            [styled(row["verdict"], _STYLES.get(row["verdict"], "yellow")), _what(row)],
            [[side, *_side(row[side] or {}, shown, costs)] for side in _SIDES],
        )
        for row in rows
    ]
    grouped(["", ("what", SHRINK)], ["", *((name, RIGHT) for name in names)], groups, apart=True)


def _side(figures: View, shown: Sequence[str], costs: bool) -> list[str]:
    cells = ["-" if figures.get(name) is None else f"{figures[name]:,}" for name in shown]
    return [*cells, *([money(figures["cost_usd"]) if figures.get("cost_usd") else "-"] if costs else [])]


_SIDES = ("billed", "ledger")


def _what(row: View) -> str:
    """By what a person knows it: a day and a model, or an id."""
    days = sorted({str(row[key])[:10] for key in ("from", "to") if row.get(key)})
    named = [row.get(key) for key in ("model", "request_id", "custom_id", "provider_batch_id")]
    kind = {True: "batch", False: "live", None: ""}[row.get("batch")]
    what = " ".join(str(word) for word in (*days[:1], *named, kind) if word)
    return clean(f"{what}: {row['note']}" if row["note"] else what)
