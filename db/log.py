"""The log of deltas: answers that are still coming, in order, for readers who join late, leave and come back."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, select

from db.dialect import upsert
from db.engine import Store, StoreError
from db.ledger import ATTEMPT, JOB
from db.prepared import Prepared
from db.states import FINAL, AttemptState, DeltaKind, JobState
from db.tables import LoggedDelta, Result, among, table

DELTA = table(LoggedDelta)
RESULT = table(Result)


class Piece(NamedTuple):
    """A run of deltas of one kind and choice. `seq` counts the characters of the attempt before it, `position` those
    of the first choice's text alone.
    """

    job_id: str
    attempt: int
    seq: int
    position: int
    choice: int
    kind: str
    text: str


class Tail(NamedTuple):
    """Where a job stands, and what there is of its answer: pieces while it comes, words once they are stored."""

    state: JobState
    attempt: int  # the newest, or the one that `stored` is of
    pieces: Sequence[Piece]
    stored: str | None


_GIVEN: dict[str, Any] = {name: bindparam(f"b_{name}", type_=DELTA.c[name].type) for name in Piece._fields}
_OPEN = (
    select(*_GIVEN.values())
    .select_from(ATTEMPT)
    .where(
        ATTEMPT.c.job_id == bindparam("b_job_id"),
        ATTEMPT.c.n == bindparam("b_attempt"),
        among(ATTEMPT.c.state, (AttemptState.SENT,)),
    )
    .with_for_update(read=True)  # on PostgreSQL: no piece can come after the settlement that drops them
)
_APPEND = upsert(DELTA).from_select(list(_GIVEN), _OPEN).on_conflict_do_nothing()
_APPEND_MANY = Prepared(_APPEND)
_PRUNE = delete(DELTA).where(DELTA.c.job_id == bindparam("b_job_id"), DELTA.c.attempt <= bindparam("b_attempt"))
_HEAD = (
    select(JOB.c.state, JOB.c.attempts, RESULT.c.attempt, RESULT.c.text, RESULT.c.partial)
    .join(RESULT, RESULT.c.job_id == JOB.c.id, isouter=True)
    .where(JOB.c.id == bindparam("b_job_id"))
)
_ONE = DELTA.c.job_id == bindparam("b_job_id"), DELTA.c.attempt == bindparam("b_attempt")
_SEQ: Any = bindparam("b_seq")
_FROM = select(*DELTA.c).where(*_ONE, DELTA.c.seq >= _SEQ).order_by(DELTA.c.seq)
_BEGIN = select(DELTA.c.seq).where(*_ONE, DELTA.c.seq <= _SEQ).order_by(DELTA.c.seq.desc()).limit(1)


class Writer:
    """The one writer of a process. It runs for every few deltas, so it goes past SQLAlchemy: a third of the work."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._raw = store.raw() if store.path else None
        compiled = _APPEND.compile(dialect=store.dialect)
        self._statement = str(compiled)
        self._names = [name.removeprefix("b_") for name in compiled.positiontup or ()]

    def append(self, pieces: Iterable[Piece]) -> bool:
        """Write pieces of attempts that are open; those of settled ones are dropped, since their words are stored.

        False when the database was busy or full, so that the same is to be written later.
        """
        if self._raw is None:
            return self._append_shared(pieces)
        rows = [tuple(getattr(piece, name, AttemptState.SENT.value) for name in self._names) for piece in pieces]
        with self._store.turn:
            cursor = self._raw.cursor()
            try:
                cursor.execute("BEGIN IMMEDIATE")
                cursor.executemany(self._statement, rows)
                cursor.execute("COMMIT")
            except sqlite3.OperationalError:
                return False
            finally:
                self._raw.rollback()  # nothing is left of a failed write; after a commit it does nothing
                cursor.close()
        self._store.tidied()
        return True

    def _append_shared(self, pieces: Iterable[Piece]) -> bool:
        """The same on PostgreSQL, where a connection can be lost, and attempts are held in one order by all writers."""
        rows = [{f"b_{name}": value for name, value in piece._asdict().items()} for piece in sorted(pieces)]
        try:
            with self._store.write() as connection:
                _APPEND_MANY.run(connection, rows)
        except StoreError:
            return False
        return True

    def close(self) -> None:
        """Give the connection back."""
        if self._raw is not None:
            self._raw.close()


def prune(connection: Connection, attempts: Iterable[tuple[str, int]]) -> None:
    """Drop the pieces of these attempts of jobs, and of those before them."""
    rows = [{"b_job_id": job_id, "b_attempt": n} for job_id, n in attempts]
    if rows:
        connection.execute(_PRUNE, rows)


def heard(connection: Connection, job_id: str, n: int) -> dict[tuple[int, DeltaKind], str]:
    """What was logged of an attempt, joined, by choice and kind."""
    joined: dict[tuple[int, DeltaKind], str] = {}
    for row in connection.execute(_FROM, {"b_job_id": job_id, "b_attempt": n, "b_seq": 0}):
        piece = Piece(*row)
        which = piece.choice, DeltaKind(piece.kind)
        joined[which] = joined.get(which, "") + piece.text
    return joined


def tail(store: Store, job_id: str, attempt: int, seq: int) -> Tail | None:
    """What there is of a job's answer after `seq` characters of an attempt; None when there is no such job.

    The words of another attempt come whole. A piece that began before `seq` comes whole, too.
    """
    with store.read() as connection:
        head = connection.execute(_HEAD, {"b_job_id": job_id}).first()
        if head is None:
            return None
        state, newest, stored_of, text, partial = head
        state = JobState(state)
        if stored_of is not None and (not partial or stored_of == newest or state in FINAL):
            return Tail(state, stored_of, (), text)
        where: dict[str, Any] = {"b_job_id": job_id, "b_attempt": newest, "b_seq": seq if attempt == newest else 0}
        where["b_seq"] = connection.scalar(_BEGIN, where) or 0
        return Tail(state, newest, [Piece(*row) for row in connection.execute(_FROM, where)], None)
