"""Which due jobs a worker may run now, and what it needs of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, or_, select, text, update

from db import ledger
from db.dialect import one_of_many
from db.engine import Store
from db.ledger import DECISION, JOB
from db.prepared import Prepared
from db.rates import Gates, Model
from db.states import JobState, Lane
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
    class_: str = ""
    output_cap: int | None = None  # tokens of a choice, that its reservation rests on


_NOW = bindparam("b_now", type_=JOB.c.run_after.type)

_DUE = (
    select(JOB.c.id, JOB.c.provider, JOB.c.model, (DECISION.c.input_tokens + DECISION.c.output_p90).label("tokens"))
    .join(DECISION, DECISION.c.id == JOB.c.decision_id)
    .where(_QUEUED, one_of_many(JOB.c.provider, "b_providers"), JOB.c.run_after <= _NOW)
    .where(or_(JOB.c.leave_by.is_(None), JOB.c.leave_by > _NOW))  # else it goes on to its next step first
    .order_by(JOB.c.priority.desc(), JOB.c.deadline_at.is_(None), JOB.c.deadline_at, JOB.c.id)
    .limit(bindparam("b_limit"))
)
_TAKEN = _DUE.with_for_update(of=JOB, skip_locked=True, key_share=True)  # what another takes now is not waited for
_AHEAD, _NEXT = Prepared(_DUE), Prepared(_TAKEN)


def ahead(store: Store, limit: int, now: datetime, providers: Sequence[str]) -> set[str]:
    """Those of the providers that the next jobs go to; nothing is taken yet."""
    with store.read() as connection:
        return {row[1] for row in _AHEAD.all(connection, b_providers=providers, b_now=now, b_limit=limit)}


def strangers(store: Store, providers: Sequence[str], now: datetime) -> list[str]:
    """The providers that due jobs wait for, other than these."""
    with store.read() as connection:
        queued = and_(JOB.c.state == JobState.QUEUED.value, JOB.c.run_after <= now, JOB.c.provider.not_in(providers))
        return sorted(connection.scalars(select(JOB.c.provider).where(queued).distinct()))


def next_jobs(
    connection: Connection, gates: Gates | None, limit: int, now: datetime, providers: Sequence[str]
) -> Mapping[str, tuple[Model, float]]:
    """The ids of the next jobs to go, with their models and tokens; with `gates` those that may be called now.

    What those take of the gates is spent.
    """
    shut: set[Model] = set()
    ids: dict[str, tuple[Model, float]] = {}
    looking = True
    while looking:  # once, and once more for each model that is at its limit
        looking = False
        for job_id, provider, name, tokens in _waiting(connection, limit - len(ids), now, providers, shut, ids):
            model = (provider, name)
            if model not in shut and (gates is None or gates.admit(model, tokens)):
                ids[job_id] = model, tokens
            else:
                shut.add(model)
                looking = len(ids) < limit
    return ids


def _waiting(
    connection: Connection, limit: int, now: datetime, providers: Sequence[str], shut: Iterable[Model],
    known: Iterable[str],
) -> Sequence[Sequence[Any]]:  # fmt: skip
    """The next jobs of the models that are not `shut`."""
    given = {"b_providers": providers, "b_now": now, "b_limit": limit}
    if not shut:
        return _NEXT.all(connection, **given)
    others = (or_(JOB.c.provider != provider, JOB.c.model != model) for provider, model in shut)
    return connection.execute(_TAKEN.where(JOB.c.id.not_in(list(known)), *others), given).all()


_LEASE = Prepared(
    update(JOB)
    .where(one_of_many(JOB.c.id, "b_ids"))
    .values(
        state=JobState.RUNNING.value,
        attempts=JOB.c.attempts + 1,
        lease_by=bindparam("b_by"),
        lease_until=bindparam("b_until", type_=JOB.c.lease_until.type),
    )
)


def lease(connection: Connection, ids: Sequence[str], by: str, until: datetime) -> None:
    """Make them its owner's. Nobody can have taken one since: on SQLite this writer is alone, a server holds them."""
    _LEASE.run(connection, [{"b_ids": ids, "b_by": by, "b_until": until}])


_CLAIMED = Prepared(
    select(  # as the fields of a Claim
        *(JOB.c.id, JOB.c.attempts, JOB.c.lane, JOB.c.tier, JOB.c.provider, JOB.c.model, JOB.c.interactive),
        *(BODY.c.body, BODY.c.post_process, BODY.c.handling, DECISION.c.input_tokens, DECISION.c.output_p90),
        *(JOB.c.lease_by, ledger.ANSWERED, ledger.TURNED_AWAY, ledger.NEVER_RAN, JOB.c.deadline_at),
        DECISION.c["class"],
    )
    .join(BODY, BODY.c.job_id == JOB.c.id)
    .join(DECISION, DECISION.c.id == JOB.c.decision_id)
    .where(one_of_many(JOB.c.id, "b_ids"))
)


def claims_of(connection: Connection, ids: Sequence[str], caps: Mapping[str, int] | None = None) -> list[Claim]:
    """The jobs as their owner meets them, with the caps of their answers."""
    known = caps or {}
    return [Claim(*(*row, known.get(row[0]))) for row in _CLAIMED.all(connection, b_ids=ids)]
