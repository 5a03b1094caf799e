"""Which due jobs a worker may run now, and what it needs of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select, text

from db import ledger
from db.ledger import DECISION, JOB
from db.rates import Gates, Model
from db.states import Lane
from db.tables import Body, table

BODY = table(Body)
LIVE = [Lane.SYNC.value, Lane.STREAM.value]
# Word for word the condition of the index job_next, or all that is queued would be sorted at each claim; with = for
# NOT <>, SQLite would rather use job_state.
_QUEUED = text("NOT (job.state <> 'queued') AND (job.lane = 'sync' OR job.lane = 'stream')")


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is ours to run until the lease ends, with the number of its open attempt."""

    job_id: str
    n: int
    lane: str
    tier: str
    provider: str
    model: str
    interactive: bool
    body: str
    post_process: str | None
    handling: str | None
    input_tokens: int  # as estimated when it was decided
    output_p90: int
    lease_by: str
    answered: int = 0  # earlier attempts that brought an answer, which did not fit its schema
    turned_away: int = 0  # earlier attempts that a limit or an overload turned away: none of its tries
    never_ran: int = 0  # earlier attempts in a batch that ended before they ran: none of its tries, either
    deadline_at: datetime | None = None
    output_cap: int | None = None  # tokens of a choice, that its reservation rests on
    class_: str = ""


def due(limit: int, now: datetime, providers: Sequence[str]) -> Select[Any]:
    """The next jobs to go; on PostgreSQL what another process takes now is not waited for.

    One whose hour to leave its lane or tier has come goes on to its next step first.
    """
    return (
        select(JOB.c.id)
        .where(_QUEUED, JOB.c.provider.in_(providers), JOB.c.run_after <= now)
        .where(or_(JOB.c.leave_by.is_(None), JOB.c.leave_by > now))
        .order_by(JOB.c.priority.desc(), JOB.c.deadline_at.is_(None), JOB.c.deadline_at, JOB.c.id)
        .limit(limit)
        .with_for_update(of=JOB, skip_locked=True, key_share=True)
    )


def next_jobs(
    connection: Connection, gates: Gates | None, limit: int, now: datetime, providers: Sequence[str]
) -> Mapping[str, Any]:
    """The ids of the next jobs to go; with `gates` those that may be called now, with what that takes of them."""
    if gates is None:
        return dict.fromkeys(connection.scalars(due(limit, now, providers)))
    return _admitted(connection, gates, limit, now, providers)


def _admitted(
    connection: Connection, gates: Gates, limit: int, now: datetime, providers: Sequence[str]
) -> dict[str, tuple[Model, float]]:
    """The model and the tokens of each, which are spent."""
    tokens = DECISION.c.input_tokens + DECISION.c.output_p90
    shut: set[tuple[str, str]] = set()
    ids: dict[str, tuple[Model, float]] = {}
    looking = True
    while looking:  # once, and once more for each model that is at its limit
        waiting = due(limit - len(ids), now, providers).add_columns(JOB.c.provider, JOB.c.model, tokens.label("tokens"))
        waiting = waiting.join_from(JOB, DECISION, DECISION.c.id == JOB.c.decision_id).where(JOB.c.id.not_in(list(ids)))
        waiting = waiting.where(*(or_(JOB.c.provider != provider, JOB.c.model != model) for provider, model in shut))
        looking = False
        for row in connection.execute(waiting).all():
            model = (row.provider, row.model)
            if model not in shut and gates.admit(model, row.tokens):
                ids[row.id] = model, row.tokens
            else:
                shut.add(model)
                looking = len(ids) < limit
    return ids


def claims_of(
    connection: Connection, ids: Sequence[str], by: str, caps: Mapping[str, int] | None = None
) -> list[Claim]:
    """The jobs as their owner meets them, with the caps of their answers."""
    columns = [JOB.c.id.label("job_id"), JOB.c.attempts.label("n"), JOB.c.lane, JOB.c.tier, JOB.c.provider]
    columns += [JOB.c.model, JOB.c.interactive, BODY.c.body, BODY.c.post_process, BODY.c.handling]
    columns += [DECISION.c.input_tokens, DECISION.c.output_p90, JOB.c.deadline_at, DECISION.c["class"].label("class_")]
    rows = connection.execute(
        select(
            *columns,
            ledger.ANSWERED.label("answered"),
            ledger.TURNED_AWAY.label("turned_away"),
            ledger.NEVER_RAN.label("never_ran"),
        )
        .join(BODY, BODY.c.job_id == JOB.c.id)
        .join(DECISION, DECISION.c.id == JOB.c.decision_id)
        .where(JOB.c.id.in_(ids))
    )
    known = caps or {}
    return [Claim(**row._mapping, lease_by=by, output_cap=known.get(row.job_id)) for row in rows]
