"""What the ledger says of a time, of a call or of a batch, to be held against what a provider bills. Read only."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, true

from db.dialect import within
from db.engine import Store
from db.paid import PAID
from db.states import AttemptState
from db.tables import Attempt, Batch, table

ATTEMPT, BATCH = table(Attempt), table(Batch)
_ENDED = func.coalesce(BATCH.c.ended_at, ATTEMPT.c.ended_at, type_=ATTEMPT.c.ended_at.type)
_MODEL = func.coalesce(ATTEMPT.c.served_model, ATTEMPT.c.model)
# What is known to have cost nothing is on no bill; what may have been billed is.
_BILLABLE = and_(ATTEMPT.c.state != AttemptState.SENT.value, or_(PAID.is_(None), PAID > 0, ATTEMPT.c.input_tokens > 0))
_JOINED = ATTEMPT.outerjoin(BATCH, BATCH.c.id == ATTEMPT.c.batch_id)


class Counted(NamedTuple):
    """Attempts that say what they used, in sums; those that do not are only counted, with what they may have cost."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0
    unknown: int = 0
    at_risk_nano: int = 0

    def __add__(self, other: object) -> "Counted":  # a tuple's own is no sum
        assert isinstance(other, Counted)
        return Counted(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


_SAYS = ATTEMPT.c.input_tokens.is_not(None)
_COUNTS = (
    func.count(ATTEMPT.c.input_tokens),
    func.coalesce(func.sum(ATTEMPT.c.input_tokens), 0),
    func.coalesce(func.sum(ATTEMPT.c.cached_tokens), 0),
    func.coalesce(func.sum(ATTEMPT.c.output_tokens), 0),
    func.coalesce(func.sum(PAID), 0),
    func.count() - func.count(PAID),
    func.coalesce(func.sum(ATTEMPT.c.at_risk_nano).filter(PAID.is_(None)), 0),
)


def of_time(store: Store, since: datetime, until: datetime, provider: str | None) -> dict[tuple[str, bool], Counted]:
    """What ended in this time, by the model that answered and whether it was a row of a batch."""
    batched, ended = func.coalesce(BATCH.c.lane, "") == "batch", _ENDED
    query = select(_MODEL.label("answered"), batched.label("batched"), *_COUNTS).select_from(_JOINED)
    query = query.where(_BILLABLE, ended >= since, ended < until, _of(provider)).group_by("answered", "batched")
    with store.read() as connection:
        found: dict[tuple[str, bool], Counted] = {}
        for model, is_batch, *counts in connection.execute(query):
            key = model, bool(is_batch)
            found[key] = found.get(key, Counted()) + Counted(*map(int, counts))
        return found


def _of(provider: str | None) -> ColumnElement[bool]:
    return true() if provider is None else ATTEMPT.c.provider == provider


class Call(NamedTuple):
    """One attempt, as a bill may name it."""

    job_id: str
    n: int
    request_id: str | None
    model: str
    ended_at: datetime
    counted: Counted


_CALL = (ATTEMPT.c.job_id, ATTEMPT.c.n, ATTEMPT.c.request_id, _MODEL, _ENDED.label("ended"))
_ONE = (ATTEMPT.c.input_tokens, ATTEMPT.c.cached_tokens, ATTEMPT.c.output_tokens, PAID, ATTEMPT.c.at_risk_nano)


def calls(store: Store, request_ids: Sequence[str], job_ids: Sequence[str]) -> list[Call]:
    """The attempts with these ids of requests, and all those of these jobs."""
    with store.read() as connection:
        named = _among(connection, ATTEMPT.c.request_id, request_ids), _among(connection, ATTEMPT.c.job_id, job_ids)
        query = (
            select(*_CALL, *_ONE).select_from(_JOINED).where(or_(*named), ATTEMPT.c.state != AttemptState.SENT.value)
        )
        return [_call(tuple(row)) for row in connection.execute(query)]


def billable(store: Store, since: datetime, until: datetime) -> list[Call]:
    """The attempts that ended in this time and that a bill should name."""
    ended = _ENDED
    query = select(*_CALL, *_ONE).select_from(_JOINED).where(_BILLABLE, _SAYS, ended >= since, ended <= until)
    with store.read() as connection:
        return [_call(tuple(row)) for row in connection.execute(query)]


def _among(connection: Connection, column: Any, values: Sequence[str]) -> ColumnElement[bool]:
    return within(column, [*values], connection)


def _call(row: Sequence[Any]) -> Call:
    used, cached, written, paid, risk = row[5:]
    told = Counted(used is not None, used or 0, cached or 0, written or 0, paid or 0, paid is None,
                   (risk or 0) if paid is None else 0)  # fmt: skip
    return Call._make([*row[:5], Counted._make(map(int, told))])


class Sent(NamedTuple):
    """A batch that is imported, with what its rows used."""

    id: str
    provider: str
    provider_batch_id: str
    model: str
    ended_at: datetime | None
    counted: Counted


def batches(store: Store, since: datetime | None, until: datetime | None) -> list[Sent]:
    """The imported batches that were submitted in this time."""
    begins = BATCH.c.submitted_at >= since if since else true()
    ends = BATCH.c.submitted_at < until if until else true()
    with store.read() as connection:
        return _sent(connection, and_(begins, ends))


def named(store: Store, provider_batch_ids: Sequence[str]) -> list[Sent]:
    """The imported batches with these ids of the provider's."""
    with store.read() as connection:
        return _sent(connection, _among(connection, BATCH.c.provider_batch_id, provider_batch_ids))


def _sent(connection: Connection, which: ColumnElement[bool]) -> list[Sent]:
    heads = (BATCH.c.id, BATCH.c.provider, BATCH.c.provider_batch_id, BATCH.c.model, BATCH.c.ended_at)
    query = select(*heads, *_COUNTS).select_from(BATCH.join(ATTEMPT, ATTEMPT.c.batch_id == BATCH.c.id))
    ended = BATCH.c.imported_at.is_not(None), BATCH.c.provider_batch_id.is_not(None)
    query = query.where(BATCH.c.lane == "batch", *ended, which).group_by(*heads).order_by(BATCH.c.id)
    return [Sent._make([*row[:5], Counted._make(map(int, row[5:]))]) for row in connection.execute(query)]
