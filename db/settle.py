"""How attempts end: the ledger, the answer and the job's move, in one transaction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Boolean, Connection, and_, bindparam, case, false, func, not_, null, or_, select, true, update

from db import ledger, log
from db.dialect import hold_ids, upsert, within
from db.engine import Store, repeatable
from db.ledger import ATTEMPT, JOB, Charge, Settled
from db.log import RESULT
from db.plans import Onto
from db.prepared import Prepared
from db.states import FINAL, JobState
from db.tables import among

NO_LEASE: dict[str, Any] = {"lease_by": None, "lease_until": None}


class Text(NamedTuple):  # a tuple, as a Settlement is: an import makes tens of thousands of them
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


class Settlement(NamedTuple):
    """An attempt, what it cost, and what becomes of its job; `logged`: its deltas went to the log."""

    job_id: str
    n: int
    charge: Charge
    ending: Ending
    logged: bool = False


Still = Callable[[Connection], bool]  # whether what a settlement rests on still holds


@repeatable
def settle(store: Store, settlements: Sequence[Settlement], now: datetime) -> None:
    """Close attempts, keep answers, move their jobs. Settling the same attempt again changes nothing.

    The first answer is the result whatever the job was by then (a late one too), every answer is charged; any other
    ending moves a job only while that attempt is its newest and it is still held.
    """
    _settle(store, settlements, now, None)


@repeatable
def settle_while(store: Store, settlements: Sequence[Settlement], now: datetime, still: Still) -> bool:
    """The same where `still` says so in its transaction, once the jobs are held; else nothing is done, and False."""
    return _settle(store, settlements, now, None, still) is not None


@repeatable
def settle_rows(store: Store, settlements: Sequence[Settlement], now: datetime, batch_id: str) -> Sequence[Settlement]:
    """The same for what a batch's results say; what is none of its rows is left out, and what is comes back."""
    return _settle(store, settlements, now, batch_id) or ()


def _settle(
    store: Store, settlements: Sequence[Settlement], now: datetime, batch_id: str | None, still: Still | None = None
) -> Sequence[Settlement] | None:
    with store.write() as connection:
        hold_ids(connection, JOB, [one.job_id for one in settlements])
        if still is not None and not still(connection):
            return None
        ends = [Settled(*one[:3], isinstance(one.ending, Succeeded)) for one in settlements]
        with ledger.closing(connection, ends, now, batch_id) as closed:
            if batch_id is not None and closed < len(settlements):  # settled before, or not ours
                settlements = _of_batch(connection, settlements, batch_id)
            texts = [(one, one.ending.result) for one in settlements]
            keep(connection, [(one.job_id, one.n, words, isinstance(one.ending, Succeeded))
                              for one, words in texts if words and _says(words)], now)  # fmt: skip
            log.prune(connection, [(one.job_id, one.n) for one in settlements if one.logged])
            for kind, statement in _MOVES.items():
                moves = [_move(one, now) for one in settlements if type(one.ending) is kind]
                if moves:
                    statement.many(connection, _MOVED[: len(moves[0])], moves)
    return settlements


def _of_batch(connection: Connection, settlements: Sequence[Settlement], batch_id: str) -> list[Settlement]:
    tries = select(ATTEMPT.c.job_id, ATTEMPT.c.n, ATTEMPT.c.batch_id)
    theirs = connection.execute(tries.where(within(ATTEMPT.c.job_id, [one.job_id for one in settlements], connection)))
    rows = {(job_id, n) for job_id, n, where in theirs if where == batch_id}
    return [one for one in settlements if one[:2] in rows]


def _says(text: Text) -> bool:
    return bool(not text.partial or text.text or text.refusal or text.tool_calls or text.choices)


def keep(connection: Connection, texts: Iterable[tuple[str, int, Text, bool]], now: datetime) -> None:
    """Store the results of attempts (job, number, words, whether they are the job's answer) that are not kept yet."""
    rows = [
        (job_id, n, now, text.partial or not final, text.refusal or None, *_words(text))
        for job_id, n, text, final in texts
    ]
    if rows:
        _KEEP.many(connection, _KEPT, rows)


def _move(one: Settlement, now: datetime) -> tuple[Any, ...]:
    match one.ending:
        case Again(run_after, code, error, _, onto):
            steps = (getattr(onto, name, None) for name in ("step", "lane", "tier", "leave_by"))
            return one.job_id, one.n, now, code, error, run_after, onto is not None, *steps
        case Failed(code, error):
            return one.job_id, one.n, now, code, error
    return one.job_id, one.n, now


_MOVED = ("b_id b_n b_now b_code b_error b_after b_onto b_step b_lane b_tier b_leave_by").split()
_SAID = ("text", "tool_calls", "choices", "finish_reason", "truncated", "output")  # fields of Text as they are stored
_words = attrgetter(*_SAID)
_RESULT = {name: bindparam(f"b_{name}", type_=RESULT.c[name].type)
           for name in ("job_id", "attempt", "stored_at", "partial", "refusal", *_SAID)}  # fmt: skip
_KEPT = [f"b_{name}" for name in _RESULT]
_NEW = upsert(RESULT).from_select(list(_RESULT), select(*_RESULT.values()).where(true()))
_KEEP = Prepared(
    _NEW.on_conflict_do_update(
        index_elements=["job_id"],
        set_={name: _NEW.excluded[name] for name in _RESULT if name != "job_id"},
        where=and_(
            RESULT.c.partial == true(),
            or_(_NEW.excluded.partial == false(), _NEW.excluded.attempt >= RESULT.c.attempt),
        ),
    )
)
_ID = JOB.c.id == bindparam("b_id")
_NEWEST = and_(_ID, JOB.c.attempts == bindparam("b_n"), among(JOB.c.state, (JobState.RUNNING, JobState.SUBMITTED)))
_NOW = bindparam("b_now", type_=JOB.c.finished_at.type)
_WHY: dict[str, Any] = {"error_code": bindparam("b_code"), "error": bindparam("b_error")}
_UPDATES: dict[type[Ending], Any] = {
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
_MOVES = {kind: Prepared(statement) for kind, statement in _UPDATES.items()}
