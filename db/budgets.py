"""Budgets: what may be spent in a day, a month or at all, and what was spent and is set aside of it.

An attempt belongs to the budgets that cover its job's tags when it is opened, in the period of that moment, for good.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

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
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlmodel import Field, SQLModel

from db.dialect import within
from db.paid import PAID
from db.prepared import Prepared
from db.tables import Attempt, one_of, only, table


class Period(StrEnum):
    """What a budget's limit holds for."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class BudgetRow(SQLModel, table=True):
    """A limit, for all requests or those with a tag; one that is ended takes nothing more."""

    __tablename__ = "budget"
    id: str = Field(sa_type=Text, primary_key=True)
    name: str = Field(sa_type=Text)
    limit_nano: int = Field(sa_type=BigInteger)
    period: str = Field(sa_type=Text)
    tag_key: str | None = Field(default=None, sa_type=Text)
    tag_value: str | None = Field(default=None, sa_type=Text)
    zone: str = Field(sa_type=Text)  # whose midnight begins a day
    created_at: datetime
    ended_at: datetime | None = None

    __table_args__ = (
        one_of("period", Period),
        CheckConstraint("limit_nano > 0", name="limit_is_positive"),
        CheckConstraint("(tag_key IS NULL) = (tag_value IS NULL)", name="tag_has_value"),
        Index("budget_name", "name", unique=True, **only("ended_at IS NULL")),
    )


class BudgetPeriod(SQLModel, table=True):
    """One day or month of a budget, or all of it; made when the first attempt needs it."""

    __tablename__ = "budget_period"
    budget_id: str = Field(sa_column=Column(Text, ForeignKey("budget.id"), primary_key=True))
    starts_at: datetime = Field(primary_key=True)
    ends_at: datetime | None = None
    spent_nano: int = Field(sa_type=BigInteger)
    reserved_nano: int = Field(sa_type=BigInteger)
    warned_at: datetime | None = None  # most of it was spent or set aside
    full_at: datetime | None = None  # a job found no room

    __table_args__ = (
        CheckConstraint("spent_nano >= 0", name="spent_not_negative"),
        CheckConstraint("reserved_nano >= 0", name="reserved_not_negative"),
    )


class AttemptBudget(SQLModel, table=True):
    """The budgets, with their periods, that an attempt's reservation and cost belong to."""

    __tablename__ = "attempt_budget"
    job_id: str = Field(sa_type=Text, primary_key=True)
    n: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    budget_id: str = Field(sa_type=Text, primary_key=True)
    starts_at: datetime

    __table_args__ = (
        ForeignKeyConstraint(["job_id", "n"], ["attempt.job_id", "attempt.n"]),
        ForeignKeyConstraint(["budget_id", "starts_at"], ["budget_period.budget_id", "budget_period.starts_at"]),
        Index("attempt_budget_period", "budget_id", "starts_at"),
    )


ATTEMPT = table(Attempt)
BUDGET = table(BudgetRow)
PERIOD = table(BudgetPeriod)
SHARE = table(AttemptBudget)

LIVE = BUDGET.c.ended_at.is_(None)


class Budget(NamedTuple):
    """A budget in force."""

    id: str
    name: str
    limit_nano: int
    period: str
    tag_key: str | None
    tag_value: str | None
    zone: str
    created_at: datetime

    def covers(self, tags: Mapping[str, str] | None) -> bool:
        """Whether requests with these tags are paid from it."""
        return self.tag_key is None or (tags or {}).get(self.tag_key) == self.tag_value

    def span(self, now: datetime) -> tuple[datetime, datetime | None]:
        """Its period at this time: from when, and until when it lasts, aware UTC."""
        if self.period == Period.TOTAL:
            return self.created_at, None
        zone = ZoneInfo(self.zone)
        first = now.astimezone(zone).date()
        if self.period == Period.MONTH:
            first = first.replace(day=1)
            following = (first + timedelta(days=31)).replace(day=1)
        else:
            following = first + timedelta(days=1)
        return _midnight(first, zone), _midnight(following, zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


COLUMNS = [BUDGET.c[name] for name in Budget._fields]


# ---- what attempts come to ----

_ANY = Prepared(select(BUDGET.c.id).limit(1))
_BOOK = Prepared(
    update(PERIOD)
    .where(
        PERIOD.c.budget_id == bindparam("b_budget"),
        PERIOD.c.starts_at == bindparam("b_start", type_=PERIOD.c.starts_at.type),
    )
    .values(
        spent_nano=PERIOD.c.spent_nano + bindparam("b_spent", type_=BigInteger),
        reserved_nano=PERIOD.c.reserved_nano + bindparam("b_reserved", type_=BigInteger),
    )
)

_SHARED = Prepared(
    insert(SHARE).from_select(
        ["job_id", "n", "budget_id", "starts_at"],
        select(SHARE.c.job_id, bindparam("b_copy", type_=Integer), SHARE.c.budget_id, SHARE.c.starts_at).where(
            SHARE.c.job_id == bindparam("b_job_id"), SHARE.c.n == bindparam("b_n")
        ),
    )
)

Key = tuple[str, datetime]  # budget, start of the period


@contextmanager
def booking(connection: Connection, job_ids: Sequence[str]) -> Iterator[None]:
    """Book on the budgets what the block changes of these jobs' attempts: what they cost, and what they still hold.

    The jobs are held by this transaction, so nobody else changes their attempts meanwhile. Periods are taken in the
    order of their keys, after all else: two writers never wait for each other in a circle.
    """
    if not _ANY.run(connection, [{}]).fetchone():
        yield
        return
    before = _sums(connection, job_ids)
    yield
    if not before:
        return
    after = _sums(connection, job_ids)
    for key in sorted(after):
        cost, held = (new - old for new, old in zip(after[key], before.get(key, (0, 0)), strict=True))
        if cost or held:
            row = {"b_budget": key[0], "b_start": key[1], "b_spent": cost, "b_reserved": held}
            _BOOK.run(connection, [row])


def shared(connection: Connection, copies: Sequence[tuple[str, int, int]]) -> None:
    """Further bills of tries (job, try, number of the copy) are on the same budgets, which cannot refuse them."""
    if _ANY.run(connection, [{}]).fetchone():
        _SHARED.run(connection, [{"b_job_id": job_id, "b_n": n, "b_copy": number} for job_id, n, number in copies])


def _sums(connection: Connection, job_ids: Sequence[str]) -> dict[Key, tuple[int, int]]:
    """What the attempts of the jobs cost and hold, by budget and period."""
    theirs = and_(ATTEMPT.c.job_id == SHARE.c.job_id, ATTEMPT.c.n == SHARE.c.n)
    sums = func.coalesce(func.sum(PAID), 0), func.coalesce(func.sum(ATTEMPT.c.reserved_nano), 0)
    keys = SHARE.c.budget_id, SHARE.c.starts_at
    query = select(*keys, *sums).select_from(SHARE).join(ATTEMPT, theirs)
    rows = connection.execute(query.where(within(SHARE.c.job_id, job_ids, connection)).group_by(*keys))
    return {(budget_id, start): (int(cost), int(held)) for budget_id, start, cost, held in rows}
