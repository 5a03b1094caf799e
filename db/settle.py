"""How attempts end: the ledger, the answer and the job's move, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, and_, bindparam, case, false, func, not_, null, or_, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from db import ledger, log
from db.engine import Store
from db.ledger import JOB, Charge, Settled
from db.log import RESULT
from db.plans import Onto
from db.states import FINAL, JobState
from db.tables import among

NO_LEASE: dict[str, Any] = {"lease_by": None, "lease_until": None}


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
    """An attempt, what it cost, and what becomes of its job; `logged`: its deltas went to the log."""

    job_id: str
    n: int
    charge: Charge
    ending: Ending
    logged: bool = False


def settle(store: Store, settlements: Sequence[Settlement], now: datetime) -> None:
    """Close attempts, keep answers, move their jobs. Settling the same attempt again changes nothing.

    The first answer is the result whatever the job was by then (a late one too), every answer is charged; any other
    ending moves a job only while that attempt is its newest and it is still held.
    """
    with store.write() as connection:
        ledger.close(connection, [Settled(one.job_id, one.n, one.charge) for one in settlements], now)
        texts = [row_of(one.job_id, one.n, one.ending.result, isinstance(one.ending, Succeeded), now)
                 for one in settlements if one.ending.result and _says(one.ending.result)]  # fmt: skip
        if texts:
            connection.execute(KEEP, texts)
        log.prune(connection, [(one.job_id, one.n) for one in settlements if one.logged])
        for kind, statement in _MOVES.items():
            moves = [_move(one, now) for one in settlements if type(one.ending) is kind]
            if moves:
                connection.execute(statement, moves)


def _says(text: Text) -> bool:
    return bool(not text.partial or text.text or text.refusal or text.tool_calls or text.choices)


def row_of(job_id: str, n: int, text: Text, final: bool, now: datetime) -> dict[str, Any]:
    """A result as KEEP stores it."""
    return {
        "job_id": job_id,
        "attempt": n,
        "text": text.text,
        "refusal": text.refusal or None,
        "tool_calls": text.tool_calls,
        "choices": text.choices,
        "finish_reason": text.finish_reason,
        "truncated": text.truncated,
        "partial": text.partial or not final,
        "output": text.output,
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
KEEP = _NEW.on_conflict_do_update(
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
    .values(state=JobState.SUCCEEDED.value, finished_at=_NOW, error_code=None, error=None, **NO_LEASE),
    Failed: update(JOB).where(_NEWEST).values(state=JobState.FAILED.value, finished_at=_NOW, **_WHY, **NO_LEASE),
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
        **NO_LEASE,
    ),
    Cancelled: update(JOB).where(_NEWEST).values(state=JobState.CANCELLED.value, finished_at=_NOW, **NO_LEASE),
}
