"""Re-pricings: what attempts cost by other prices, beside what was first said. Nothing of the old is written over.

An attempt keeps `cost_nano`. Its newest figure is `adjusted_nano`, and each change of it is a row here: the costs and
the differences together are what is now taken to have been paid.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Text,
    bindparam,
    func,
    insert,
    not_,
    null,
    select,
    tuple_,
    update,
)
from sqlmodel import Field, SQLModel

from db.budgets import booking
from db.dialect import hold_ids, upsert, within
from db.engine import Store, repeatable
from db.paid import PAID, PLAIN
from db.prepared import Prepared
from db.rollups import Adjusted, adjust
from db.states import AttemptState, CostSource
from db.tables import Attempt, Batch, Job, among, table

PAGE = 1000  # attempts that are looked at, or written, in one transaction


class RepricingRow(SQLModel, table=True):
    """One re-pricing: by which prices, and of what time."""

    __tablename__ = "repricing"
    id: str = Field(sa_type=Text, primary_key=True)
    prices: str = Field(sa_type=Text)
    since: datetime
    until: datetime | None = None
    made_at: datetime


class AdjustmentRow(SQLModel, table=True):
    """What a re-pricing changed of one attempt."""

    __tablename__ = "adjustment"
    repricing_id: str = Field(sa_column=Column(Text, ForeignKey("repricing.id"), primary_key=True))
    job_id: str = Field(sa_type=Text, primary_key=True)
    n: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    before_nano: int | None = Field(default=None, sa_type=BigInteger)
    after_nano: int = Field(sa_type=BigInteger)
    difference_nano: int = Field(sa_type=BigInteger)
    cost_source: str = Field(sa_type=Text)
    price: str = Field(sa_type=Text)

    __table_args__ = (
        CheckConstraint("difference_nano = after_nano - coalesce(before_nano, 0)", name="difference_adds_up"),
        CheckConstraint("after_nano >= 0", name="adjustment_not_negative"),
        ForeignKeyConstraint(["job_id", "n"], ["attempt.job_id", "attempt.n"]),
        Index("adjustment_attempt", "job_id", "n"),
    )


ATTEMPT, BATCH, JOB = table(Attempt), table(Batch), table(Job)
REPRICING, ADJUSTMENT = table(RepricingRow), table(AdjustmentRow)


class Paid(NamedTuple):
    """A settled attempt that says what it used: all that a price depends on, and what it is taken to have cost."""

    job_id: str
    n: int
    lane: str
    tier: str
    provider: str
    model: str
    served_model: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cache_write_1h_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    web_searches: int
    cost_source: str
    price: str | None  # the one that it was charged by
    cost_nano: int | None
    standard_nano: int | None
    priced_at: datetime  # when its batch was submitted, or its call ended


class Repricing(NamedTuple):
    """Which prices, and the attempts of which time; `until` is None for all since."""

    id: str
    prices: str
    since: datetime
    until: datetime | None
    made_at: datetime


class Adjustment(NamedTuple):
    """An attempt's old and new figures, in nano-dollars."""

    job_id: str
    n: int
    before_nano: int | None
    after_nano: int
    standard_before_nano: int | None
    standard_after_nano: int | None
    cost_source: CostSource
    price: str

    @property
    def difference_nano(self) -> int:
        """What is now taken to have been paid more, or less."""
        return self.after_nano - (self.before_nano or 0)


_COUNTS = (*Paid._fields[9:16],)
_PAID = (
    select(
        *(ATTEMPT.c[name] for name in Paid._fields[:9]),
        *(func.coalesce(ATTEMPT.c[name], 0).label(name) for name in _COUNTS),
        ATTEMPT.c.cost_source,
        ATTEMPT.c.price,
        PAID.label("cost_nano"),
        PLAIN.label("standard_nano"),
        func.coalesce(BATCH.c.submitted_at, ATTEMPT.c.ended_at, type_=ATTEMPT.c.ended_at.type).label("priced_at"),
    )
    .join(BATCH, BATCH.c.id == ATTEMPT.c.batch_id, isouter=True)
    .where(ATTEMPT.c.state != AttemptState.SENT.value, ATTEMPT.c.input_tokens.is_not(None))
    .order_by(ATTEMPT.c.job_id, ATTEMPT.c.n)
    .limit(PAGE)
)


def paid(store: Store, since: datetime, until: datetime | None = None) -> Iterator[list[Paid]]:
    """The attempts that were sent in this time and said what they used, a page in memory at a time."""
    query = _PAID.where(ATTEMPT.c.sent_at >= since)
    query = query if until is None else query.where(ATTEMPT.c.sent_at < until)
    last: tuple[str, int] = ("", 0)
    while True:
        with store.read() as connection:
            after = tuple_(ATTEMPT.c.job_id, ATTEMPT.c.n) > last
            page = [Paid._make(row) for row in connection.execute(query.where(after))]
        if page:
            yield page
        if len(page) < PAGE:
            return
        last = page[-1][:2]


@repeatable
def apply(store: Store, repricing: Repricing, changes: Sequence[Adjustment]) -> int:
    """Append the adjustments, with the budgets and rollups that they change; how many.

    One whose attempt is still open, or costs something else by now than it says, is left out, so that a second writer
    changes nothing.
    """
    with store.write(durable=True) as connection:
        ids = sorted({one.job_id for one in changes})
        hold_ids(connection, JOB, ids)
        still = _still(connection, ids)
        mine = [one for one in changes if still.get(one[:2]) == (one.before_nano, one.standard_before_nano)]
        if not mine:
            return 0
        connection.execute(upsert(REPRICING).values(**repricing._asdict()).on_conflict_do_nothing())
        with booking(connection, ids):
            _APPEND.run(connection, [_row(repricing, one) for one in mine])
            _MOVE.run(connection, [_row(repricing, one) for one in mine])
        adjust(connection, [_rolled(one) for one in mine])
        return len(mine)


def _still(connection: Connection, ids: Sequence[str]) -> dict[tuple[str, int], tuple[int | None, int | None]]:
    query = select(ATTEMPT.c.job_id, ATTEMPT.c.n, PAID, PLAIN).where(within(ATTEMPT.c.job_id, ids, connection))
    query = query.where(ATTEMPT.c.cost_source != CostSource.REPORTED.value)
    query = query.where(not_(among(ATTEMPT.c.state, (AttemptState.SENT, AttemptState.UNKNOWN))))  # can still be charged
    return {(job_id, n): (nano, plain) for job_id, n, nano, plain in connection.execute(query)}


def _row(repricing: Repricing, one: Adjustment) -> dict[str, Any]:
    return {
        "b_repricing_id": repricing.id,
        "b_job_id": one.job_id,
        "b_n": one.n,
        "b_before_nano": one.before_nano,
        "b_after_nano": one.after_nano,
        "b_difference_nano": one.difference_nano,
        "b_cost_source": one.cost_source.value,
        "b_price": one.price,
        "b_standard": one.standard_after_nano,
    }


def _rolled(one: Adjustment) -> Adjusted:
    standard = one.standard_before_nano, one.standard_after_nano
    return Adjusted(one.job_id, one.n, (one.before_nano, one.after_nano), standard)


_APPEND = Prepared(
    insert(ADJUSTMENT).values(
        {column.name: bindparam(f"b_{column.name}", type_=column.type) for column in ADJUSTMENT.c}
    )
)
_MOVE = Prepared(
    update(ATTEMPT)
    .where(ATTEMPT.c.job_id == bindparam("b_job_id"), ATTEMPT.c.n == bindparam("b_n"))
    .values(
        adjusted_nano=bindparam("b_after_nano", type_=BigInteger),
        adjusted_standard_nano=bindparam("b_standard", type_=BigInteger),
        reserved_nano=null(),  # of one whose cost was unknown
    )
)
