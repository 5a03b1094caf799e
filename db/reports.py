"""Spend, savings, latency, errors and the account from rollups, and batches as others see them: read only, plain SQL.

Each report is read in one transaction, so that it is right while others write, and waits for none of them.
Money comes out as decimal strings in USD, times go in as aware datetimes; days and hours are those of a zone, UTC if
none is named, as on a provider's bill.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from db.engine import Store
from db.money import saved, usd
from db.sketches import RELATIVE_ERROR, Bins, merged, percentiles
from db.states import JobState
from db.summing import Group, Period, Spans, sums, times
from db.tallies import OK, SENT, SUMS
from db.words import LISTED, given, iso, said

Row = dict[str, Any]

# What is measured: the sketch it is in, and the milliseconds of its unit.
_MEASURES = {
    "first_token_ms": ("first_token", 1.0),
    "gap_ms": ("gap", 1.0),
    "call_ms": ("call", 1.0),
    "wait_s": ("wait", 1000.0),
    "turnaround_s": ("turnaround", 1000.0),
    "batch_s": ("batch", 1000.0),
}
MEASURES = tuple(_MEASURES)
_TOKENS = tuple(name for name in SUMS if name.endswith("_tokens"))


def cost(store: Store, by: Sequence[str], since: datetime | None = None, until: datetime | None = None,
         zone: str = "UTC") -> Row:  # fmt: skip
    """What was paid, by any of BY or tag:K; the rows add up to the total. A job is counted with its first attempt.

    Attempts without a known cost are counted, not added: `open_attempts` of them are still on their way.
    """
    with store.read() as connection:
        return _cost(connection, by, Period(since, until, zone))


def _cost(connection: Connection, by: Sequence[str], period: Period) -> Row:
    found = sums(connection, by, period, ["state"])
    whole = _added(found, 0).get((), _NOTHING)
    unclosed = sum(values[0] for group, values in found.items() if group[-1] == SENT)
    return {
        "total_usd": usd(whole["cost_nano"]),
        "unknown_attempts": whole["attempts"] - whole["priced"],
        "open_attempts": unclosed,
        "at_risk_usd": usd(whole["at_risk_nano"]),
        "rows": [_priced(row) for row in _rows(found, by)],
    }


def _added(found: dict[Group, list[int]], parts: int) -> dict[Group, dict[str, int]]:
    """The sums of the groups whose first parts are alike, by their names."""
    whole: dict[Group, list[int]] = {}
    for group, values in found.items():
        same = whole.setdefault(group[:parts], [0] * len(SUMS))
        for n, value in enumerate(values):
            same[n] += value
    return {group: dict(zip(SUMS, values, strict=True)) for group, values in whole.items()}


_NOTHING = dict.fromkeys(SUMS, 0)


def _rows(found: dict[Group, list[int]], by: Sequence[str]) -> list[Row]:
    whole = _added(found, len(by))
    return [{**dict(zip(by, group, strict=True)), **whole[group]} for group in _in_order(whole, by)]


def _priced(row: Row) -> Row:
    keys = [name for name in row if name not in SUMS]
    counts = ("jobs", "attempts", *_TOKENS)
    return {name: row[name] for name in (*keys, *counts)} | {
        "cost_usd": usd(row["cost_nano"]) if row["priced"] else None,
        "standard_usd": usd(row["standard_nano"]) if row["compared"] or row["standard_nano"] else None,
        "unknown_attempts": row["attempts"] - row["priced"],
    }


def _in_order(groups: Iterable[Group], by: Sequence[str]) -> list[Group]:
    """By their words; hours as they followed each other, also where a clock is put back."""

    def place(group: Group) -> list[tuple[bool, str]]:
        words = (_utc(part) if word == "hour" else str(part) for part, word in zip(group, by, strict=True))
        return [(part is not None, word) for part, word in zip(group, words, strict=True)]

    return sorted(groups, key=place)


def _utc(hour: str) -> str:
    return datetime.fromisoformat(hour).astimezone(UTC).isoformat()


def savings(store: Store, by: Sequence[str], since: datetime | None = None, until: datetime | None = None,
            zone: str = "UTC") -> Row:  # fmt: skip
    """What was paid against what the same usage costs as plain calls of the default tier, and against `best_usd`: had
    all requests of a class and model gone the way that turned out cheapest for some of them in this time.

    Attempts of which one of the two is unknown are counted aside.
    """
    with store.read() as connection:
        found = sums(connection, by, Period(since, until, zone), (*_SAME, "lane", "tier"))
    best = _best(found, len(by))
    rows = [_saved(row, best[tuple(row[word] for word in by)]) for row in _rows(found, by)]
    return {**_saved(_added(found, 0).get((), _NOTHING), sum(best.values())), "rows": rows}


_SAME = ("class", "model", "provider")  # requests to which the same ways are open


def _best(found: dict[Group, list[int]], parts: int) -> dict[Group, int]:
    """What each group would have cost at the least share of the plain price that any way of its kinds came to."""
    paid, plain = SUMS.index("paid_nano"), SUMS.index("plain_nano")
    ways: dict[Group, list[int]] = {}
    for group, values in found.items():
        way = ways.setdefault(group[parts:], [0, 0])
        way[0] += values[paid]
        way[1] += values[plain]
    least: dict[Group, Fraction] = {}
    for (*kind, _, _), (cost, standard) in ways.items():
        share = Fraction(cost, standard) if standard else Fraction(1)
        least[tuple(kind)] = min(least.get(tuple(kind), share), share)
    best: defaultdict[Group, Fraction] = defaultdict(Fraction)
    for group, values in found.items():
        best[group[:parts]] += values[plain] * least[group[parts:][: len(_SAME)]]
    return {group: round(nano) for group, nano in best.items()}


def _saved(row: Row, best: int) -> Row:
    paid, plain = row["paid_nano"], row["plain_nano"]
    counts = {"attempts": row["compared"], "unknown_attempts": row["attempts"] - row["compared"]}
    money = {"paid_usd": usd(paid), "standard_usd": usd(plain), **saved(paid, plain), "best_usd": usd(best)}
    return {name: value for name, value in row.items() if name not in SUMS} | counts | money


def latency(store: Store, by: Sequence[str], since: datetime | None = None, until: datetime | None = None,
            zone: str = "UTC") -> Row:  # fmt: skip
    """Percentiles, within `relative_error` of the values of their ranks; null where nothing was measured.

    Of live calls: the time to the first token, the usual gap between two deltas of one call, the whole call (ms). Of
    jobs: the wait until the first attempt was sent, the way from submit to the answer (s). Of batches: a row from
    packing to its answer (s). Attempts count when they have ended, by the time at which they were sent.
    """
    with store.read() as connection:
        found = times(connection, by, Period(since, until, zone))
    rows = [
        dict(zip(by, group, strict=True)) | _spread(found[group])
        for group in _in_order(found, by)
        if any(found[group].values())
    ]
    everything = {name: merged(one.get(name, {}) for one in found.values()) for name, _ in _MEASURES.values()}
    return {**_spread(everything), "relative_error": RELATIVE_ERROR, "rows": rows}


def _spread(measured: dict[str, Bins]) -> Row:
    return {name: percentiles(measured.get(sketch, {}), ms) for name, (sketch, ms) in _MEASURES.items()}


def errors(store: Store, by: Sequence[str], since: datetime | None = None, until: datetime | None = None,
           zone: str = "UTC") -> Row:  # fmt: skip
    """Attempts that brought no usable answer, by cause, the most frequent first: how many of how many, and their cost.

    `jobs_failed` are the jobs submitted in this time that are failed now, by what they failed of.
    """
    period = Period(since, until, zone)
    with store.read() as connection:
        found = sums(connection, by, period, ["state", "error_code"])
        failed = connection.execute(_FAILED, given(connection, Spans.of(period)._asdict())).all()
    ended = {group: values for group, values in found.items() if group[-2] != SENT}
    wrong = {group: values for group, values in ended.items() if group[-2] != OK}
    whole, all_of = _added(wrong, 0).get((), _NOTHING), _added(ended, len(by))
    rows = [_failure(row, all_of[tuple(row[word] for word in by)]) for row in _rows(wrong, [*by, "state", "error"])]
    return {
        **_failure(whole, _added(ended, 0).get((), _NOTHING)),
        "rows": sorted(rows, key=lambda row: -row["attempts"]),
        "jobs_failed": [{"error": code, "jobs": jobs} for code, jobs in failed],
    }


_FAILED = text("""SELECT error_code, count(*) FROM job
    WHERE state = 'failed' AND submitted_at >= :since AND submitted_at < :until GROUP BY 1 ORDER BY 2 DESC, 1""")


def _failure(row: Row, all_of: Row) -> Row:
    keys = {name: row[name] for name in row if name not in SUMS}
    if "error" in keys:
        keys["error"] = keys["error"] or None
    return keys | {
        "attempts": row["attempts"],
        "of_attempts": all_of["attempts"],
        "percent": round(100 * row["attempts"] / all_of["attempts"], 1) if all_of["attempts"] else None,
        "cost_usd": usd(row["cost_nano"]) if row["priced"] or not row["attempts"] else None,
        "unknown_attempts": row["attempts"] - row["priced"],
        "at_risk_usd": usd(row["at_risk_nano"]),
    }


def account(store: Store) -> Row:
    """The account that must always balance: what was accepted against the states, the attempts against the report."""
    with store.read() as connection:  # one view of all of it, while others write
        held = _counts(connection, "SELECT state, count(*) FROM job GROUP BY state", {})
        accepted = connection.scalar(text("SELECT coalesce(sum(accepted), 0) FROM submission"))
        attempts, paid, unknown, risk, first = (int(value) for value in connection.execute(_LEDGER).one())
        adjusted = int(connection.scalar(text("SELECT coalesce(sum(difference_nano), 0) FROM adjustment")) or 0)
        report = _cost(connection, [], Period())
    states = {state.value: held.get(state.value, 0) for state in JobState}
    ledger = {"total_usd": usd(paid), "unknown_attempts": unknown, "at_risk_usd": usd(risk)}
    rolled = sum(row["attempts"] for row in report["rows"])
    same = attempts == rolled and all(report[name] == value for name, value in ledger.items())
    same = same and first + adjusted == paid
    return {
        "accepted": accepted,
        **states,
        "attempts": attempts,
        "open_attempts": report["open_attempts"],
        "attempts_usd": usd(paid),
        "adjustments_usd": usd(adjusted),  # how much of it re-pricings brought
        "report_usd": report["total_usd"],
        "unknown_attempts": unknown,
        "at_risk_usd": usd(risk),
        "balances": accepted == sum(states.values()) and same,
    }


_PAID = "coalesce(adjusted_nano, cost_nano)"
_LEDGER = text(f"""SELECT count(*), coalesce(sum({_PAID}), 0), count(*) - count({_PAID}),
    coalesce(sum(CASE WHEN {_PAID} IS NULL THEN at_risk_nano END), 0), coalesce(sum(cost_nano), 0) FROM attempt""")  # noqa: S608 (written above)


# ---- batches and jobs ----

_TIMES = ("packed_at", "leave_by", "submitted_at", "expires_at", "next_poll_at", "cancel_at", "ended_at", "imported_at")
_BATCH = f"""
SELECT id, state, lane, provider, model, rows, done, status, provider_batch_id, {", ".join(_TIMES)}, error FROM batch
"""  # noqa: S608 (all written above)


def batches(store: Store, limit: int = 50, lane: str = "batch") -> list[Row]:
    """The newest batches of the lane first, as their JSON contract says."""
    with store.read() as connection:
        query = text(f"{_BATCH} WHERE lane = :lane ORDER BY id DESC LIMIT :limit")
        rows = connection.execute(query, {"lane": lane, "limit": limit}).mappings()
        return [_batch(row) for row in rows]


def batch(store: Store, word: str) -> list[Row]:
    """The batches that a person means, by id, its beginning, or the provider's id, with their jobs by state."""
    where = "WHERE id = :word OR provider_batch_id = :word OR substr(id, 1, :length) = :word"
    jobs = "SELECT state, count(*) FROM job WHERE batch_id = :id GROUP BY state"
    with store.read() as connection:
        found = (
            connection.execute(text(f"{_BATCH} {where} ORDER BY id LIMIT 10"), {"word": word, "length": len(word)})
            .mappings()
            .all()
        )
        return [_batch(row) | {"jobs": _counts(connection, jobs, {"id": row["id"]})} for row in found]


def _counts(connection: Connection, query: str, given: Row) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(text(query), given)}


def jobs_in(store: Store, batch_id: str) -> list[str]:
    """The ids of the jobs that wait inside a batch."""
    with store.read() as connection:
        query = text("SELECT id FROM job WHERE batch_id = :id AND state = 'submitted' ORDER BY id")
        return list(connection.scalars(query, {"id": batch_id}))


def states(store: Store, job_ids: Sequence[str]) -> dict[str, str]:
    """Where each of these jobs stands."""
    with store.read() as connection:
        query = f"SELECT id, state FROM job WHERE id IN ({said(connection, LISTED)}) ORDER BY id"  # noqa: S608
        return {row[0]: row[1] for row in connection.execute(text(query), {"ids": json.dumps(list(job_ids))})}


def _batch(row: RowMapping) -> Row:
    return {**row} | {name: iso(row[name]) for name in _TIMES}
