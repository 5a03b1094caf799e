"""One row for each attempt that can cost money: opened before it, settled after it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, Table, bindparam, case, func, insert, literal, select, update

from db import rollups
from db.budgets import booking
from db.prepared import Prepared
from db.states import AttemptState, CostSource
from db.tables import Attempt, Decision, Job, among, table

ATTEMPT: Table = table(Attempt)
JOB: Table = table(Job)
DECISION: Table = table(Decision)

BUSY = "busy"  # the outcome of an attempt that a limit or an overload turned away

# How many attempts of the job in the outer statement brought an answer.
ANSWERED = (
    select(func.count())
    .where(ATTEMPT.c.job_id == JOB.c.id, ATTEMPT.c.state == AttemptState.OK.value)
    .correlate(JOB)
    .scalar_subquery()
)

# How many of its attempts were rows of a batch that expired or was cancelled before they ran.
NEVER_RAN = (
    select(func.count())
    .where(ATTEMPT.c.job_id == JOB.c.id, ATTEMPT.c.batch_id.is_not(None))
    .where(among(ATTEMPT.c.state, (AttemptState.EXPIRED, AttemptState.CANCELLED)))
    .correlate(JOB)
    .scalar_subquery()
)

# How many of them never ran, since the provider had no room for them.
TURNED_AWAY = (
    select(func.count())
    .where(ATTEMPT.c.job_id == JOB.c.id, ATTEMPT.c.outcome == BUSY, ATTEMPT.c.state == AttemptState.FAILED.value)
    .correlate(JOB)
    .scalar_subquery()
)


class Charge(NamedTuple):  # a tuple: an import makes tens of thousands of them
    """How an attempt ended and what it cost; `cost_nano` is None if and only if the source is `unknown`."""

    state: AttemptState
    cost_nano: int | None = None
    cost_source: CostSource = CostSource.UNKNOWN
    standard_nano: int | None = None
    at_risk_nano: int | None = None
    price: str | None = None
    tier: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    request_id: str | None = None
    outcome: str | None = None
    connect_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float | None = None
    chunks: int | None = None
    gap_p50_ms: float | None = None
    gap_p95_ms: float | None = None
    gap_max_ms: float | None = None
    error_code: str | None = None
    error: str | None = None
    served_model: str | None = None
    cache_write_1h_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    web_searches: int | None = None

    @classmethod
    def free(
        cls, state: AttemptState, *, code: str | None = None, error: str | None = None, outcome: str | None = None
    ) -> "Charge":
        """An attempt that is known to have cost nothing: refused, failed, expired or cancelled by the provider."""
        return cls(
            state,
            cost_nano=0,
            cost_source=CostSource.COMPUTED,
            standard_nano=0,
            price="not billed",
            outcome=outcome,
            error_code=code,
            error=error,
        )


class Settled(NamedTuple):
    """One attempt and its charge; `answers`: it brings its job's answer."""

    job_id: str
    n: int
    charge: Charge
    answers: bool = False


_NOW = bindparam("b_now", type_=ATTEMPT.c.sent_at.type)
_OPENED = select(
    JOB.c.id.label("job_id"),
    JOB.c.attempts.label("n"),
    literal(AttemptState.SENT.value).label("state"),
    JOB.c.lane,
    JOB.c.tier,
    JOB.c.provider,
    JOB.c.model,
    JOB.c.batch_id,
    _NOW.label("sent_at"),
    literal(CostSource.UNKNOWN.value).label("cost_source"),
    DECISION.c.cost_p90_nano.label("at_risk_nano"),
).join(DECISION, DECISION.c.id == JOB.c.decision_id)
_NAMES = [column.name for column in _OPENED.selected_columns]
_OPEN = Prepared(insert(ATTEMPT).from_select(_NAMES, _OPENED.where(JOB.c.id == bindparam("b_id"))))
_OPEN_BATCH = insert(ATTEMPT).from_select(_NAMES, _OPENED.where(JOB.c.batch_id == bindparam("b_batch_id")))


def open_for(connection: Connection, job_ids: Iterable[str], now: datetime) -> None:
    """Open an attempt for each job, numbered by the job's own count, with what it may cost at risk.

    In the transaction that gives the job to whoever will spend the money, so never without its row.
    """
    _OPEN.many(connection, ("b_id", "b_now"), [(job_id, now) for job_id in job_ids])


def open_batch(connection: Connection, batch_id: str, now: datetime) -> None:
    """Open the attempts of every job that was just packed into the batch."""
    connection.execute(_OPEN_BATCH, {"b_batch_id": batch_id, "b_now": now})
    rollups.opened(connection, [batch_id])


_GIVEN: dict[str, BindParameter[Any]] = {name: bindparam(f"b_{name}") for name in Charge._fields}
_CLOSING = (
    update(ATTEMPT)
    .where(
        ATTEMPT.c.job_id == bindparam("b_job_id"),
        ATTEMPT.c.n == bindparam("b_n"),
        among(ATTEMPT.c.state, (AttemptState.SENT, AttemptState.UNKNOWN)),
    )
    .values(
        **_GIVEN
        | {
            "tier": func.coalesce(_GIVEN["tier"], ATTEMPT.c.tier),
            "at_risk_nano": case(  # what was put at risk when it was opened stays until the cost is known
                (_GIVEN["cost_nano"].is_(None), func.coalesce(_GIVEN["at_risk_nano"], ATTEMPT.c.at_risk_nano)),
                else_=None,
            ),
            "reserved_nano": case((_GIVEN["cost_nano"].is_(None), ATTEMPT.c.reserved_nano), else_=None),
            "ended_at": bindparam("b_ended_at", type_=ATTEMPT.c.ended_at.type),
        }
    )
)


_CLOSE = Prepared(_CLOSING)
# As an expression: the index of its column would lead through the whole batch for each row.
_CLOSE_ROWS = Prepared(_CLOSING.where(func.coalesce(ATTEMPT.c.batch_id, "") == bindparam("b_batch_id")))
_CLOSED = ("b_job_id", "b_n", "b_ended_at", *(f"b_{name}" for name in _GIVEN))


def close(connection: Connection, settled: Sequence[Settled], now: datetime, batch_id: str | None = None) -> int:
    """Settle attempts that are still open, whatever their jobs are by now; how many were."""
    with closing(connection, settled, now, batch_id) as closed:
        return closed


@contextmanager
def closing(
    connection: Connection, settled: Sequence[Settled], now: datetime, batch_id: str | None = None
) -> Iterator[int]:
    """The same, with what else the transaction does as the block: rollups, which others wait for, come after it.

    With a batch, only those that are its rows. What they held of budgets is given back, and what they cost is booked;
    an unknown cost keeps what is held. A second settlement of the same attempt changes nothing, so importing a batch
    again is harmless.
    """
    if not settled:
        yield 0
        return
    ordered = sorted(settled, key=attrgetter("job_id", "n"))  # writers take them in one order, never in a circle
    rows = [(one.job_id, one.n, now, *one.charge) for one in ordered]
    ids = [one.job_id for one in ordered]
    rolled = rollups.Closing(connection, ids)
    with booking(connection, ids):
        if batch_id is None:
            closed = _CLOSE.many(connection, _CLOSED, rows)
        else:
            closed = _CLOSE_ROWS.many(connection, (*_CLOSED, "b_batch_id"), [(*row, batch_id) for row in rows])
    yield closed
    rolled.keep(connection, ordered, now, batch_id)
