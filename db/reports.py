"""Spend, savings, latency, the account, and batches as others see them: read only, in plain SQL.

Nothing here imports the tables: a report starts in half the time without them.
Money comes out as decimal strings in USD, times go in as aware datetimes, days are UTC days, as on a provider's bill.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from db.engine import Store
from db.money import saved, usd
from db.states import JobState
from db.words import DAY, LISTED, SECONDS, TAG, given, iso, parsed, said

Row = dict[str, Any]

BY = ("lane", "class", "model", "provider", "tier", "day")  # and tag:K
PERCENTILES = (50, 90, 95, 99)

_ATTEMPTS = """
FROM attempt
LEFT JOIN job ON job.id = attempt.job_id
LEFT JOIN decision ON decision.id = job.decision_id
WHERE attempt.sent_at >= :since AND attempt.sent_at < :until
"""
_JOBS = """
FROM job LEFT JOIN decision ON decision.id = job.decision_id
WHERE job.submitted_at >= :since AND job.submitted_at < :until
"""


_COST = """
    count(DISTINCT attempt.job_id) AS jobs, count(*) AS attempts,
    coalesce(sum(attempt.input_tokens), 0) AS input_tokens, coalesce(sum(attempt.output_tokens), 0) AS output_tokens,
    sum(attempt.cost_nano) AS cost, sum(attempt.standard_nano) AS standard,
    count(*) - count(attempt.cost_nano) AS unknown_attempts,
    count(CASE WHEN attempt.state = 'sent' THEN 1 END) AS open_attempts,
    sum(CASE WHEN attempt.cost_nano IS NULL THEN attempt.at_risk_nano END) AS at_risk
"""
# A second answer, after the job had its own: it is paid for, but plain calls would have brought only one.
_PLAIN = """CASE WHEN attempt.state = 'ok' AND job.state = 'succeeded' AND attempt.ended_at > job.finished_at THEN 0
    ELSE attempt.standard_nano END"""
_BOTH = "attempt.cost_nano IS NOT NULL AND attempt.standard_nano IS NOT NULL"
_SAVINGS = f"""
    count(CASE WHEN {_BOTH} THEN 1 END) AS attempts,
    count(CASE WHEN NOT ({_BOTH}) THEN 1 END) AS unknown_attempts,
    coalesce(sum(CASE WHEN {_BOTH} THEN attempt.cost_nano END), 0) AS paid,
    coalesce(sum(CASE WHEN {_BOTH} THEN {_PLAIN} END), 0) AS standard
"""


def cost(store: Store, by: Sequence[str], since: datetime | None = None, until: datetime | None = None) -> Row:
    """What was paid, by any of BY or tag:K; the rows add up to the total.

    Attempts without a known cost are counted, not added: `open_attempts` of them are still on their way.
    """
    with store.read() as connection:
        return _cost(connection, by, _period(since, until))


def _cost(connection: Connection, by: Sequence[str], period: Row) -> Row:
    rows = _grouped(connection, _COST, _ATTEMPTS, by, period)
    return {
        "total_usd": usd(sum(row["cost"] or 0 for row in rows)),
        "unknown_attempts": sum(row["unknown_attempts"] for row in rows),
        "open_attempts": sum(row["open_attempts"] for row in rows),
        "at_risk_usd": usd(sum(row["at_risk"] or 0 for row in rows)),
        "rows": [_priced(row) for row in rows],
    }


def _priced(row: Row) -> Row:
    money = {"cost_usd": usd(row.pop("cost")), "standard_usd": usd(row.pop("standard"))}
    del row["at_risk"], row["open_attempts"]
    unknown = row.pop("unknown_attempts")
    return row | money | {"unknown_attempts": unknown}


def savings(store: Store, by: Sequence[str], since: datetime | None = None, until: datetime | None = None) -> Row:
    """What was paid against what the same usage costs as plain calls of the default tier.

    Attempts of which one of the two is unknown are counted aside.
    """
    with store.read() as connection:
        rows = _grouped(connection, _SAVINGS, _ATTEMPTS, by, _period(since, until))
    names = ("attempts", "unknown_attempts", "paid", "standard")
    whole = {name: sum(row[name] for row in rows) for name in names}
    return {**_saved(whole), "rows": [_saved(row) for row in rows]}


def _saved(row: Row) -> Row:
    paid, standard = row.pop("paid"), row.pop("standard")
    return row | {"paid_usd": usd(paid), "standard_usd": usd(standard), **saved(paid, standard)}


# What is measured: its name and unit, the value, where it is read, what counts, and the table to group by.
_MEASURES = (
    ("first_token_ms", "attempt.first_token_ms", _ATTEMPTS, "attempt.first_token_ms IS NOT NULL", "attempt"),
    ("call_ms", "attempt.total_ms", _ATTEMPTS,
     "attempt.total_ms IS NOT NULL AND attempt.state = 'ok' AND attempt.lane IN ('stream', 'sync')", "attempt"),
    ("wait_s", ("(SELECT min(sent_at) FROM attempt WHERE job_id = job.id)", "job.submitted_at"), _JOBS,
     "job.attempts > 0", "job"),
    ("turnaround_s", ("job.finished_at", "job.submitted_at"), _JOBS, "job.state = 'succeeded'", "job"),
)  # fmt: skip
MEASURES = tuple(measure[0] for measure in _MEASURES)


def latency(store: Store, by: Sequence[str], since: datetime | None = None, until: datetime | None = None) -> Row:
    """Percentiles of the time to the first token and of whole live calls (ms), of the wait until the first attempt was
    sent and of the way from submit to the answer (s), by any of BY or tag:K; null where nothing was measured.
    """
    groups: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    with store.read() as connection:
        for name, value, source, counted, grouped in _MEASURES:
            columns, names = _columns(connection, by, grouped)
            measured = value if isinstance(value, str) else said(connection, SECONDS).format(*value)
            query = text(f"SELECT {columns} {measured} AS value {source} AND {counted}")
            for *key, number in connection.execute(query, given(connection, _period(since, until)) | names):
                if number is not None:
                    groups.setdefault(tuple(key), {}).setdefault(name, []).append(float(number))
    rows = [dict(zip(by, key, strict=True)) | _spread(groups[key]) for key in sorted(groups, key=_sortable)]
    everything = {name: [v for group in groups.values() for v in group.get(name, ())] for name in MEASURES}
    return {**_spread(everything), "rows": rows}


def _spread(values: Mapping[str, list[float]]) -> Row:
    return {name: percentiles(values.get(name, [])) for name in MEASURES}


def percentiles(values: list[float]) -> Row | None:
    """How many there are, and the nearest-rank percentiles; None for no values."""
    if not values:
        return None
    ranked = sorted(values)
    ranks = {f"p{p}": ranked[-(-p * len(ranked) // 100) - 1] for p in PERCENTILES}
    return {"count": len(ranked)} | {name: round(max(value, 0.0), 3) for name, value in ranks.items()}


def _sortable(key: tuple[Any, ...]) -> list[tuple[bool, str]]:
    return [(part is None, str(part)) for part in key]


def _grouped(connection: Connection, sums: str, source: str, by: Sequence[str], period: Row) -> list[Row]:
    columns, names = _columns(connection, by, "attempt")
    places = [str(n) for n in range(1, len(by) + 1)]
    order = ", ".join(f"{place} NULLS FIRST" for place in places)
    group = f"GROUP BY {', '.join(places)} ORDER BY {order}" if by else "HAVING count(*) > 0"
    query = text(f"SELECT {columns} {sums} {source} {group}")
    result = connection.execute(query, given(connection, period) | names)
    keys = [*by, *list(result.keys())[len(by) :]]
    return [dict(zip(keys, row, strict=True)) for row in result]


def _columns(connection: Connection, by: Sequence[str], table: str) -> tuple[str, Row]:
    """The SQL of the columns to group by, and the tags' names as parameters; ValueError for a word that is none."""
    time = {"attempt": "attempt.sent_at", "job": "job.submitted_at"}[table]
    known = {name: f"{table}.{name}" for name in ("lane", "model", "provider", "tier")}
    known |= {"class": "decision.class", "day": said(connection, DAY).format(time)}
    columns, names = "", {}
    for n, word in enumerate(by):
        if word.startswith("tag:") and word != "tag:":
            columns += f"({said(connection, TAG).format(f'tag{n}')}) AS c{n}, "
            names[f"tag{n}"] = word.removeprefix("tag:")
        elif word in known:
            columns += f"{known[word]} AS c{n}, "
        else:
            raise ValueError(f"{word!r} is not one of {', '.join(BY)}, tag:NAME")
    return columns, names


def _period(since: datetime | None, until: datetime | None) -> Row:
    return {"since": since or _FIRST, "until": until or _LAST}


_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


def account(store: Store) -> Row:
    """The account that must always balance: what was accepted against the states, the attempts against the report."""
    with store.read() as connection:  # one view of all of it, while others write
        held = _counts(connection, "SELECT state, count(*) FROM job GROUP BY state", {})
        accepted = connection.scalar(text("SELECT coalesce(sum(accepted), 0) FROM submission"))
        attempts, paid = connection.execute(text("SELECT count(*), coalesce(sum(cost_nano), 0) FROM attempt")).one()
        report = _cost(connection, ["lane"], _period(None, None))
    states = {state.value: held.get(state.value, 0) for state in JobState}
    return {
        "accepted": accepted,
        **states,
        "attempts": attempts,
        "open_attempts": report["open_attempts"],
        "attempts_usd": usd(paid),
        "report_usd": report["total_usd"],
        "unknown_attempts": report["unknown_attempts"],
        "at_risk_usd": report["at_risk_usd"],
        "balances": accepted == sum(states.values()) and usd(paid) == report["total_usd"],
    }


_PAGE = 500
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


_EXPORT = text("""
SELECT job.id, client_key, job.state, decision.class, job.lane, job.tier, job.model, job.provider, job.tags,
       job.submitted_at, deadline_at, finished_at, result.text, tool_calls, finish_reason, truncated, result.output,
       error_code, error,
       (SELECT sum(cost_nano) FROM attempt WHERE job_id = job.id) AS cost,
       (SELECT count(*) FROM attempt WHERE job_id = job.id AND cost_nano IS NULL) AS unknown
FROM job JOIN decision ON decision.id = job.decision_id LEFT JOIN result ON result.job_id = job.id
WHERE job.id > :after AND job.submitted_at >= :since AND job.state = coalesce(:state, job.state)
ORDER BY job.id LIMIT :page
""")


def export(store: Store, state: str | None = None, since: datetime | None = None) -> Iterator[Row]:
    """Every job with its answer, in the order they came in, a page in memory at a time."""
    after = ""
    while True:
        with store.read() as connection:
            page = {"after": after, "state": state, "page": _PAGE, "since": since or _FIRST}
            rows = connection.execute(_EXPORT, given(connection, page)).mappings().all()
        yield from map(_exported, rows)
        if len(rows) < _PAGE:
            return
        after = rows[-1]["id"]


def _exported(row: RowMapping) -> Row:
    kept: Row = {**row}
    cost, unknown, code, error = (kept.pop(name) for name in ("cost", "unknown", "error_code", "error"))
    kept |= {"tags": parsed(kept["tags"]) or {}, "tool_calls": parsed(kept["tool_calls"])}
    kept |= {name: iso(kept[name]) for name in ("submitted_at", "deadline_at", "finished_at")}
    kept["truncated"] = None if kept["truncated"] is None else bool(kept["truncated"])
    return kept | {"cost_usd": None if unknown else usd(cost or 0),
                   "error": {"code": code, "message": error} if error else None}  # fmt: skip
