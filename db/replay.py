"""What really became of jobs, and how long each lane really took: what a replay under another policy rests on.

Read only, a page of jobs in memory at a time.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal, or_, select

from db.dialect import within
from db.engine import Store
from db.ledger import ATTEMPT, DECISION, JOB
from db.paid import PAID
from db.states import AttemptState, JobState, Lane, Tier
from db.tables import Batch, Body, Submission, among, table
from db.turnarounds import COUNTED_WITH

BATCH, BODY, SUBMISSION = table(Batch), table(Body), table(Submission)

PAGE = 200  # jobs, each with all of its words

_LIVE, _SLOW = (Lane.SYNC, Lane.STREAM), (Lane.BATCH, Lane.BACKGROUND)
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


class Answered(NamedTuple):
    """A try that brought an answer which its job needed; `tier` is the one that was served, or the window."""

    lane: str
    tier: str
    input: int
    output: int
    cached: int
    cache_write: int
    cost_nano: int | None
    priced_at: datetime  # the time whose prices hold for it


class Recorded(NamedTuple):
    """A job as it was asked, as it was decided, and what became of it.

    `paid_nano` is the known cost of all its tries, `blind` how many have none; `body` is None where it was pruned.
    """

    id: str
    state: str
    step: int
    provider: str
    model: str
    interactive: bool
    priority: int
    tags: dict[str, str] | None
    submitted_at: datetime
    deadline_at: datetime | None
    finished_at: datetime | None
    max_cost_nano: int | None
    body: str | None
    post_process: str | None
    handling: str | None
    group: int  # rows that came in with it
    class_: str
    rule: str
    plan: list[dict[str, Any]]
    options: list[dict[str, Any]]  # every plan that was weighed
    input_tokens: int  # as estimated then, with what was known of such requests; and so are the next two
    output_p50: int
    output_p90: int
    decision_id: str
    paid_nano: int
    blind: int
    answers: tuple[Answered, ...]

    @property
    def vocabulary(self) -> str | None:
        """What its input tokens were counted with; None where they were estimated."""
        return self.decision_id.partition(COUNTED_WITH)[2] or None


class Stay(NamedTuple):
    """How long a job was in a lane; not `answered`: it was left after so long without an answer.

    From the submit of a job that was answered in the first lane of its plan; from the call where another lane came
    before.
    """

    provider: str
    model: str
    lane: str
    tier: str
    interactive: bool
    began_at: datetime
    seconds: float
    answered: bool


_OF_JOB = [JOB.c[name] for name in Recorded._fields[:12]]
_OF_BODY = [BODY.c.body, BODY.c.post_process, BODY.c.handling]
_GROUP = (SUBMISSION.c.accepted + SUBMISSION.c.duplicates + SUBMISSION.c.rejected).label("group")
_OF_DECISION = [
    DECISION.c["class"].label("class_"), DECISION.c.rule, DECISION.c.plan, DECISION.c.options, DECISION.c.input_tokens,
    DECISION.c.output_p50, DECISION.c.output_p90, DECISION.c.id.label("decision_id"),
]  # fmt: skip
_TRIES = select(
    ATTEMPT.c.job_id, ATTEMPT.c.state, ATTEMPT.c.lane, ATTEMPT.c.tier, ATTEMPT.c.input_tokens, ATTEMPT.c.output_tokens,
    ATTEMPT.c.cached_tokens, ATTEMPT.c.cache_write_tokens, PAID.label("cost_nano"), ATTEMPT.c.ended_at,
    BATCH.c.submitted_at,
).join(BATCH, BATCH.c.id == ATTEMPT.c.batch_id, isouter=True)  # fmt: skip


def jobs(store: Store, since: datetime | None = None, until: datetime | None = None) -> Iterator[list[Recorded]]:
    """The jobs that were submitted in this time, in pages, in the order they came in."""
    query = (
        select(*_OF_JOB, *_OF_BODY, _GROUP, *_OF_DECISION)
        .join(DECISION, DECISION.c.id == JOB.c.decision_id)
        .join(SUBMISSION, SUBMISSION.c.id == JOB.c.submission_id)
        .join(BODY, BODY.c.job_id == JOB.c.id, isouter=True)
        .where(JOB.c.submitted_at >= (since or _FIRST), JOB.c.submitted_at < (until or _LAST))
        .order_by(JOB.c.id)
        .limit(PAGE)
    )
    after = ""
    while True:
        with store.read() as connection:
            rows = connection.execute(query.where(JOB.c.id > after)).all()
            tries = _tries(connection, [row.id for row in rows])
        if rows:
            yield [_recorded(row, tries.get(row.id, [])) for row in rows]
        if len(rows) < PAGE:
            return
        after = rows[-1].id


def span(store: Store, since: datetime | None = None, until: datetime | None = None) -> timedelta:
    """From the first to the last job that was submitted in this time."""
    at = JOB.c.submitted_at
    period = and_(at >= (since or _FIRST), at < (until or _LAST))
    with store.read() as connection:
        first, last = connection.execute(select(func.min(at), func.max(at)).where(period)).one()
    return last - first if first else timedelta()


def _tries(connection: Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    query = _TRIES.where(within(ATTEMPT.c.job_id, ids, connection)).order_by(ATTEMPT.c.job_id, ATTEMPT.c.n)
    for row in connection.execute(query):
        found.setdefault(row.job_id, []).append(row)
    return found


def _recorded(row: Any, tries: Sequence[Any]) -> Recorded:
    paid, blind = sum(one.cost_nano or 0 for one in tries), sum(one.cost_nano is None for one in tries)
    answers = tuple(_answered(one) for one in tries if _needed(one, row.finished_at))
    return Recorded._make([*row, paid, blind, answers])


def _needed(one: Any, finished_at: datetime | None) -> bool:
    """Whether the job needed this answer: one that came after the job had its own is paid for, but of no use."""
    return one.state == AttemptState.OK.value and finished_at is not None and one.ended_at <= finished_at


def _answered(one: Any) -> Answered:
    tokens = [one.input_tokens, one.output_tokens, one.cached_tokens, one.cache_write_tokens]
    usage = [number or 0 for number in tokens]
    return Answered._make([one.lane, one.tier, *usage, one.cost_nano, one.submitted_at or one.ended_at])


def stays(store: Store, since: datetime | None = None, until: datetime | None = None) -> Iterator[Stay]:
    """How long jobs were in their lanes that were submitted in this time; the rows of one batch are told as one."""
    period = and_(JOB.c.submitted_at >= (since or _FIRST), JOB.c.submitted_at < (until or _LAST))
    with store.read() as connection:
        for query in (_calls(), _rounds()):
            for row in connection.execute(query.where(period).execution_options(yield_per=1000)):
                began = row.submitted_at if row.whole else row.sent_at
                seconds = max((row.ended_at - began).total_seconds(), 0.0)
                yield Stay._make([*row[:5], began, seconds, bool(row.answered)])


_ANSWER = and_(
    ATTEMPT.c.state == AttemptState.OK.value,
    JOB.c.state == JobState.SUCCEEDED.value,
    ATTEMPT.c.ended_at <= JOB.c.finished_at,
)
_KIND: list[ColumnElement[Any]] = [ATTEMPT.c.provider, ATTEMPT.c.model, ATTEMPT.c.lane, ATTEMPT.c.tier,
                                   JOB.c.interactive, JOB.c.submitted_at]  # fmt: skip


def _calls() -> Select[Any]:
    """Live calls, each for itself."""
    whole = JOB.c.step == 0
    columns = [ATTEMPT.c.sent_at, ATTEMPT.c.ended_at, whole.label("whole"), _ANSWER.label("answered")]
    query = select(*_KIND, *columns).join(JOB, JOB.c.id == ATTEMPT.c.job_id)
    return query.where(_ANSWER, among(ATTEMPT.c.lane, _LIVE))


def _rounds() -> Select[Any]:
    """Rows of batches that came in together; those that left a lane without an answer stayed in it so long."""
    left = and_(
        JOB.c.step > 0, among(ATTEMPT.c.state, (AttemptState.EXPIRED, AttemptState.CANCELLED, AttemptState.FAILED))
    )
    answered = _ANSWER.label("answered")
    ended = [func.min(ATTEMPT.c.sent_at).label("sent_at"), func.max(ATTEMPT.c.ended_at).label("ended_at")]
    query = select(*_KIND, *ended, literal(True).label("whole"), answered)
    return (
        query.join(JOB, JOB.c.id == ATTEMPT.c.job_id)
        .where(or_(_ANSWER, left), or_(among(ATTEMPT.c.lane, _SLOW), and_(left, ATTEMPT.c.tier == Tier.FLEX.value)))
        .group_by(*_KIND, ATTEMPT.c.batch_id, "answered")
    )
