"""Jobs as others see them: the JSON contract of one job and of lists of them. Read only."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, text

from db.claims import BODY
from db.engine import Store
from db.ledger import ATTEMPT, DECISION, JOB
from db.log import RESULT
from db.money import usd
from db.paid import PAID
from db.states import FINAL, JobState

PAGE = 50
_OPEN = [state.value for state in JobState if state not in FINAL]
_IDS_A_SELECT = 500


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


def job(store: Store, job_id: str) -> dict[str, Any] | None:
    """Everything about one job, its decision and its attempts; None when there is none with this id."""
    with store.read() as connection:
        row = connection.execute(_jobs().where(JOB.c.id == job_id)).mappings().first()
        if row is None:
            return None
        decision = connection.execute(select(*DECISION.c).where(DECISION.c.id == row["decision_id"])).mappings().one()
        result = connection.execute(select(*RESULT.c).where(RESULT.c.job_id == job_id)).mappings().first()
        attempts = connection.execute(select(*ATTEMPT.c).where(ATTEMPT.c.job_id == job_id).order_by(ATTEMPT.c.n))
        tries = [_adjusted(connection, attempt) for attempt in attempts.mappings().all()]
        pruned = connection.scalar(select(BODY.c.job_id).where(BODY.c.job_id == job_id)) is None
        return _head(row) | _words(result) | ({"text": None} if pruned else {}) | {
            "pruned": pruned,
            "decision": _decision(decision),
            "attempts": [_attempt(attempt) for attempt in tries],
        }  # fmt: skip


def jobs(
    store: Store,
    *,
    state: str | None = None,
    after: str | None = None,
    limit: int = PAGE,
    submission: str | None = None,
    which: ColumnElement[bool] | None = None,
) -> dict[str, Any]:
    """A page of jobs, newest first: {"jobs": […], "next": …}; give `next` as `after` to go on. `which` is of triage."""
    query = _jobs().order_by(JOB.c.id.desc()).limit(limit + 1)
    for column, value in ((JOB.c.state, state), (JOB.c.submission_id, submission)):
        query = query.where(column == value) if value else query
    query = query if which is None else query.where(which)
    query = query.where(JOB.c.id < after) if after else query
    with store.read() as connection:
        rows = connection.execute(query).mappings().all()
    page = [_head(row) for row in rows[:limit]]
    return {"jobs": page, "next": page[-1]["id"] if len(rows) > limit else None}


def find(store: Store, word: str) -> list[str]:
    """The ids of the jobs that a person means: by id, by the beginning of one, or by client key."""
    with store.read() as connection:
        exact = select(JOB.c.id).where(JOB.c.id == word)
        keyed = select(JOB.c.id).where(JOB.c.client_key == word).order_by(JOB.c.id)
        begins = select(JOB.c.id).where(JOB.c.id >= word, JOB.c.id < f"{word}~").limit(2)
        for query in (exact, keyed, begins):
            if found := list(connection.scalars(query)):
                return found
    return []


def by_key(store: Store, row_key: str) -> str | None:
    """The job that a row key made."""
    with store.read() as connection:
        return connection.scalar(select(JOB.c.id).where(JOB.c.row_key == row_key))


def body(store: Store, job_id: str) -> tuple[str, str | None] | None:
    """The canonical JSON of a job's request, and the command that its answer goes through; None when it was pruned."""
    with store.read() as connection:
        row = connection.execute(select(BODY.c.body, BODY.c.post_process).where(BODY.c.job_id == job_id)).first()
        return (row.body, row.post_process) if row else None


def asked(store: Store, job_id: str) -> tuple[str, str | None] | None:
    """The canonical JSON of a job's request and of its unusual handling, if it has any; None when it was pruned."""
    with store.read() as connection:
        row = connection.execute(select(BODY.c.body, BODY.c.handling).where(BODY.c.job_id == job_id)).first()
        return (row.body, row.handling) if row else None


def counts(store: Store, submission: str | None = None) -> dict[str, int]:
    """How many jobs there are in each state."""
    query = select(JOB.c.state, func.count()).group_by(JOB.c.state)
    query = query.where(JOB.c.submission_id == submission) if submission else query
    with store.read() as connection:
        found = {str(state): int(number) for state, number in connection.execute(query)}
    return {state.value: found.get(state.value, 0) for state in JobState}


def reasons(store: Store) -> dict[tuple[str, str], str]:
    """For each lane and class, the reason that most jobs have in common."""
    number = func.count().label("number")
    columns = (JOB.c.lane, DECISION.c["class"], DECISION.c.reason)
    query = select(*columns, number).join(DECISION, DECISION.c.id == JOB.c.decision_id).group_by(*columns)
    with store.read() as connection:
        return {(lane, kind): reason for lane, kind, reason, _ in connection.execute(query.order_by(number))}


def unfinished(store: Store, job_ids: Sequence[str]) -> int:
    """How many of these jobs have no final state yet."""
    total = 0
    with store.read() as connection:
        for first in range(0, len(job_ids), _IDS_A_SELECT):
            some = JOB.c.id.in_(job_ids[first : first + _IDS_A_SELECT])
            total += connection.scalar(select(func.count()).where(some, JOB.c.state.in_(_OPEN))) or 0
    return total


def _jobs() -> Select[Any]:
    costs = select(func.sum(PAID)).where(ATTEMPT.c.job_id == JOB.c.id).scalar_subquery()
    blind = select(func.count()).where(ATTEMPT.c.job_id == JOB.c.id, PAID.is_(None)).scalar_subquery()
    query = select(*JOB.c, DECISION.c["class"].label("class"), costs.label("cost_nano"), blind.label("blind"))
    return query.join(DECISION, DECISION.c.id == JOB.c.decision_id)


def _head(row: Any) -> dict[str, Any]:
    return {
        "id": row["id"],
        "client_key": row["client_key"],
        "state": row["state"],
        "class": row["class"],
        "lane": row["lane"],
        "tier": row["tier"],
        "model": row["model"],
        "provider": row["provider"],
        "priority": row["priority"],
        "tags": row["tags"] or {},
        "submission": row["submission_id"],
        "batch": row["batch_id"],
        "submitted_at": iso(row["submitted_at"]),
        "deadline_at": iso(row["deadline_at"]),
        "finished_at": iso(row["finished_at"]),
        # A sum with an unknown part is unknown; a job that nothing was sent for has cost nothing.
        "cost_usd": None if row["blind"] else usd(row["cost_nano"] or 0),
        "error": {"code": row["error_code"], "message": row["error"]} if row["error"] else None,
    }


def _words(result: Any) -> dict[str, Any]:
    names = ("text", "refusal", "tool_calls", "choices", "finish_reason", "truncated", "partial", "output")
    return {name: result[name] if result else None for name in names}


def _decision(row: Any) -> dict[str, Any]:
    return {
        "class": row["class"],
        "lane": row["lane"],
        "tier": row["tier"],
        "plan": row["plan"],
        "rule": row["rule"],
        "reason": row["reason"],
        "expected_output_tokens": {"p50": row["output_p50"], "p90": row["output_p90"]},
        "cost_usd": usd(row["cost_nano"]),
        "finish_by": iso(row["finish_by"]),
        "options": row["options"],
        "policy": row["policy"],
    }


def _speed(row: Any) -> float | None:
    """Output tokens a second from the first delta to the end; reasoning came before it where it is not shown."""
    if row["output_tokens"] is None or row["first_token_ms"] is None or row["total_ms"] <= row["first_token_ms"]:
        return None
    seconds = float(row["total_ms"] - row["first_token_ms"]) / 1000
    return round(float(row["output_tokens"]) / seconds, 1)


_NEWEST = text("""SELECT cost_source, price FROM adjustment WHERE job_id = :job_id AND n = :n
    ORDER BY repricing_id DESC LIMIT 1""")


def _adjusted(connection: Connection, row: Any) -> dict[str, Any]:
    """The attempt as it was last re-priced, with what was first said of it."""
    now = {**row, "first_cost_nano": row["cost_nano"]}
    if row["adjusted_nano"] is None:
        return now
    source, price = connection.execute(_NEWEST, {"job_id": row["job_id"], "n": row["n"]}).one()
    now |= {"cost_nano": row["adjusted_nano"], "standard_nano": row["adjusted_standard_nano"], "at_risk_nano": None}
    return now | {"cost_source": source, "price": price}


def _attempt(row: Any) -> dict[str, Any]:
    usage = {name: row[f"{name}_tokens"] for name in ("input", "cached", "cache_write", "output", "reasoning")}
    return {
        "n": row["n"],
        "state": row["state"],
        "lane": row["lane"],
        "tier": row["tier"],
        "model": row["model"],
        "batch": row["batch_id"],
        "sent_at": iso(row["sent_at"]),
        "ended_at": iso(row["ended_at"]),
        "outcome": row["outcome"],
        "connect_ms": row["connect_ms"],
        "first_token_ms": row["first_token_ms"],
        "total_ms": row["total_ms"],
        "chunks": row["chunks"],
        "gap_ms": {name: row[f"gap_{name}_ms"] for name in ("p50", "p95", "max")} if row["chunks"] else None,
        "tokens_per_second": _speed(row),
        "tokens": usage if row["input_tokens"] is not None else None,
        "cost_usd": usd(row["cost_nano"]),
        "cost_source": row["cost_source"],
        "first_cost_usd": usd(row["first_cost_nano"]),  # before it was re-priced
        "standard_usd": usd(row["standard_nano"]),
        "at_risk_usd": usd(row["at_risk_nano"]),
        "reserved_usd": usd(row["reserved_nano"]),  # of budgets, until its cost is known
        "price": row["price"],
        "request_id": row["request_id"],
        "error": {"code": row["error_code"], "message": row["error"]} if row["error"] else None,
    }
