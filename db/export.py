"""Jobs with their answers, in the order they came in, some in memory at a time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, TextClause, text

from db.engine import Store
from db.money import usd
from db.words import given, iso, parsed

Row = dict[str, Any]

_PAGE = 500
_FIRST = datetime(1, 1, 2, tzinfo=UTC)
_OF_JOB = """job.id, client_key, job.state, decision.class, job.lane, job.tier, job.model, job.provider, job.tags,
    job.submitted_at, deadline_at, finished_at, result.text, result.tool_calls, finish_reason, truncated,
    result.output, job.error_code, job.error"""
_WHICH = """FROM job JOIN decision ON decision.id = job.decision_id LEFT JOIN result ON result.job_id = job.id
    LEFT JOIN attempt ON attempt.job_id = job.id AND attempt.n = result.attempt
WHERE job.id > :after AND job.submitted_at >= :since AND job.state = coalesce(:state, job.state)"""
_PAID = "coalesce(adjusted_nano, cost_nano)"
_EXPORT = text(f"""
SELECT {_OF_JOB}, (SELECT sum({_PAID}) FROM attempt WHERE job_id = job.id) AS cost,
    (SELECT count(*) FROM attempt WHERE job_id = job.id AND {_PAID} IS NULL) AS unknown
{_WHICH} ORDER BY job.id LIMIT :page
""")  # noqa: S608 (all written above)
_ANSWERS = text(f"""
SELECT {_OF_JOB}, result.refusal, result.choices, attempt.request_id, attempt.ended_at, attempt.input_tokens,
    attempt.cached_tokens, attempt.output_tokens, attempt.reasoning_tokens
{_WHICH} AND finished_at IS NOT NULL ORDER BY job.id LIMIT :page
""")


def export(store: Store, state: str | None = None, since: datetime | None = None, after: str = "") -> Iterator[Row]:
    """Every job with its answer, in the order they came in; with `after` those that came after that job."""
    return map(_exported, _pages(store, _EXPORT, state, since, after))


def answers(store: Store, state: str | None = None, since: datetime | None = None, after: str = "") -> Iterator[Row]:
    """Every job that is final, with all of its answer and what the attempt used that brought it."""
    for row in _pages(store, _ANSWERS, state, since, after):
        kept: Row = {**row}
        yield (
            kept
            | {name: parsed(kept[name]) for name in ("tool_calls", "choices")}
            | {"finished_at": iso(kept["finished_at"])}
        )


def _pages(store: Store, query: TextClause, state: str | None, since: datetime | None,
           after: str) -> Iterator[RowMapping]:  # fmt: skip
    while True:
        with store.read() as connection:
            page = {"after": after, "state": state, "page": _PAGE, "since": since or _FIRST}
            rows = connection.execute(query, given(connection, page)).mappings().all()
        yield from rows
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
