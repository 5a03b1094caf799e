"""Which queued rows go together into a provider batch, and the one transaction that puts them there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from db import ledger
from db.claims import BODY
from db.dialect import hold_ids, octets, within
from db.engine import Store
from db.ids import Ids
from db.ledger import DECISION, JOB
from db.queue import BATCH
from db.reserving import Guard, Purse, Reserved
from db.rooms import put_off
from db.states import BatchState, JobState, Lane

_ROWS_A_FETCH = 500
_IDS_A_STATEMENT = 2000
_SAME_HOUR = timedelta(minutes=10)  # rows whose hours to leave are this near go together


@dataclass(frozen=True, slots=True)
class Waiting:
    """Queued rows of one model that can be packed together."""

    provider: str
    model: str
    rows: int


@dataclass(frozen=True, slots=True)
class Room:
    """What one batch may hold, in rows and bytes of bodies, and how many input tokens the provider's queue still takes.

    `tokens` is None where no limit is known; `most` is what the empty queue takes.
    """

    rows: int
    bytes: int
    tokens: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows that make one batch."""

    ids: Sequence[str]
    leave_by: datetime | None  # the earliest
    tokens: int


def waiting(store: Store, now: datetime, lane: Lane = Lane.BATCH) -> list[Waiting]:
    """What is due for the lane, by provider and model."""
    with store.read() as connection:
        groups = (
            select(JOB.c.provider, JOB.c.model, func.count())
            .where(_due(now, lane))
            .group_by(JOB.c.provider, JOB.c.model)
        )
        return [Waiting(*row) for row in connection.execute(groups)]


def _due(now: datetime, lane: Lane) -> Any:
    return and_(JOB.c.state == JobState.QUEUED.value, JOB.c.lane == lane.value, JOB.c.run_after <= now)


def cuts(store: Store, group: Waiting, room: Room, now: datetime) -> Iterator[Cut]:
    """The due rows of a group cut into batches: earliest `leave_by` first, then rows with the same beginning together.

    Read as a stream: the rows are sorted once, however many batches they make. What finds no room waits.
    """
    query = (
        select(JOB.c.id, JOB.c.leave_by, octets(BODY.c.body), DECISION.c.input_tokens)
        .join(BODY, BODY.c.job_id == JOB.c.id)
        .join(DECISION, DECISION.c.id == JOB.c.decision_id)
        .where(_due(now, Lane.BATCH), JOB.c.provider == group.provider, JOB.c.model == group.model)
        .order_by(JOB.c.leave_by.is_(None), JOB.c.leave_by, JOB.c.prefix, JOB.c.id)
    )
    growing = Growing(room, now)
    with store.read() as connection, connection.execute(query.execution_options(yield_per=_ROWS_A_FETCH)) as rows:
        for row in rows:
            job_id, leave_by, length, tokens = row
            if not growing.fits(leave_by, length, tokens):
                if growing.ids:
                    yield growing.cut()
                if not growing.fits(leave_by, length, tokens):
                    return
            growing.add(job_id, leave_by, length, tokens)
    if growing.ids:
        yield growing.cut()


class Growing:
    """A batch to be, and what is left of the provider's queue."""

    def __init__(self, room: Room, now: datetime) -> None:
        self._room, self._now, self._left = room, now, room.tokens
        self._start()

    def _start(self) -> None:
        self.ids = Ids()
        self._bytes = self._tokens = 0
        self._leave_by: datetime | None = None

    def fits(self, leave_by: datetime | None, length: int, tokens: int) -> bool:
        room = self._room
        if self._left is not None and self._tokens + tokens > self._left:
            # A row larger than the whole queue goes alone, when that is empty.
            return not self.ids and self._left == room.most and tokens > self._left
        if not self.ids:
            return True
        full = len(self.ids) >= room.rows or self._bytes + length > room.bytes
        return not full and not self._much_later(leave_by)

    def _much_later(self, leave_by: datetime | None) -> bool:
        """The earliest hour to leave ends the batch for all of its rows, so those with far more time go without it."""
        if self._leave_by is None:
            return False
        return leave_by is None or leave_by - self._now > 2 * (self._leave_by - self._now) + _SAME_HOUR

    def add(self, job_id: str, leave_by: datetime | None, length: int, tokens: int) -> None:
        self.ids.append(job_id)
        self._leave_by = self._leave_by or leave_by
        self._bytes += length
        self._tokens += tokens

    def cut(self) -> Cut:
        made = Cut(self.ids, self._leave_by, self._tokens)
        if self._left is not None:
            self._left = max(self._left - self._tokens, 0)
        self._start()
        return made


def pack(store: Store, batch_id: str, group: Waiting, cut: Cut, *, base_url: str, now: datetime,
         purse: Purse | None = None) -> int:  # fmt: skip
    """Put the rows into a new batch, their attempts open, in one transaction; how many.

    Those that are not queued any more are left out; so are those that no budget has room for: they wait, or fail.
    """
    new = {"id": batch_id, "state": BatchState.PACKED.value, "provider": group.provider, "base_url": base_url}
    times = {"packed_at": now, "next_poll_at": now, "leave_by": cut.leave_by}
    counts = {"model": group.model, "rows": len(cut.ids), "input_tokens": cut.tokens, "create_tries": 0, "done": 0}
    held = {"state": JobState.SUBMITTED.value, "batch_id": batch_id, "attempts": JOB.c.attempts + 1}
    with store.write() as connection:
        hold_ids(connection, JOB, cut.ids)
        reserved = _reserved(connection, purse, cut, now)
        connection.execute(insert(BATCH).values(new | times | counts | {"lane": Lane.BATCH.value}))
        rows = 0
        for first in range(0, len(cut.ids), _IDS_A_STATEMENT):
            ids = within(JOB.c.id, cut.ids[first : first + _IDS_A_STATEMENT], connection)
            rows += connection.execute(update(JOB).where(ids, _due(now, Lane.BATCH)).values(held)).rowcount
        if rows:
            ledger.open_batch(connection, batch_id, now)
            if reserved:
                reserved.keep(connection)
            if rows < len(cut.ids):
                fewer = {"rows": rows, "input_tokens": _tokens(batch_id)}
                connection.execute(update(BATCH).where(BATCH.c.id == batch_id).values(fewer))
        else:
            connection.execute(delete(BATCH).where(BATCH.c.id == batch_id))
    return rows


def _reserved(connection: Connection, purse: Purse | None, cut: Cut, now: datetime) -> Reserved | None:
    """What is set aside for the rows that are still due, where anything limits them; those without room are put off."""
    guard = Guard.look(connection, purse)
    if guard is None:
        return None
    due: set[str] = set()
    for first in range(0, len(cut.ids), _IDS_A_STATEMENT):
        ids = within(JOB.c.id, cut.ids[first : first + _IDS_A_STATEMENT], connection)
        due.update(connection.scalars(select(JOB.c.id).where(ids, _due(now, Lane.BATCH))))
    reserved = guard.reserve([job_id for job_id in cut.ids if job_id in due], now)
    put_off(connection, reserved.refused, now)
    return reserved


def _tokens(batch_id: str) -> Any:
    tokens = select(func.sum(DECISION.c.input_tokens)).join(JOB, JOB.c.decision_id == DECISION.c.id)
    return tokens.where(JOB.c.batch_id == batch_id).scalar_subquery()
