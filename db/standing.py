"""Budgets as people set them and look at them: how each stands now, and whether its sums are those of its attempts."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from db.budgets import ATTEMPT, BUDGET, LIVE, PERIOD, SHARE, Budget
from db.dialect import alone, hold
from db.engine import Store
from db.ids import new_id
from db.paid import PAID
from db.reserving import in_force
from db.rooms import JOB, WARN_AT
from db.states import JobState

WAITS = "over_budget"  # the code of a job that waits for room


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget and its period of now: nano-dollars spent, and set aside for what is under way or unknown."""

    budget: Budget
    starts_at: datetime
    ends_at: datetime | None
    spent_nano: int
    reserved_nano: int

    @property
    def left_nano(self) -> int:
        """What can still be set aside; below 0 where more was billed than could be told before."""
        return self.budget.limit_nano - self.spent_nano - self.reserved_nano

    @property
    def nearly(self) -> bool:
        """Whether most of it is gone."""
        return self.spent_nano + self.reserved_nano >= WARN_AT * self.budget.limit_nano


@dataclass(frozen=True, slots=True)
class Wrong:
    """A period whose sums are not those of its attempts: nano-dollars kept, and as counted."""

    name: str
    starts_at: datetime
    spent_nano: tuple[int, int]
    reserved_nano: tuple[int, int]


def put(store: Store, wanted: Budget) -> Budget:
    """Set a budget; what it comes to be.

    One of this name for the same requests and period gets the new limit and keeps its sums; any other of this name
    ends, and the new one counts from now on. Jobs that wait for room are looked at again.
    """
    now = wanted.created_at
    with store.write(durable=True) as connection:
        alone(connection, "budgets")
        _wake(connection, now)  # jobs before periods, as everybody takes them
        old = next((one for one in in_force(connection) if one.name == wanted.name), None)
        if old is not None and old[3:7] == wanted[3:7]:
            wanted = old._replace(limit_nano=wanted.limit_nano)
            connection.execute(update(BUDGET).where(BUDGET.c.id == old.id).values(limit_nano=wanted.limit_nano))
            told = {"warned_at": None, "full_at": None}
            connection.execute(update(PERIOD).where(PERIOD.c.budget_id == old.id).values(told))
        else:
            _end(connection, wanted.name, now)
            wanted = wanted._replace(id=new_id(now))
            connection.execute(insert(BUDGET).values(wanted._asdict()))
    return wanted


def remove(store: Store, name: str, now: datetime) -> bool:
    """End a budget; False when there is none of this name. What is under way is still booked on it."""
    with store.write(durable=True) as connection:
        ended = _end(connection, name, now)
        if ended:
            _wake(connection, now)
    return ended


def _end(connection: Connection, name: str, now: datetime) -> bool:
    named = and_(BUDGET.c.name == name, LIVE)
    return bool(connection.execute(update(BUDGET).where(named).values(ended_at=now)).rowcount)


def _wake(connection: Connection, now: datetime) -> None:
    waiting = and_(JOB.c.state == JobState.QUEUED.value, JOB.c.error_code == WAITS)
    hold(connection, select(JOB.c.id).where(waiting).order_by(JOB.c.id))
    connection.execute(update(JOB).where(waiting).values(run_after=now))


def standing(store: Store, now: datetime) -> list[Standing]:
    """Every budget in force, by name."""
    with store.read() as connection:
        budgets = sorted(in_force(connection), key=lambda one: one.name)
        spans = {one.id: one.span(now) for one in budgets}
        current = or_(
            False, *(and_(PERIOD.c.budget_id == key, PERIOD.c.starts_at == span[0]) for key, span in spans.items())
        )
        rows = {row.budget_id: row for row in connection.execute(select(PERIOD).where(current))}
    sums = {key: (row.spent_nano, row.reserved_nano) for key, row in rows.items()}
    return [Standing(one, *spans[one.id], *sums.get(one.id, (0, 0))) for one in budgets]


def waiting(store: Store) -> int:
    """How many jobs wait for room in a budget."""
    with store.read() as connection:
        jobs = select(func.count()).where(JOB.c.state == JobState.QUEUED.value, JOB.c.error_code == WAITS)
        return connection.scalar(jobs) or 0


def audit(store: Store) -> list[Wrong]:
    """The periods of all budgets, ended ones too, that do not hold what their attempts come to; must be none."""
    theirs = and_(ATTEMPT.c.job_id == SHARE.c.job_id, ATTEMPT.c.n == SHARE.c.n)
    keys = SHARE.c.budget_id, SHARE.c.starts_at
    cost = func.coalesce(func.sum(PAID), 0).label("cost")
    held = func.coalesce(func.sum(ATTEMPT.c.reserved_nano), 0).label("held")
    sums = select(*keys, cost, held).select_from(SHARE).join(ATTEMPT, theirs).group_by(*keys).subquery()
    same = and_(sums.c.budget_id == PERIOD.c.budget_id, sums.c.starts_at == PERIOD.c.starts_at)
    counted = func.coalesce(sums.c.cost, 0), func.coalesce(sums.c.held, 0)
    query = select(BUDGET.c.name, PERIOD.c.starts_at, PERIOD.c.spent_nano, PERIOD.c.reserved_nano, *counted)
    query = query.select_from(PERIOD).join(BUDGET, BUDGET.c.id == PERIOD.c.budget_id).outerjoin(sums, same)
    with store.read() as connection:
        found = [(*row[:2], *map(int, row[2:])) for row in connection.execute(query.order_by(BUDGET.c.name))]
    return [
        Wrong(name, at, (spent, cost_), (reserved, held_))
        for name, at, spent, reserved, cost_, held_ in found
        if (spent, reserved) != (cost_, held_)
    ]
