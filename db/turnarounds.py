"""How long things took here, and what they cost today: what estimates of the next ones rest on."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, func, select

from db.engine import Store
from db.ledger import ATTEMPT, DECISION, JOB
from db.paid import PAID
from db.queue import BATCH
from db.states import AttemptState, JobState, Lane
from db.tables import among

BATCHES, CALLS, COUNTED = 500, 500, 300  # of the last ones: what is older says less of today
QUEUED = 10_000  # jobs that wait are counted up to here
COUNTED_WITH = "+"  # in the id of a decision, before the vocabulary that its input tokens were counted with
_LIVE = (Lane.SYNC, Lane.STREAM)


class Turnaround(NamedTuple):
    """One provider batch, or one response in the background, from packing to its answers being here.

    Where it is not `done`, it took longer than `seconds`: it is open, or was called off. A `lost` one ran out of time.
    """

    lane: str
    window: str | None
    provider: str
    model: str
    rows: int
    began: datetime
    seconds: float
    done: bool
    lost: bool


class Call(NamedTuple):
    """One live call that brought its answer."""

    provider: str
    model: str
    tier: str
    input_tokens: int
    output_tokens: int
    total_ms: float


def batches(store: Store, now: datetime) -> list[Turnaround]:
    """The newest batches that were submitted by then, open ones too, as they stood."""
    columns = (
        BATCH.c.lane,
        BATCH.c.completion_window,
        BATCH.c.provider,
        BATCH.c.model,
        BATCH.c.rows,
        BATCH.c.packed_at,
    )
    times = (BATCH.c.cancel_at, BATCH.c.ended_at, BATCH.c.imported_at, BATCH.c.status)
    sent = select(*columns, *times).where(BATCH.c.submitted_at <= now).order_by(BATCH.c.id.desc()).limit(BATCHES)
    with store.read() as connection:
        return [_turnaround(*[*row, now]) for row in connection.execute(sent)]


def _turnaround(
    lane: str, window: str | None, provider: str, model: str, rows: int, began: datetime, cancel_at: datetime | None,
    ended_at: datetime | None, imported_at: datetime | None, status: str | None, now: datetime,
) -> Turnaround:  # fmt: skip
    cancel_at, ended_at, imported_at = (at if at and at <= now else None for at in (cancel_at, ended_at, imported_at))
    lost = status == "expired" and bool(ended_at or imported_at)
    # One that failed at its validation says nothing of how long work takes.
    done = imported_at is not None and cancel_at is None and status not in ("expired", "failed")
    end = imported_at if done else cancel_at or ended_at or now
    seconds = max(((end or now) - began).total_seconds(), 0.001)
    return Turnaround(lane, window, provider, model, rows, began, seconds, done, lost)


def calls(store: Store, now: datetime | None = None) -> list[Call]:
    """The newest live calls that brought an answer and its usage, by then."""
    columns = (ATTEMPT.c.provider, ATTEMPT.c.model, ATTEMPT.c.tier, ATTEMPT.c.input_tokens, ATTEMPT.c.output_tokens)
    live = and_(among(ATTEMPT.c.lane, _LIVE), ATTEMPT.c.state == AttemptState.OK.value)
    known = and_(ATTEMPT.c.output_tokens > 0, ATTEMPT.c.total_ms > 0)
    known = known if now is None else and_(known, ATTEMPT.c.sent_at <= now, ATTEMPT.c.ended_at <= now)
    newest = select(*columns, ATTEMPT.c.total_ms).where(live, known).order_by(ATTEMPT.c.sent_at.desc()).limit(CALLS)
    with store.read() as connection:
        return [Call(provider, model, tier, sent or 0, *rest)
                for provider, model, tier, sent, *rest in connection.execute(newest)]  # fmt: skip


class Counted(NamedTuple):
    """Input tokens of a model's newest attempts: how many attempts, what providers reported, and what was estimated."""

    attempts: int
    reported: int
    estimated: int


def counted(store: Store, now: datetime | None = None) -> dict[tuple[str, bool], Counted]:
    """How far input tokens were off, by model, as it was known then: those that were estimated, and those that a
    vocabulary had counted.
    """
    known = and_(ATTEMPT.c.state == AttemptState.OK.value, ATTEMPT.c.input_tokens > 0)
    known = known if now is None else and_(known, ATTEMPT.c.sent_at <= now, ATTEMPT.c.ended_at <= now)
    columns = (ATTEMPT.c.job_id, ATTEMPT.c.model, ATTEMPT.c.input_tokens)
    newest = select(*columns).where(known).order_by(ATTEMPT.c.sent_at.desc()).limit(COUNTED).subquery()
    sums = func.count(), func.sum(newest.c.input_tokens), func.sum(DECISION.c.input_tokens)
    kinds = newest.c.model, DECISION.c.id.contains(COUNTED_WITH, autoescape=True)
    query = select(*kinds, *sums).join(JOB, JOB.c.id == newest.c.job_id)
    query = query.join(DECISION, DECISION.c.id == JOB.c.decision_id).group_by(*kinds)
    with store.read() as connection:
        found = connection.execute(query).all()
    return {(model, bool(exact)): Counted(*map(int, rest)) for model, exact, *rest in found}


def queued(store: Store, provider: str) -> int:
    """How many jobs wait for a live call to the provider, counted up to QUEUED."""
    waits = and_(JOB.c.state == JobState.QUEUED.value, among(JOB.c.lane, _LIVE), JOB.c.provider == provider)
    with store.read() as connection:
        counted = select(func.count()).select_from(select(JOB.c.id).where(waits).limit(QUEUED).subquery())
        return connection.scalar(counted) or 0


def spent(store: Store, since: datetime, until: datetime) -> int:
    """Nano-dollars that attempts of this time have cost; where that is unknown, what is at risk."""
    cost = func.coalesce(PAID, ATTEMPT.c.at_risk_nano, 0)
    sent = and_(ATTEMPT.c.sent_at >= since, ATTEMPT.c.sent_at <= until)
    with store.read() as connection:
        return int(connection.scalar(select(func.coalesce(func.sum(cost), 0)).where(sent)) or 0)
