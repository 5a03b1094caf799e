"""Jobs that ended badly, by cause: how many there are of each, and which."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select

from db.engine import Store
from db.ledger import ATTEMPT, JOB
from db.states import JobState

_KEYS_A_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Which:
    """The jobs that are meant; what is None does not matter. `error` is the code of what a job failed of."""

    state: str | None = None
    error: str | None = None
    model: str | None = None
    batch: str | None = None  # that any of their attempts was a row of
    since: datetime | None = None  # submitted

    def where(self) -> ColumnElement[bool]:
        """As a condition on jobs."""
        columns = ((JOB.c.state, self.state), (JOB.c.error_code, self.error), (JOB.c.model, self.model))
        parts: list[Any] = [column == value for column, value in columns if value is not None]
        if self.since is not None:
            parts.append(JOB.c.submitted_at >= self.since)
        if self.batch is not None:
            parts.append(JOB.c.id.in_(select(ATTEMPT.c.job_id).where(ATTEMPT.c.batch_id == self.batch)))
        return and_(True, *parts)


@dataclass(frozen=True, slots=True)
class Case:
    """Jobs with the same code and the same words, and with as many tries."""

    code: str
    message: str
    tries: int
    jobs: int
    first: str  # the ids of the oldest and the newest of them
    last: str


def cases(store: Store, which: Which) -> Iterator[Case]:
    """The jobs by what is said of them, as a stream: where each message has its own id in it, there are many."""
    columns = JOB.c.error_code, JOB.c.error, JOB.c.attempts
    counted = select(*columns, func.count(), func.min(JOB.c.id), func.max(JOB.c.id)).where(which.where())
    with store.read() as connection:
        rows = connection.execute(counted.where(JOB.c.error.is_not(None)).group_by(*columns))
        for code, message, tries, jobs, first, last in rows.yield_per(_KEYS_A_PAGE):
            yield Case(code or "error", message, tries, jobs, first, last)


def count(store: Store, which: Which) -> int:
    """How many there are."""
    with store.read() as connection:
        return connection.scalar(select(func.count()).select_from(JOB).where(which.where())) or 0


def pages(store: Store, which: Which) -> Iterator[list[str]]:
    """Their ids, oldest first, some at a time; no transaction is open in between."""
    after = ""
    while True:
        page = select(JOB.c.id).where(which.where(), JOB.c.id > after).order_by(JOB.c.id).limit(_KEYS_A_PAGE)
        with store.read() as connection:
            ids = list(connection.scalars(page))
        if ids:
            yield ids
        if len(ids) < _KEYS_A_PAGE:
            return
        after = ids[-1]


def ended_badly() -> list[str]:
    """The states in which a job can be tried again."""
    return [JobState.FAILED.value, JobState.CANCELLED.value]
