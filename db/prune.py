"""Old jobs without their words: what was asked and answered goes, the money and the account stay."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exists, func, null, select, update

from db.claims import BODY
from db.conversations import CONVERSATION, TURN
from db.dialect import hold_ids, octets, within
from db.engine import Store
from db.ledger import ATTEMPT, JOB
from db.log import DELTA, RESULT
from db.states import FINAL, AttemptState
from db.tables import among

_JOBS_A_WRITE = 500  # so that a worker never waits for long


def words(store: Store, before: datetime) -> tuple[int, int]:
    """How many jobs that ended before this time still have their words, and how many bytes those are."""
    answer = func.coalesce(octets(RESULT.c.text), 0)
    query = select(func.count(), func.sum(octets(BODY.c.body) + answer)).select_from(JOB)
    query = query.join(BODY, BODY.c.job_id == JOB.c.id).join(RESULT, RESULT.c.job_id == JOB.c.id, isouter=True)
    with store.read() as connection:
        jobs, size = connection.execute(query.where(_over(before))).one()
    return int(jobs), int(size or 0)


def prune(store: Store, before: datetime) -> Iterator[int]:
    """Take the words of those jobs away, some at a time; how many jobs each time.

    States, keys, tags, decisions, attempts and rollups stay, so that every report says what it said, and a row that is
    submitted again is still known. A job without words cannot be tried again.
    """
    while True:
        with store.write() as connection:
            ids = [*connection.scalars(_next(before))]
            hold_ids(connection, JOB, ids)
            _empty(connection, ids)
        if not ids:
            break
        yield len(ids)
    with store.write() as connection:
        _forget_conversations(connection, before)


def _over(before: datetime) -> ColumnElement[bool]:
    """Jobs whose last word was spoken: no answer to an attempt can still come."""
    tries = and_(ATTEMPT.c.job_id == JOB.c.id, ATTEMPT.c.state == AttemptState.SENT.value)
    return and_(among(JOB.c.state, FINAL), JOB.c.finished_at < before, ~exists().where(tries))


def _next(before: datetime) -> Select[Any]:
    query = select(JOB.c.id).join(BODY, BODY.c.job_id == JOB.c.id).where(_over(before))
    return query.order_by(JOB.c.id).limit(_JOBS_A_WRITE)


def _empty(connection: Connection, ids: list[str]) -> None:
    gone = {"text": "", "refusal": null(), "tool_calls": null(), "choices": null(), "output": null()}
    connection.execute(update(RESULT).where(within(RESULT.c.job_id, ids, connection)).values(gone))
    for of_job in (DELTA, BODY):
        connection.execute(delete(of_job).where(within(of_job.c.job_id, ids, connection)))


def _forget_conversations(connection: Connection, before: datetime) -> None:
    old = select(CONVERSATION.c.id).where(CONVERSATION.c.updated_at < before)
    connection.execute(delete(TURN).where(TURN.c.conversation_id.in_(old)))
    connection.execute(delete(CONVERSATION).where(CONVERSATION.c.updated_at < before))
