"""db check as a person meets it: whether every rollup is what its attempts come to, and what was made anew."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from db import rebuilding, reports
from db.money import usd
from db.rebuilding import Differs
from db.words import iso
from router import show
from router.figures import count, money_column
from router.opening import open_store
from router.terminal import RIGHT, console, say, table

View = Mapping[str, Any]

_SHOWN = 20  # quarters in the table; JSON has them all


def check(*, rebuild: bool) -> dict[str, Any]:
    """{"attempts", "days", "differ": [quarters of an hour, stored and right], "rebuilt", "account_balances"}.

    With `rebuild` what differs is made anew; the account is looked at last.
    """
    with closing(open_store()) as store:
        seen = []
        with show.progress("checking", total=None) as told:
            for one in rebuilding.check(store):
                seen.append(one)
                told(len(seen))
        differ = [quarter for day in seen for quarter in day.differs]
        if rebuild:
            for quarter in differ:
                rebuilding.rebuild(store, quarter.begins_at)
        balances = reports.account(store)["balances"]
    return {
        "attempts": sum(day.attempts for day in seen),
        "days": len(seen),
        "differ": [_view(quarter) for quarter in differ],
        "rebuilt": len(differ) if rebuild else None,
        "account_balances": balances,
    }


def _view(quarter: Differs) -> dict[str, Any]:
    (before, after), costs = quarter.attempts, [usd(nano) for nano in quarter.cost_nano]
    counts = {"attempts": before, "right_attempts": after, "cost_usd": costs[0], "right_cost_usd": costs[1]}
    return {"begins_at": iso(quarter.begins_at), **counts, "sums_differ": quarter.sums, "times_differ": quarter.times}


def wrong(view: View) -> bool:
    """Whether something is wrong still."""
    return not view["account_balances"] or (bool(view["differ"]) and view["rebuilt"] is None)


def told(view: View) -> None:
    """Which quarters differ, and what to do."""
    differ = view["differ"]
    if differ:
        _quarters(differ[:_SHOWN])
    if len(differ) > _SHOWN:
        console().print(f"and {count(len(differ) - _SHOWN, 'more quarter')} of an hour")
    of = f"{count(view['attempts'], 'attempt')} of {count(view['days'], 'day')}"
    if not differ:
        say(f"every rollup is what its attempts come to: {of}")
    elif view["rebuilt"] is None:
        say(f"{count(len(differ), 'quarter')} of an hour differ, of {of}: --rebuild makes their rollups anew")
    else:
        say(f"the rollups of {count(len(differ), 'quarter')} of an hour were made anew, of {of}")
    if not view["account_balances"] and not (differ and view["rebuilt"] is None):
        say("the account does not balance all the same: keep a backup (`shunter db backup`) and report it as a bug")


def _quarters(differ: Iterable[View]) -> None:
    rows = list(differ)
    made = table(
        "quarter of an hour", *((name, RIGHT) for name in ("attempts", "really", "cost", "really")), "what differs"
    )
    costs = [money_column([row[name] for row in rows]) for name in ("cost_usd", "right_cost_usd")]
    for row, before, after in zip(rows, *costs, strict=True):
        when = f"{row['begins_at'][:16].replace('T', ' ')} UTC"
        what = ", ".join(name for name in ("sums", "times") if row[f"{name}_differ"])
        made.add_row(when, f"{row['attempts']:,}", f"{row['right_attempts']:,}", before, after, what)
    console().print(made)
