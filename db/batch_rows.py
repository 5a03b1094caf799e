"""The rows of a provider batch: as they go into its file, and what is known of them when their answers come."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Result, Select, func, or_, select

from db import ledger
from db.claims import BODY
from db.dialect import within
from db.engine import Store
from db.ledger import ATTEMPT, JOB
from db.states import AttemptState

_ROWS_A_PAGE = 250  # bodies that are in memory together


def rows_of(store: Store, batch_id: str) -> Iterator[tuple[str, int, str, int | None]]:
    """Job, attempt, body and output cap of every row that is still to be sent, page by page.

    Bodies that begin alike are together; the cap is the one that its reservation rests on.
    """
    with store.read() as connection:
        for page in _lines(connection, batch_id, ATTEMPT.c.output_cap).partitions(_ROWS_A_PAGE):
            wanted = within(BODY.c.job_id, [row[0] for row in page], connection)
            bodies: dict[str, str] = dict(connection.execute(select(BODY.c.job_id, BODY.c.body).where(wanted)).all())
            yield from ((job_id, n, bodies[job_id], cap) for job_id, n, cap in map(tuple, page))


def _lines(connection: Connection, batch_id: str, *more: Any) -> Result[*tuple[Any, ...]]:
    """The open attempts of a batch in the order of its file's lines, as a stream."""
    rows = _open(batch_id).add_columns(*more).join(JOB, JOB.c.id == ATTEMPT.c.job_id)
    rows = rows.order_by(JOB.c.prefix, ATTEMPT.c.job_id)
    return connection.execute(rows.execution_options(yield_per=_ROWS_A_PAGE))


def _open(batch_id: str) -> Select[Any]:
    return select(ATTEMPT.c.job_id, ATTEMPT.c.n).where(
        ATTEMPT.c.batch_id == batch_id, ATTEMPT.c.state == AttemptState.SENT.value
    )


def bodies(store: Store, job_ids: Sequence[str]) -> dict[str, str]:
    """What was asked, by job."""
    with store.read() as connection:
        wanted = select(BODY.c.job_id, BODY.c.body).where(within(BODY.c.job_id, job_ids, connection))
        return dict(connection.execute(wanted).all())


def open_rows(store: Store, batch_id: str, limit: int) -> list[tuple[str, int]]:
    """Attempts of the batch that nothing has settled yet."""
    with store.read() as connection:
        return [tuple(row) for row in connection.execute(_open(batch_id).limit(limit))]


def holds(store: Store, batch_id: str, job_id: str, n: int) -> bool:
    """Whether this attempt is a row of the batch."""
    with store.read() as connection:
        row = select(ATTEMPT.c.batch_id).where(ATTEMPT.c.job_id == job_id, ATTEMPT.c.n == n)
        return connection.scalar(row) == batch_id


def rows_at(store: Store, batch_id: str, lines: Sequence[int]) -> dict[int, tuple[str, int]]:
    """The attempts on these lines of the batch's file, counted from 1, where it has such a line."""
    wanted = set(lines)
    with store.read() as connection, _lines(connection, batch_id) as rows:
        return {line: (row[0], row[1]) for line, row in enumerate(rows, 1) if line in wanted}


def some_settled(store: Store, batch_id: str) -> bool:
    """Whether some row of the batch has come to its end already."""
    with store.read() as connection:
        settled = ATTEMPT.c.batch_id == batch_id, ATTEMPT.c.state == AttemptState.FAILED.value
        return connection.execute(select(ATTEMPT.c.n).where(*settled).limit(1)).first() is not None


def overdue(store: Store, job_ids: Sequence[str], now: datetime) -> set[str]:
    """Those of the jobs whose deadline has passed."""
    with store.read() as connection:
        late = within(JOB.c.id, job_ids, connection), JOB.c.deadline_at <= now
        return set(connection.scalars(select(JOB.c.id).where(*late)))


_WHOLE = or_(BODY.c.post_process.is_not(None), BODY.c.body.contains('"response_format"'))


def any_judged(store: Store, batch_id: str) -> bool:
    """Whether some row of the batch is such that its answer must be looked at whole."""
    rows = select(ATTEMPT.c.n).join(BODY, BODY.c.job_id == ATTEMPT.c.job_id).where(ATTEMPT.c.batch_id == batch_id)
    with store.read() as connection:
        return connection.execute(rows.where(_WHOLE).limit(1)).first() is not None


def judged(store: Store, job_ids: Sequence[str]) -> dict[str, tuple[str, str | None, int]]:
    """Body, post-process command and number of earlier answers of those jobs whose answers must be looked at whole."""
    with store.read() as connection:
        query = select(*BODY.c, ledger.ANSWERED.label("answered")).join(JOB, JOB.c.id == BODY.c.job_id)
        rows = connection.execute(query.where(within(BODY.c.job_id, job_ids, connection), _WHOLE))
        return {row.job_id: (row.body, row.post_process, row.answered) for row in rows}


def never_ran(store: Store, job_ids: Sequence[str]) -> dict[str, int]:
    """How many attempts of each job expired or were cancelled before they ran, where there are any."""
    idle = [AttemptState.EXPIRED.value, AttemptState.CANCELLED.value]
    with store.read() as connection:
        theirs = within(ATTEMPT.c.job_id, job_ids, connection), ATTEMPT.c.state.in_(idle)
        counted = select(ATTEMPT.c.job_id, func.count()).where(*theirs).group_by(ATTEMPT.c.job_id)
        return {str(job_id): int(times) for job_id, times in connection.execute(counted)}
