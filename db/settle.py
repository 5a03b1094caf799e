"""How attempts end: the ledger, the answer and the job's move, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Boolean, and_, bindparam, case, false, func, not_, null, or_, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from db import ledger
from db.engine import Store
from db.ledger import ATTEMPT, JOB, Charge, Settled
from db.plans import Onto
from db.states import FINAL, AttemptState, JobState, Lane
from db.tables import Result, among, table

RESULT = table(Result)

_LONGEST_CALL = timedelta(hours=1)  # four times what a call may take by default
_NO_LEASE: dict[str, Any] = {"lease_by": None, "lease_until": None}


@dataclass(frozen=True, slots=True)
class Text:
    """The words of an answer; `partial` ones give way to a later full answer."""

    text: str
    finish_reason: str | None = None
    truncated: bool = False
    partial: bool = False
    refusal: str | None = None
    tool_calls: Any = None
    choices: Any = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The job has its answer."""

    result: Text


@dataclass(frozen=True, slots=True)
class Failed:
    """The job will not be tried again."""

    code: str
    error: str
    result: Text | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The job waits for its next try, in its lane or in the one that its plan goes `onto`."""

    run_after: datetime
    code: str
    error: str
    result: Text | None = None
    onto: Onto | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Its reader left, or a person said so."""

    result: Text | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Only this attempt ends: its owner keeps the job and opens the next one, or the job has ended otherwise."""

    result: Text | None = None


Ending = Succeeded | Failed | Again | Cancelled | Held


@dataclass(frozen=True, slots=True)
class Settlement:
    """An attempt, what it cost, and what becomes of its job."""

    job_id: str
    n: int
    charge: Charge
    ending: Ending


def settle(store: Store, settlements: Sequence[Settlement], now: datetime) -> None:
    """Close attempts, keep answers, move their jobs. Settling the same attempt again changes nothing.

    The first answer is the result whatever the job was by then (a late one too), every answer is charged; any other
    ending moves a job only while that attempt is its newest and it is still held.
    """
    with store.write() as connection:
        ledger.close(connection, [Settled(one.job_id, one.n, one.charge) for one in settlements], now)
        texts = [_text(one, now) for one in settlements if one.ending.result]
        if texts:
            connection.execute(_KEEP, texts)
        for kind, statement in _MOVES.items():
            moves = [_move(one, now) for one in settlements if type(one.ending) is kind]
            if moves:
                connection.execute(statement, moves)


def _text(one: Settlement, now: datetime) -> dict[str, Any]:
    result = one.ending.result
    assert result is not None
    return {
        "job_id": one.job_id,
        "attempt": one.n,
        "text": result.text,
        "refusal": result.refusal or None,
        "tool_calls": result.tool_calls,
        "choices": result.choices,
        "finish_reason": result.finish_reason,
        "truncated": result.truncated,
        "partial": result.partial or not isinstance(one.ending, Succeeded),
        "output": result.output,
        "stored_at": now,
    }


def _move(one: Settlement, now: datetime) -> dict[str, Any]:
    move: dict[str, Any] = {"b_id": one.job_id, "b_n": one.n, "b_now": now}
    match one.ending:
        case Again(run_after, code, error, _, onto):
            move |= {"b_after": run_after, "b_code": code, "b_error": error, "b_onto": onto is not None}
            move |= {f"b_{name}": getattr(onto, name, None) for name in ("step", "lane", "tier", "leave_by")}
        case Failed(code, error):
            move |= {"b_code": code, "b_error": error}
    return move


_NEW = upsert(RESULT)
_KEEP = _NEW.on_conflict_do_update(
    index_elements=["job_id"],
    set_={column.name: _NEW.excluded[column.name] for column in RESULT.c if column.name != "job_id"},
    where=and_(
        RESULT.c.partial == true(),
        or_(_NEW.excluded.partial == false(), _NEW.excluded.attempt >= RESULT.c.attempt),
    ),
)
_ID = JOB.c.id == bindparam("b_id")
_NEWEST = and_(_ID, JOB.c.attempts == bindparam("b_n"), among(JOB.c.state, (JobState.RUNNING, JobState.SUBMITTED)))
_NOW = bindparam("b_now", type_=JOB.c.finished_at.type)
_WHY: dict[str, Any] = {"error_code": bindparam("b_code"), "error": bindparam("b_error")}
_MOVES: dict[type[Ending], Any] = {
    Succeeded: update(JOB)
    .where(_ID, not_(among(JOB.c.state, FINAL)))
    .values(state=JobState.SUCCEEDED.value, finished_at=_NOW, error_code=None, error=None, **_NO_LEASE),
    Failed: update(JOB).where(_NEWEST).values(state=JobState.FAILED.value, finished_at=_NOW, **_WHY, **_NO_LEASE),
    Again: update(JOB)
    .where(_NEWEST)
    .values(
        state=JobState.QUEUED.value,
        run_after=bindparam("b_after", type_=JOB.c.run_after.type),
        batch_id=null(),
        step=func.coalesce(bindparam("b_step"), JOB.c.step),
        lane=func.coalesce(bindparam("b_lane"), JOB.c.lane),
        tier=func.coalesce(bindparam("b_tier"), JOB.c.tier),
        leave_by=case(
            (bindparam("b_onto", type_=Boolean), bindparam("b_leave_by", type_=JOB.c.leave_by.type)),
            else_=JOB.c.leave_by,
        ),
        **_WHY,
        **_NO_LEASE,
    ),
    Cancelled: update(JOB).where(_NEWEST).values(state=JobState.CANCELLED.value, finished_at=_NOW, **_NO_LEASE),
}


def rescue(store: Store, now: datetime, tries: int) -> int:
    """End what dead owners left: attempts become `unknown`; bulk jobs are queued again while tries are left.

    A job whose person is gone is never sent again to nobody: it fails as abandoned. How many jobs there were.
    """
    expired = and_(JOB.c.state == JobState.RUNNING.value, JOB.c.lease_until < now)
    # A job can end by a late answer while another attempt at it runs; nobody holds that one to its end.
    unheld = and_(
        among(ATTEMPT.c.state, (AttemptState.SENT,)),
        among(ATTEMPT.c.lane, (Lane.STREAM, Lane.SYNC)),
        ATTEMPT.c.sent_at < now - _LONGEST_CALL,
        JOB.c.state != JobState.RUNNING.value,
    )
    with store.write() as connection:
        lost = connection.execute(select(JOB.c.id, JOB.c.attempts).where(expired)).all()
        orphans = select(ATTEMPT.c.job_id, ATTEMPT.c.n).join(JOB, JOB.c.id == ATTEMPT.c.job_id).where(unheld)
        gone = [*lost, *connection.execute(orphans)]
        charge = Charge(AttemptState.UNKNOWN, error_code="owner_died", error="its process ended before the answer")
        ledger.close(connection, [Settled(job_id, n, charge) for job_id, n in gone], now)
        again = and_(JOB.c.interactive.is_(False), JOB.c.attempts < tries)
        connection.execute(
            update(JOB)
            .where(expired)
            .values(
                state=case((again, JobState.QUEUED.value), else_=JobState.FAILED.value),
                finished_at=case((again, null()), else_=now),
                run_after=now,
                error_code="abandoned",
                error="its process ended before the answer; the attempt may have been billed",
                **_NO_LEASE,
            )
        )
    return len(lost)
