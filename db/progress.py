"""How far the work is: rows done of open batches, when they may end by what earlier ones took, money so far."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import exp, log
from statistics import NormalDist, median
from typing import Any

from sqlalchemy import Connection, and_, case, func, or_, select, text

from db.engine import Store
from db.ledger import ATTEMPT, DECISION, JOB
from db.lookup import iso
from db.money import usd
from db.paid import PAID
from db.queue import BATCH
from db.states import AttemptState, BatchState, JobState, Lane
from db.tables import Batch

_HISTORY = 200  # of the newest turnarounds of a model, which is what can be learned from
_ENOUGH = 3  # turnarounds of batches of like size; with fewer of them all sizes are looked at
_LIKE = 8  # times as many or as few rows are of like size
_PACE = 0.1  # of the rows must be done before their pace says when the rest will be
_OLDEST = timedelta(days=2)  # from an attempt's start to its end: a batch has a day, and an hour to be given up

# In the words of the partial index `attempt_open`, by which SQLite finds it.
_BLIND = text("attempt.state IN ('sent', 'unknown')")


@dataclass(frozen=True, slots=True)
class Prior:
    """Seconds from a batch's submit to its end: the median, and what 95 of 100 keep to."""

    p50_s: float
    p95_s: float


# By completion window, None for a provider batch: what is believed before there is a history, as the shipped policy.
Priors = Mapping[str | None, Prior]
PRIORS: Priors = {None: Prior(2400, 43200), "2h": Prior(3600, 7200), "8h": Prior(14400, 28800)}


@dataclass(frozen=True, slots=True)
class Eta:
    """When a batch may end, and what that is known by: its own `pace`, the `history` or the `prior`."""

    at: datetime
    known_by: str


@dataclass(frozen=True, slots=True)
class Money:
    """Nano-dollars of a batch: settled so far, expected for the rows that are open, and the most that they may cost."""

    paid: int
    expected: int
    at_risk: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything that is on its way. `eta` is that of the batch that ends last, None when none is at its provider."""

    batches: int
    rows: int  # of the open batches
    done: int
    background: int  # responses on their way there
    live: int  # jobs queued or running as single calls
    waiting: int  # jobs that no batch holds yet
    cost_nano: int  # settled since `since`
    at_risk_nano: int
    since: datetime
    eta: datetime | None


def progress(store: Store, now: datetime, since: datetime | None = None, priors: Priors = PRIORS) -> Progress:
    """How far it all is; money counts from `since`, from midnight UTC by default."""
    since = since or now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with store.read() as connection:
        still = BATCH.c.state != BatchState.IMPORTED.value
        open_ = _batches(connection, and_(still, BATCH.c.lane == Lane.BATCH.value))
        alone = select(func.count()).select_from(BATCH).where(still, BATCH.c.lane == Lane.BACKGROUND.value)
        background = connection.scalar(alone) or 0
        live, waiting = _jobs(connection)
        cost, risk = _spent(connection, since)
        found = _etas(connection, open_, now, priors)
    ends = [eta.at for eta in found.values()]
    rows, done = sum(one.rows for one in open_), sum(min(one.done, one.rows) for one in open_)
    return Progress(len(open_), rows, done, background, live, waiting, cost, risk, since, max(ends, default=None))


def etas(store: Store, batch_ids: Iterable[str], now: datetime, priors: Priors) -> dict[str, Eta]:
    """When those of the batches that are at their provider may end."""
    with store.read() as connection:
        return _etas(connection, _batches(connection, BATCH.c.id.in_(list(batch_ids))), now, priors)


def money(store: Store, batch_ids: Sequence[str]) -> dict[str, Money]:
    """What the batches have cost and may still cost; one that has no attempts is not among them."""
    open_ = ATTEMPT.c.state == AttemptState.SENT.value
    blind = or_(open_, ATTEMPT.c.state == AttemptState.UNKNOWN.value)
    sums = (
        func.sum(PAID),
        func.sum(case((open_, DECISION.c.cost_nano))),
        func.sum(case((blind, ATTEMPT.c.at_risk_nano))),
    )
    query = select(ATTEMPT.c.batch_id, *sums).join(JOB, JOB.c.id == ATTEMPT.c.job_id)
    query = query.join(DECISION, DECISION.c.id == JOB.c.decision_id).where(ATTEMPT.c.batch_id.in_(batch_ids))
    with store.read() as connection:
        rows = connection.execute(query.group_by(ATTEMPT.c.batch_id))
        return {row[0]: Money(*(int(value or 0) for value in row[1:])) for row in rows}


def told(store: Store, rows: Sequence[Mapping[str, Any]], now: datetime, priors: Priors) -> list[dict[str, Any]]:
    """Batches in their JSON form, with their money, and where they are at their provider when they may end."""
    ids = [row["id"] for row in rows]
    ends, spent = etas(store, ids, now, priors), money(store, ids)
    return [{**row, **_cash(spent.get(row["id"])), **_end(ends.get(row["id"]))} for row in rows]


def _cash(money: Money | None) -> dict[str, Any]:
    known = money or Money(0, 0, 0)
    return {"cost_usd": usd(known.paid), "expected_usd": usd(known.expected), "at_risk_usd": usd(known.at_risk)}


def _end(eta: Eta | None) -> dict[str, Any]:
    return {"eta_at": iso(eta.at) if eta else None, "eta_by": eta.known_by if eta else None}


def _batches(connection: Connection, where: Any) -> list[Batch]:
    return [Batch(**row._mapping) for row in connection.execute(select(*BATCH.c).where(where).order_by(BATCH.c.id))]


def _jobs(connection: Connection) -> tuple[int, int]:
    """Jobs that wait for a call or have one, and those that wait for a batch."""
    held = JOB.c.state.in_([JobState.QUEUED.value, JobState.RUNNING.value])
    rows = connection.execute(select(JOB.c.lane, func.count()).where(held).group_by(JOB.c.lane))
    counts = {lane: int(number) for lane, number in rows}
    live = sum(number for lane, number in counts.items() if lane in (Lane.SYNC, Lane.STREAM))
    return live, sum(counts.values()) - live


def _spent(connection: Connection, since: datetime) -> tuple[int, int]:
    """Nano-dollars settled since then, and at risk in what is open or unknown."""
    lately = and_(ATTEMPT.c.ended_at >= since, ATTEMPT.c.sent_at >= since - _OLDEST)
    paid = connection.scalar(select(func.sum(PAID)).where(lately))
    risk = connection.scalar(select(func.sum(ATTEMPT.c.at_risk_nano)).where(_BLIND))
    return int(paid or 0), int(risk or 0)


# ---- when it ends ----


def _etas(connection: Connection, open_: Sequence[Batch], now: datetime, priors: Priors) -> dict[str, Eta]:
    sent = [one for one in open_ if one.submitted_at and one.state == BatchState.SUBMITTED.value]
    known = {kind: _turnarounds(connection, kind) for kind in {_kind(one) for one in sent}}
    return {
        one.id: _eta(one, known[_kind(one)], now, priors.get(one.completion_window) or PRIORS[None]) for one in sent
    }


_Kind = tuple[str, str, str, str | None]
_Past = list[tuple[int, float]]  # rows, seconds


def _kind(batch: Batch) -> _Kind:
    return batch.provider, batch.model, batch.lane, batch.completion_window


def _turnarounds(connection: Connection, kind: _Kind) -> _Past:
    """Batches of this kind that came to their own end: one that was cancelled says nothing of how long others take."""
    provider, model, lane, window = kind
    same = and_(BATCH.c.provider == provider, BATCH.c.model == model, BATCH.c.lane == lane)
    whole = and_(BATCH.c.submitted_at.is_not(None), BATCH.c.ended_at.is_not(None), BATCH.c.cancel_at.is_(None))
    query = select(BATCH.c.rows, BATCH.c.submitted_at, BATCH.c.ended_at)
    query = query.where(same, whole, BATCH.c.completion_window.is_not_distinct_from(window), BATCH.c.done > 0)
    newest = connection.execute(query.order_by(BATCH.c.id.desc()).limit(_HISTORY))
    return [(rows, (ended - sent).total_seconds()) for rows, sent, ended in newest]


def _eta(batch: Batch, past: _Past, now: datetime, prior: Prior) -> Eta:
    """Never before now, and never after the provider's own end of it."""
    assert batch.submitted_at is not None
    age = max((now - batch.submitted_at).total_seconds(), 0.0)
    seconds, known_by = _length(batch, age, past, prior)
    at = max(batch.submitted_at + timedelta(seconds=seconds), now)
    ends = [end for end in (batch.expires_at, None if batch.cancel_at else batch.leave_by) if end and end > now]
    return Eta(min([at, *ends]), known_by)


def _length(batch: Batch, age: float, past: _Past, prior: Prior) -> tuple[float, str]:
    """Seconds from its submit to its end, given that it is not over at this age."""
    if batch.done >= _PACE * batch.rows:
        return age * batch.rows / min(batch.done, batch.rows), "pace"
    like = [seconds for rows, seconds in past if batch.rows / _LIKE <= rows <= batch.rows * _LIKE]
    if longer := [s for s in (like if len(like) >= _ENOUGH else [s for _, s in past]) if s > age]:
        return median(longer), "history"
    return _conditional(prior, age), "prior"


def _conditional(prior: Prior, age: float) -> float:
    """The median of a lognormal length of which it is known that it is more than `age`."""
    normal = NormalDist()
    sigma = max(log(prior.p95_s / prior.p50_s) / normal.inv_cdf(0.95), 1e-6)
    if age <= 0:
        return prior.p50_s
    left = 1 - normal.cdf(log(age / prior.p50_s) / sigma)
    return prior.p50_s * exp(sigma * normal.inv_cdf(min(max(1 - left / 2, 1e-9), 1 - 1e-9)))
