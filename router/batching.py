"""Provider batches as tables: how far they are, when they may end, what they cost."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from router.figures import ago, moment, money, money_column, short
from router.terminal import RIGHT, SHRINK, WIDE, bar, clean, console, fields, say, sign, state, styled, table

if TYPE_CHECKING:
    from rich.console import RenderableType

View = Mapping[str, Any]

_KNOWN_BY = {
    "pace": "by its own pace",
    "history": "by what earlier ones of this model took",
    "prior": "a guess: no such batch has ended here yet",
}


def batches(rows: Sequence[View]) -> None:
    """Provider batches, newest first: how far each is, when it may end, what it cost or (with ~) may cost in all."""
    out, now = console(), datetime.now(UTC)
    if not rows:
        say("no batches")
        return
    wide = out.width >= WIDE
    made = table(("batch", {"min_width": 26}), "state", ("model", SHRINK), ("done", RIGHT), *([""] if wide else []),
                 ("ends", RIGHT), ("cost", RIGHT), *(["at the provider"] if wide else []))  # fmt: skip
    for row, cost in zip(rows, money_column([_in_all(row) for row in rows]), strict=True):
        done = [f"{row['done']:,}/{row['rows']:,}" if wide else f"{short(row['done'])}/{short(row['rows'])}"]
        there = f"{row['status'] or ''} {row['provider_batch_id'] or ''}".strip()
        made.add_row(row["id"], state(row["state"]), clean(row["model"]), *done,
                     *([bar(row["done"], row["rows"])] if wide else []), _ends(row, now),
                     f"~{cost}" if _is_open(row) else cost, *([styled(there, "dim")] if wide else []))  # fmt: skip
    out.print(made)


def _is_open(row: View) -> bool:
    return bool(row["state"] != "imported")


def _in_all(row: View) -> str:
    return f"{float(row['cost_usd']) + (float(row['expected_usd']) if _is_open(row) else 0):.9f}"


def _ends(row: View, now: datetime) -> str:
    """When it ended or may end."""
    return ago(row["ended_at"] or row["imported_at"] or row["eta_at"], now)


def batch(row: View) -> None:
    """One provider batch: where it is, when it is looked at next, how its jobs stand, and what it costs."""
    out, now = console(), datetime.now(UTC)
    times = [(word, row[f"{name}_at"]) for word, name in (
        ("packed", "packed"), ("sent", "submitted"), ("cancel asked", "cancel"), ("ended", "ended"),
        ("imported", "imported"), *([] if row["ended_at"] else [("runs out", "expires")]),
    )]  # fmt: skip
    held = ", ".join(f"{number:,} {word}" for word, number in row["jobs"].items() if number)
    about: list[tuple[str, RenderableType | None]] = [
        ("batch", row["id"]),
        ("state", state(row["state"])),
        ("model", f"{row['model']} at {row['provider']}"),
        ("there", f"{row['status'] or ''} {row['provider_batch_id'] or ''}".strip() or None),
        ("done", f"{row['done']:,} of {row['rows']:,}"),
        ("jobs", held or None),
        ("cost", _cost(row)),
        *((word, moment(time, now)) for word, time in times if time),
        ("may end", f"{moment(row['eta_at'], now)}, {_KNOWN_BY[row['eta_by']]}" if row["eta_at"] else None),
        ("leave by", moment(row["leave_by"], now) if row["leave_by"] and _is_open(row) else None),
        ("next look", moment(row["next_poll_at"], now) if _is_open(row) else None),
        ("error", styled(row["error"], "red") if row["error"] else None),
    ]
    out.print(fields(about))


def _cost(row: View) -> str:
    parts = [f"{money(row['cost_usd'])} so far" if _is_open(row) else money(row["cost_usd"])]
    if _is_open(row) and row["expected_usd"] != "0":
        parts.append(f"about {money(row['expected_usd'])} to come")
    if row["at_risk_usd"] != "0":
        parts.append(f"at most {money(row['at_risk_usd'])} at risk")
    return f" {sign('·', '-')} ".join(parts)
