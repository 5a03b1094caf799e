"""The tables: what is kept, and the rules that the database itself holds.

Money is whole nano-dollars (10⁻⁹ USD), times are aware UTC, durations are milliseconds.
The migrations make these tables; a test holds the two against each other.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, ForeignKey, Index, Table, Text, or_, text
from sqlmodel import Field, SQLModel

from db.states import FINAL, AttemptState, BatchState, CostSource, DeltaKind, JobState, Lane, Tier


def table(model: type[SQLModel]) -> Table:
    """The model's table, for statements over many rows."""
    return SQLModel.metadata.tables[str(model.__tablename__)]


def among(column: Any, states: Iterable[StrEnum]) -> Any:
    """The column holds one of the states; unlike IN, this works in statements that run for many rows at once."""
    return or_(*(column == state.value for state in states))


def one_of(column: str, words: type[StrEnum]) -> CheckConstraint:
    """The column holds one of the enum's values."""
    return CheckConstraint(_any_of(column, words), name=f"{column}_word")


def _any_of(column: str, words: Iterable[StrEnum]) -> str:
    """Comparisons, the usual word first: for IN, SQLite builds a small index for each row that it checks."""
    return " OR ".join(f"{column} = '{word.value}'" for word in words)


_IS_FINAL = _any_of("state", sorted(FINAL))


def only(where: str) -> dict[str, Any]:
    """The rows that a partial index holds, on both databases: naming the other's here would load all of its dialect."""
    return {"sqlite_where": text(where)}


def _fk(target: str, **options: Any) -> Any:
    return Field(sa_column=Column(Text, ForeignKey(target), **options))


class Setting(SQLModel, table=True):
    """What was set or learned once: the window, which base URLs have a Batch API."""

    key: str = Field(sa_type=Text, primary_key=True)
    value: str = Field(sa_type=Text)


class Decision(SQLModel, table=True):
    """Why jobs took their lane; equal decisions of one submission are one row."""

    id: str = Field(sa_type=Text, primary_key=True)
    class_: str = Field(sa_column=Column("class", Text, nullable=False))
    lane: str = Field(sa_type=Text)
    tier: str = Field(sa_type=Text)
    rule: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    input_tokens: int
    output_p50: int
    output_p90: int
    cost_nano: int | None = Field(default=None, sa_type=BigInteger)
    cost_p90_nano: int | None = Field(default=None, sa_type=BigInteger)
    finish_by: datetime
    plan: Any = Field(sa_column=Column(JSON, nullable=False))
    options: Any = Field(sa_column=Column(JSON, nullable=False))
    policy: str = Field(sa_type=Text)
    decided_at: datetime

    __table_args__ = (one_of("lane", Lane), one_of("tier", Tier))


class Submission(SQLModel, table=True):
    """One call of submit: a prompt or a file."""

    id: str = Field(sa_type=Text, primary_key=True)
    source: str = Field(sa_type=Text)
    submitted_at: datetime
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


class Job(SQLModel, table=True):
    """A request that was accepted, and where it stands."""

    id: str = Field(sa_type=Text, primary_key=True)
    row_key: str = Field(sa_type=Text, unique=True)  # what makes a second submit of the same row add nothing
    client_key: str | None = Field(default=None, sa_type=Text)
    submission_id: str = _fk("submission.id", nullable=False)
    decision_id: str = _fk("decision.id", nullable=False)
    state: str = Field(default=JobState.QUEUED.value, sa_type=Text)
    step: int = 0  # which step of the decision's plan it is in
    lane: str = Field(sa_type=Text)
    tier: str = Field(default=Tier.DEFAULT.value, sa_type=Text)
    provider: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    interactive: bool = False
    priority: int = 0
    tags: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    attempts: int = 0
    submitted_at: datetime
    run_after: datetime
    deadline_at: datetime | None = None
    leave_by: datetime | None = None
    finished_at: datetime | None = None
    lease_by: str | None = Field(default=None, sa_type=Text)
    lease_until: datetime | None = None
    batch_id: str | None = _fk("batch.id")
    error_code: str | None = Field(default=None, sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    prefix: str | None = Field(default=None, sa_type=Text)  # equal where long bodies begin alike
    max_cost_nano: int | None = Field(default=None, sa_type=BigInteger)  # for all its attempts together

    __table_args__ = (
        one_of("state", JobState),
        one_of("lane", Lane),
        one_of("tier", Tier),
        CheckConstraint(f"({_IS_FINAL}) = (finished_at IS NOT NULL)", name="final_is_finished"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="running_is_leased"),
        CheckConstraint("(lease_until IS NULL) = (lease_by IS NULL)", name="lease_has_owner"),
        CheckConstraint("state <> 'submitted' OR batch_id IS NOT NULL", name="submitted_has_batch"),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_says_why"),
        CheckConstraint("attempts >= 0 AND step >= 0", name="counts"),
        # Partial indexes: a queue of a thousand stays quick beside a million finished jobs.
        Index("job_due", "lane", "provider", "model", "run_after", **only("state = 'queued'")),
        Index(
            "job_next",
            text("priority DESC"),
            text("(deadline_at IS NULL)"),
            "deadline_at",
            "id",
            "run_after",
            "provider",
            "model",
            **only("NOT (state <> 'queued') AND (lane = 'sync' OR lane = 'stream')"),
        ),
        Index("job_leased", "lease_until", **only("state = 'running'")),
        Index("job_batch", "batch_id", **only("batch_id IS NOT NULL")),
        Index("job_submission", "submission_id"),
        Index("job_client_key", "client_key", **only("client_key IS NOT NULL")),
        Index("job_state", "state"),
        Index("job_capped", "id", **only("max_cost_nano IS NOT NULL AND finished_at IS NULL")),
    )


class Body(SQLModel, table=True):
    """The words of a job's request: canonical JSON in OpenAI's chat form."""

    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id"), primary_key=True))
    body: str = Field(sa_type=Text)
    post_process: str | None = Field(default=None, sa_type=Text)
    handling: str | None = Field(default=None, sa_type=Text)  # JSON: how its calls are watched over


class Batch(SQLModel, table=True):
    """One provider batch; each POST has its intent committed before it."""

    id: str = Field(sa_type=Text, primary_key=True)
    state: str = Field(default=BatchState.PACKED.value, sa_type=Text)
    provider: str = Field(sa_type=Text)
    base_url: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    rows: int
    packed_at: datetime
    leave_by: datetime | None = None
    upload_intent_at: datetime | None = None
    file_id: str | None = Field(default=None, sa_type=Text)
    create_intent_at: datetime | None = None
    create_tries: int = 0
    provider_batch_id: str | None = Field(default=None, sa_type=Text)
    status: str | None = Field(default=None, sa_type=Text)  # the provider's own word
    done: int = 0
    output_file_id: str | None = Field(default=None, sa_type=Text)
    error_file_id: str | None = Field(default=None, sa_type=Text)
    submitted_at: datetime | None = None
    expires_at: datetime | None = None
    next_poll_at: datetime
    cancel_at: datetime | None = None
    ended_at: datetime | None = None
    imported_at: datetime | None = None
    error: str | None = Field(default=None, sa_type=Text)
    lease_by: str | None = Field(default=None, sa_type=Text)
    lease_until: datetime | None = None
    lane: str = Field(default=Lane.BATCH.value, sa_column=Column(Text, nullable=False, server_default="batch"))
    completion_window: str | None = Field(default=None, sa_type=Text)  # of the background lane: 2h or 8h
    input_tokens: int = Field(
        default=0, sa_column=Column(BigInteger, nullable=False, server_default="0")
    )  # as estimated

    __table_args__ = (
        one_of("state", BatchState),
        CheckConstraint("lane = 'batch' OR lane = 'background'", name="batch_lane_word"),
        CheckConstraint("state <> 'submitted' OR provider_batch_id IS NOT NULL", name="submitted_is_known"),
        CheckConstraint("(state = 'imported') = (imported_at IS NOT NULL)", name="imported_has_time"),
        CheckConstraint("rows > 0", name="has_rows"),
        Index("batch_provider", "provider", "base_url", "provider_batch_id", unique=True),
        Index("batch_open", "next_poll_at", **only("state <> 'imported'")),
    )


class Attempt(SQLModel, table=True):
    """One try that can cost money: opened before it, settled after it. This is the ledger."""

    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id"), primary_key=True))
    n: int = Field(primary_key=True)
    state: str = Field(default=AttemptState.SENT.value, sa_type=Text)
    lane: str = Field(sa_type=Text)
    tier: str = Field(sa_type=Text)  # asked for; after settling, the tier that was served
    provider: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    batch_id: str | None = _fk("batch.id")
    sent_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = Field(default=None, sa_type=Text)  # how its call ended
    connect_ms: float | None = None  # before the request was sent; NULL where an open connection was used again
    first_token_ms: float | None = None
    total_ms: float | None = None
    chunks: int | None = None
    gap_p50_ms: float | None = None  # between two deltas
    gap_p95_ms: float | None = None
    gap_max_ms: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nano: int | None = Field(default=None, sa_type=BigInteger)
    cost_source: str = Field(default=CostSource.UNKNOWN.value, sa_type=Text)
    standard_nano: int | None = Field(default=None, sa_type=BigInteger)  # the same usage as a plain call
    at_risk_nano: int | None = Field(default=None, sa_type=BigInteger)
    price: str | None = Field(default=None, sa_type=Text)
    request_id: str | None = Field(default=None, sa_type=Text)
    error_code: str | None = Field(default=None, sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    reserved_nano: int | None = Field(default=None, sa_type=BigInteger)  # set aside for it, until its cost is known
    output_cap: int | None = None  # tokens of a choice: what is sent says so
    served_model: str | None = Field(default=None, sa_type=Text)  # in the answer's words, where they are others
    cache_write_1h_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    web_searches: int | None = None
    adjusted_nano: int | None = Field(default=None, sa_type=BigInteger)  # as it was last re-priced
    adjusted_standard_nano: int | None = Field(default=None, sa_type=BigInteger)

    __table_args__ = (
        one_of("state", AttemptState),
        one_of("lane", Lane),
        one_of("cost_source", CostSource),
        CheckConstraint("(cost_nano IS NULL) = (cost_source = 'unknown')", name="unknown_is_null"),
        CheckConstraint("cost_nano >= 0", name="cost_not_negative"),
        CheckConstraint("(state = 'sent') = (ended_at IS NULL)", name="settled_has_end"),
        CheckConstraint("n >= 1", name="counted_from_one"),
        CheckConstraint("reserved_nano >= 0", name="reservation_not_negative"),
        CheckConstraint("adjusted_nano >= 0", name="adjusted_not_negative"),
        Index("attempt_sent_at", "sent_at"),
        Index("attempt_batch", "batch_id", **only("batch_id IS NOT NULL")),
        Index("attempt_open", "lane", "sent_at", **only("state IN ('sent', 'unknown')")),
    )


class LoggedDelta(SQLModel, table=True):
    """A piece of an answer that is still coming, for those who read along; pruned when the result is stored.

    `seq` counts the characters of the attempt before it, `position` those of the first choice's text alone.
    """

    __tablename__ = "delta"
    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id"), primary_key=True))
    attempt: int = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    position: int
    choice: int
    kind: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)

    __table_args__ = (one_of("kind", DeltaKind), CheckConstraint("position <= seq", name="text_is_part"))


class Result(SQLModel, table=True):
    """The first answer of a job, or the partial text of a failed one."""

    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id"), primary_key=True))
    attempt: int
    text: str = Field(sa_type=Text)
    refusal: str | None = Field(default=None, sa_type=Text)
    tool_calls: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    choices: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))  # only where n > 1
    finish_reason: str | None = Field(default=None, sa_type=Text)
    truncated: bool = False
    partial: bool = False
    output: str | None = Field(default=None, sa_type=Text)  # what --post-process made of it
    stored_at: datetime
