"""Money is set aside before it can be spent: in the transaction that opens the attempts, or they are not opened.

What an attempt can cost at most is taken from every budget that covers its job, and must fit the job's own cap.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, bindparam, func, or_, select, update

from db.budgets import ATTEMPT, COLUMNS, LIVE, PERIOD, SHARE, Budget
from db.bulk import insert_rows
from db.dialect import within
from db.paid import PAID
from db.prepared import Prepared
from db.rooms import JOB, Most, No, Room, never
from db.tables import Body, Decision, table

BODY, DECISION = table(Body), table(Decision)

_BODIES_A_PAGE = 250


class Sending(NamedTuple):
    """What the most that an attempt can cost rests on; `left_nano` is what its job's own cap leaves."""

    lane: str
    tier: str  # in the background: the window
    provider: str
    model: str
    body: str
    input_tokens: int
    output_p90: int
    left_nano: int | None = None


Weigh = Callable[[Sending, datetime], Most]


class OverBudget(Exception):
    """There is no room for what somebody waits for: nothing of it was kept."""

    def __init__(self, no: No) -> None:
        super().__init__(no.why)
        self.no = no


def _unpriced(_: Sending, __: datetime) -> Most:
    return Most(None)


@dataclass(slots=True)
class Purse:
    """How a process weighs what it sends, and what it has to say of budgets."""

    weigh: Weigh = _unpriced
    news: list[str] = field(default_factory=list)


class _Held(NamedTuple):
    """What is set aside for one attempt, and of which budgets."""

    job_id: str
    nano: int
    output_cap: int | None
    budgets: Sequence[str]
    since: datetime  # its job was submitted


@dataclass(frozen=True, slots=True)
class Reserved:
    """What was set aside: `keep` writes it down once the attempts are open."""

    fits: list[str]  # of the jobs that were asked for, in their order
    refused: dict[str, No]
    held: Sequence[_Held]
    starts: Mapping[str, datetime]  # of the budgets' periods

    @property
    def caps(self) -> dict[str, int]:
        """The cap of each job's answer, where it has one."""
        return {one.job_id: one.output_cap for one in self.held if one.output_cap is not None}

    def keep(self, connection: Connection) -> None:
        """Write down what the newest attempt of each of these jobs holds."""
        if not self.held:
            return
        newest = select(JOB.c.id, JOB.c.attempts).where(within(JOB.c.id, [one.job_id for one in self.held], connection))
        numbers: dict[str, int] = {row.id: row.attempts for row in connection.execute(newest)}
        rows = [(one.job_id, numbers[one.job_id], one.nano, one.output_cap) for one in self.held]
        _HOLD.many(connection, ("b_job_id", "b_n", "b_reserved", "b_cap"), rows)
        shares = [
            (one.job_id, numbers[one.job_id], budget_id, self.starts[budget_id])
            for one in self.held
            for budget_id in one.budgets
        ]
        if shares:
            insert_rows(connection, SHARE, {}, ("job_id", "n", "budget_id", "starts_at"), shares)


class Guard:
    """What stands between jobs and money: the budgets in force, and the caps of jobs of their own."""

    def __init__(self, connection: Connection, purse: Purse, budgets: Sequence[Budget]) -> None:
        self._connection, self._purse, self._budgets = connection, purse, budgets

    @classmethod
    def look(cls, connection: Connection, purse: Purse | None) -> "Guard | None":
        """None where nothing is limited; one statement says so."""
        row: Sequence[Any] = _LOOK.run(connection, [{}]).fetchone()
        if row[0] is None and row[1] is None:
            return None
        return cls(connection, purse or Purse(), in_force(connection) if row[0] is not None else [])

    def reserve(
        self, ids: Sequence[str], now: datetime, tiers: Mapping[str, str] | None = None, limit: int | None = None
    ) -> Reserved:
        """Set aside what these jobs' next attempts can cost, in this order, as far as there is room, for so many.

        `tiers` names the window of jobs in the background. The jobs are held by this transaction.
        """
        weighed, refused = self._weighed(ids, now, tiers or {})
        rooms = self._rooms(weighed.values(), now)
        fits: list[str] = []
        for job_id in ids:
            if len(fits) == limit:
                break
            if job_id in refused:
                continue
            if (one := weighed.get(job_id)) is not None:
                mine = [rooms[budget_id] for budget_id in one.budgets]
                if full := next((room for room in mine if one.nano > room.left), None):
                    refused[job_id] = full.no(one.nano, now, one.since)
                    continue
                for room in mine:
                    room.take(one.nano)
            fits.append(job_id)
        for room in rooms.values():
            room.keep(self._connection, now, self._purse.news)
        held = [weighed[job_id] for job_id in fits if job_id in weighed]
        return Reserved(fits, refused, held, {budget_id: room.starts_at for budget_id, room in rooms.items()})

    def _weighed(
        self, ids: Sequence[str], now: datetime, tiers: Mapping[str, str]
    ) -> tuple[dict[str, _Held], dict[str, No]]:
        """What each job that anything limits can cost at most; and those that can never go."""
        found: dict[str, _Held] = {}
        refused: dict[str, No] = {}
        for row, left in self._limited(ids):
            budgets = [one for one in self._budgets if one.covers(row.tags)]
            if not budgets and left is None:
                continue
            most = self._purse.weigh(_sending(row, tiers.get(row.id, row.tier), left), now)
            if (no := never(budgets, most, row.model, row.max_cost_nano, left)) is not None:
                refused[row.id] = no
            elif most.nano is not None:
                found[row.id] = _Held(row.id, most.nano, most.output_cap, [one.id for one in budgets], row.submitted_at)
        return found, refused

    def _limited(self, ids: Sequence[str]) -> Iterator[tuple[Row[Any], int | None]]:
        """The jobs that may be limited, some bodies at a time, each with what its own cap leaves."""
        query = _FACTS if self._budgets else _FACTS.where(JOB.c.max_cost_nano.is_not(None))
        for first in range(0, len(ids), _BODIES_A_PAGE):
            page = within(JOB.c.id, ids[first : first + _BODIES_A_PAGE], self._connection)
            rows = self._connection.execute(query.where(page)).all()
            capped = [row.id for row in rows if row.max_cost_nano is not None]
            spent = _spent(self._connection, capped) if capped else {}
            for row in rows:
                cap = row.max_cost_nano
                yield row, None if cap is None else max(cap - spent.get(row.id, 0), 0)

    def _rooms(self, weighed: Iterable[_Held], now: datetime) -> dict[str, Room]:
        """The periods of the budgets that these jobs need, held by this transaction in the order of their keys."""
        needed = {budget_id for one in weighed for budget_id in one.budgets}
        spans = {one.id: one.span(now) for one in self._budgets if one.id in needed}
        if not spans:
            return {}
        rows = self._held(spans)
        if len(rows) < len(spans):
            new = [(key, *spans[key]) for key in sorted(spans.keys() - rows.keys())]
            nothing = {"spent_nano": 0, "reserved_nano": 0}
            names = ("budget_id", "starts_at", "ends_at")
            insert_rows(self._connection, PERIOD, nothing, names, new, skip_known=True)
            rows = self._held(spans)
        return {one.id: Room(one, rows[one.id]) for one in self._budgets if one.id in needed}

    def _held(self, spans: Mapping[str, tuple[datetime, datetime | None]]) -> dict[str, Row[Any]]:
        current = or_(*(and_(PERIOD.c.budget_id == key, PERIOD.c.starts_at == span[0]) for key, span in spans.items()))
        rows = select(PERIOD).where(current).order_by(PERIOD.c.budget_id).with_for_update(key_share=True)
        return {row.budget_id: row for row in self._connection.execute(rows)}


def reserve(connection: Connection, purse: Purse | None, ids: Sequence[str], now: datetime,
            tiers: Mapping[str, str] | None = None, limit: int | None = None) -> Reserved:  # fmt: skip
    """What `Guard.reserve` sets aside; without limits all of the jobs fit, and hold nothing."""
    guard = Guard.look(connection, purse) if ids else None
    return guard.reserve(ids, now, tiers, limit) if guard else Reserved([*ids], {}, (), {})


def in_force(connection: Connection) -> list[Budget]:
    """The budgets that hold now, in the order in which their periods are taken."""
    return [Budget(*row) for row in connection.execute(select(*COLUMNS).where(LIVE).order_by(COLUMNS[0]))]


def _sending(row: Row[Any], tier: str, left_nano: int | None) -> Sending:
    return Sending(row.lane, tier, row.provider, row.model, row.body, row.input_tokens, row.output_p90, left_nano)


def _spent(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """What the attempts of these jobs have cost, or may have."""
    cost = func.coalesce(PAID, ATTEMPT.c.reserved_nano, ATTEMPT.c.at_risk_nano, 0)
    sums = select(ATTEMPT.c.job_id, func.sum(cost)).where(within(ATTEMPT.c.job_id, ids, connection))
    return {job_id: int(nano) for job_id, nano in connection.execute(sums.group_by(ATTEMPT.c.job_id))}


_CAPPED = select(JOB.c.id).where(JOB.c.max_cost_nano.is_not(None), JOB.c.finished_at.is_(None)).limit(1)
_LOOK = Prepared(select(select(COLUMNS[0]).where(LIVE).limit(1).scalar_subquery(), _CAPPED.scalar_subquery()))
_FACTS = (
    select(JOB.c.id, JOB.c.lane, JOB.c.tier, JOB.c.provider, JOB.c.model, JOB.c.tags, JOB.c.max_cost_nano)
    .add_columns(JOB.c.submitted_at, BODY.c.body, DECISION.c.input_tokens, DECISION.c.output_p90)
    .join(BODY, BODY.c.job_id == JOB.c.id)
    .join(DECISION, DECISION.c.id == JOB.c.decision_id)
)
_HOLD = Prepared(
    update(ATTEMPT)
    .where(ATTEMPT.c.job_id == bindparam("b_job_id"), ATTEMPT.c.n == bindparam("b_n"))
    .values(reserved_nano=bindparam("b_reserved"), output_cap=bindparam("b_cap"))
)
