"""Batches that clients of the gateway made: a file of theirs, and the submission that its rows became."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import JSON, CheckConstraint, Column, ForeignKey, Integer, Text, exists, func, insert, select, update
from sqlmodel import Field, SQLModel

from db.engine import Store
from db.ledger import ATTEMPT, JOB
from db.log import RESULT
from db.queue import SUBMISSION
from db.states import FINAL
from db.tables import table

_A_LOOK = 500  # rows of results that are read at once


class GatewayBatch(SQLModel, table=True):
    """One batch; `read_at` is when its file had become jobs, or was refused as a whole."""

    __tablename__ = "gateway_batch"
    id: str = Field(sa_type=Text, primary_key=True)
    owner: str | None = Field(default=None, sa_type=Text)
    input_file_id: str = Field(sa_type=Text)
    endpoint: str = Field(sa_type=Text)
    metadata_: Any = Field(default=None, sa_column=Column("metadata", JSON(none_as_null=True)))
    submission_id: str | None = Field(default=None, sa_column=Column(Text, ForeignKey("submission.id")))
    rejects_file_id: str | None = Field(default=None, sa_type=Text)
    rejected: int = Field(sa_type=Integer)
    error_code: str | None = Field(default=None, sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    created_at: datetime
    expires_at: datetime
    read_at: datetime | None = None
    cancelled_at: datetime | None = None
    output_seconds: int | None = None  # how long its result files are given out, from its end on; NULL: for ever
    expired_at: datetime | None = None  # its window was over before every row had an answer

    __table_args__ = (CheckConstraint("rejected >= 0", name="rejected_not_negative"),)


BATCH = table(GatewayBatch)


class Asked(NamedTuple):
    """A batch as it stands."""

    id: str
    owner: str | None
    input_file_id: str
    endpoint: str
    metadata: Any
    created_at: datetime
    expires_at: datetime
    submission_id: str | None = None
    rejects_file_id: str | None = None
    rejected: int = 0
    error_code: str | None = None
    error: str | None = None
    read_at: datetime | None = None
    cancelled_at: datetime | None = None
    output_seconds: int | None = None
    expired_at: datetime | None = None


class Answered(NamedTuple):
    """A row of a batch that has its end, with the words of its answer."""

    job_id: str
    custom_id: str
    state: str
    model: str
    error_code: str | None
    error: str | None
    finished_at: datetime
    text: str | None
    refusal: str | None
    tool_calls: Any
    choices: Any
    finish_reason: str | None
    tokens: tuple[int | None, ...]  # input, cached, cache_write, output, reasoning


_COLUMNS = [BATCH.c[name] for name in Asked._fields]
_TOKENS = [ATTEMPT.c[f"{name}_tokens"] for name in ("input", "cached", "cache_write", "output", "reasoning")]
_WORDS = [RESULT.c[name] for name in ("text", "refusal", "tool_calls", "choices", "finish_reason")]
_HEAD = [JOB.c[name] for name in ("id", "client_key", "state", "model", "error_code", "error", "finished_at")]
_TOLD = len(_HEAD) + len(_WORDS)
_ANSWERS = (
    select(*_HEAD, *_WORDS, *_TOKENS)
    .join(RESULT, RESULT.c.job_id == JOB.c.id, isouter=True)
    .join(ATTEMPT, (ATTEMPT.c.job_id == JOB.c.id) & (ATTEMPT.c.n == RESULT.c.attempt), isouter=True)
    .order_by(JOB.c.id)
    .limit(_A_LOOK)
)


def create(store: Store, batch: Asked) -> None:
    """Keep a new batch."""
    with store.write() as connection:
        connection.execute(insert(BATCH).values(batch._asdict()))


def find(store: Store, batch_id: str) -> Asked | None:
    """The batch of this id."""
    with store.read() as connection:
        row = connection.execute(select(*_COLUMNS).where(BATCH.c.id == batch_id)).first()
        return Asked(*row) if row else None


def page(store: Store, *, owner: str | None, after: str | None, limit: int) -> list[Asked]:
    """A page of an owner's batches, the newest first."""
    query = select(*_COLUMNS).where(BATCH.c.owner == owner).order_by(BATCH.c.id.desc()).limit(limit)
    query = query.where(BATCH.c.id < after) if after else query
    with store.read() as connection:
        return [Asked(*row) for row in connection.execute(query)]


def change(store: Store, batch_id: str, **columns: Any) -> None:
    """Keep what is new of a batch."""
    with store.write() as connection:
        connection.execute(update(BATCH).where(BATCH.c.id == batch_id).values(columns))


def late(store: Store, since: datetime, now: datetime) -> list[Asked]:
    """Batches whose window ended in this time, and that have jobs without an end."""
    going = JOB.c.submission_id == BATCH.c.submission_id, ~JOB.c.state.in_([state.value for state in FINAL])
    over = BATCH.c.expires_at <= now, BATCH.c.expired_at.is_(None), BATCH.c.cancelled_at.is_(None)
    with store.read() as connection:
        query = select(*_COLUMNS).where(*over, BATCH.c.expires_at > since, exists().where(*going))
        return [Asked(*row) for row in connection.execute(query)]


def begun(store: Store, batch_id: str) -> str | None:
    """The submission that was begun for a batch, also when its reading was broken off."""
    with store.read() as connection:
        return connection.scalar(select(SUBMISSION.c.id).where(SUBMISSION.c.source == source_of(batch_id)))


def source_of(batch_id: str) -> str:
    """What the submission of a batch is called."""
    return f"batch {batch_id}"


def standing(store: Store, submission_id: str) -> tuple[dict[str, int], datetime | None]:
    """How many of its jobs are in each state that has any, and when the last of them ended."""
    theirs = JOB.c.submission_id == submission_id
    number, ended = func.count(), func.max(JOB.c.finished_at)
    with store.read() as connection:
        rows = connection.execute(select(JOB.c.state, number, ended).where(theirs).group_by(JOB.c.state)).all()
    times = [row[2] for row in rows if row[2]]
    return {row[0]: int(row[1]) for row in rows}, max(times, default=None)


def jobs_of(store: Store, submission_id: str) -> list[str]:
    """The ids of the jobs of a submission."""
    with store.read() as connection:
        return list(connection.scalars(select(JOB.c.id).where(JOB.c.submission_id == submission_id)))


def answers(store: Store, submission_id: str, states: Sequence[str]) -> Iterator[Answered]:
    """The rows that ended so, in the order of the file; no transaction is open between two looks."""
    after = ""
    while True:
        theirs = JOB.c.submission_id == submission_id, JOB.c.id > after, JOB.c.state.in_(states)
        with store.read() as connection:
            rows = connection.execute(_ANSWERS.where(*theirs)).all()
        for row in rows:
            yield Answered._make((*row[:_TOLD], tuple(row[_TOLD:])))
        if len(rows) < _A_LOOK:
            return
        after = rows[-1][0]
