"""What happened since a run began: read from the attempts that ended, and the jobs, since then."""

from datetime import datetime
from typing import Any

from sqlalchemy import text

from db.engine import Store
from db.money import saved, usd
from db.words import given, iso

Row = dict[str, Any]

_CAUSES = 10  # the most frequent ones
_PAID = "coalesce(adjusted_nano, cost_nano)"
_PLAIN = "coalesce(adjusted_standard_nano, standard_nano)"
_BOTH = f"{_PAID} IS NOT NULL AND {_PLAIN} IS NOT NULL"
_ENDED = text(f"""
SELECT lane, model, count(*) AS attempts, coalesce(sum({_PAID}), 0) AS cost, count(*) - count({_PAID}) AS unknown,
    coalesce(sum(CASE WHEN {_PAID} IS NULL THEN at_risk_nano END), 0) AS at_risk,
    coalesce(sum(CASE WHEN {_BOTH} THEN {_PAID} END), 0) AS paid,
    coalesce(sum(CASE WHEN {_BOTH} THEN {_PLAIN} END), 0) AS plain
FROM attempt WHERE ended_at >= :since AND ended_at < :until GROUP BY lane, model ORDER BY lane, model
""")  # noqa: S608 (all written above)
_JOBS = text("""
SELECT state, count(*) FROM job WHERE finished_at >= :since AND finished_at < :until GROUP BY state
""")
_FAILED = text("""
SELECT error_code, count(*), min(error) FROM job
WHERE state = 'failed' AND finished_at >= :since AND finished_at < :until GROUP BY 1 ORDER BY 2 DESC, 1
""")
_WAITING = text("""
SELECT state, lane, count(*), min(deadline_at) FROM job
WHERE state IN ('queued', 'running', 'submitted') GROUP BY state, lane ORDER BY state, lane
""")


def of_window(store: Store, last: datetime, opened: datetime, closed: datetime) -> Row:
    """What ended in a window, and `before` it, since the end of the last one: the same without what waits, or None.

    So what the batches of a night bring after its end is in the next digest.
    """
    value, before = since(store, opened, closed), since(store, last, opened)
    del before["waiting"]
    return value | {"before": before if before["attempts"] or any(before["done"].values()) else None}


def since(store: Store, began: datetime, now: datetime) -> Row:
    """What ended from then until now: jobs, cost and savings, failures by cause; and what waits.

    Money in USD; attempts without a known cost are counted, with what they may have cost at risk.
    """
    with store.read() as connection:
        span = given(connection, {"since": began, "until": now})
        ended = connection.execute(_ENDED, span).mappings().all()
        jobs = {row[0]: row[1] for row in connection.execute(_JOBS, span)}
        failed = connection.execute(_FAILED, span).all()
        waiting = connection.execute(_WAITING).all()
    paid, plain = (int(sum(row[name] for row in ended)) for name in ("paid", "plain"))
    return {
        "began_at": iso(began),
        "ended_at": iso(now),
        "done": {state: jobs.get(state, 0) for state in ("succeeded", "failed", "cancelled")},
        "attempts": sum(row["attempts"] for row in ended),
        "cost_usd": usd(int(sum(row["cost"] for row in ended))),
        "unknown_attempts": sum(row["unknown"] for row in ended),
        "at_risk_usd": usd(int(sum(row["at_risk"] for row in ended))),
        "standard_usd": usd(plain),
        **saved(paid, plain),
        "lanes": [
            {"lane": row["lane"], "model": row["model"], "attempts": row["attempts"], "cost_usd": usd(int(row["cost"])),
             "unknown_attempts": row["unknown"]}
            for row in ended
        ],
        "failures": [{"error": code, "jobs": count, "example": why} for code, count, why in failed[:_CAUSES]],
        "waiting": [
            {"state": state, "lane": lane, "jobs": count, "next_deadline": iso(due)}
            for state, lane, count, due in waiting
        ],
    }  # fmt: skip
