"""What reports read instead of attempts: their sums, and sketches of their times, by quarter of an hour and kind.

They are written in the transaction that changes the attempts, after all else, in the order of their keys: two writers
never wait for each other in a circle. Rows without tags hold every attempt; those with tags the tagged ones again.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Connection, LargeBinary, Text, bindparam, select, text, update
from sqlmodel import Field, SQLModel

from db.dialect import upsert
from db.prepared import Prepared
from db.sketches import packed, pour
from db.states import FINAL
from db.tables import table
from db.tallies import KEY, SENT, SUCCEEDED, SUMS, TIMES, WHERE, Fact, Tally, may_answer
from db.words import FACTS, WITHIN, said


class Rollup(SQLModel, table=True):
    """The attempts of one kind and end that were sent in one quarter of an hour."""

    __tablename__ = "rollup"
    tags: str = Field(sa_type=Text, primary_key=True)  # as the job has them; empty for all attempts
    begins_at: datetime = Field(primary_key=True)
    lane: str = Field(sa_type=Text, primary_key=True)
    class_: str = Field(sa_column=Column("class", Text, primary_key=True))
    tier: str = Field(sa_type=Text, primary_key=True)
    model: str = Field(sa_type=Text, primary_key=True)
    provider: str = Field(sa_type=Text, primary_key=True)
    state: str = Field(sa_type=Text, primary_key=True)
    error_code: str = Field(sa_type=Text, primary_key=True)  # empty for none
    attempts: int = Field(sa_type=BigInteger)
    jobs: int = Field(sa_type=BigInteger)  # whose first attempt is here
    priced: int = Field(sa_type=BigInteger)  # attempts of known cost
    cost_nano: int = Field(sa_type=BigInteger)
    standard_nano: int = Field(sa_type=BigInteger)
    at_risk_nano: int = Field(sa_type=BigInteger)  # of those of unknown cost
    input_tokens: int = Field(sa_type=BigInteger)
    cached_tokens: int = Field(sa_type=BigInteger)
    cache_write_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    reasoning_tokens: int = Field(sa_type=BigInteger)
    compared: int = Field(sa_type=BigInteger)  # attempts whose cost and standard price are both known
    paid_nano: int = Field(sa_type=BigInteger)  # for those
    plain_nano: int = Field(sa_type=BigInteger)  # what plain calls would have cost instead of those


class RollupTimes(SQLModel, table=True):
    """How long the attempts of one kind and quarter of an hour took: a sketch for each thing that is measured."""

    __tablename__ = "rollup_times"
    begins_at: datetime = Field(primary_key=True)
    lane: str = Field(sa_type=Text, primary_key=True)
    class_: str = Field(sa_column=Column("class", Text, primary_key=True))
    tier: str = Field(sa_type=Text, primary_key=True)
    model: str = Field(sa_type=Text, primary_key=True)
    provider: str = Field(sa_type=Text, primary_key=True)
    first_token: bytes | None = Field(default=None, sa_type=LargeBinary)
    gap: bytes | None = Field(default=None, sa_type=LargeBinary)
    call: bytes | None = Field(default=None, sa_type=LargeBinary)
    wait: bytes | None = Field(default=None, sa_type=LargeBinary)
    turnaround: bytes | None = Field(default=None, sa_type=LargeBinary)
    batch: bytes | None = Field(default=None, sa_type=LargeBinary)


ROLLUP, TIMED = table(Rollup), table(RollupTimes)

Try = tuple[str, int]  # job, attempt
Closed = tuple[str, int, Any, bool]  # a try, its charge, and whether it brings its job's answer


class Adjusted(NamedTuple):
    """What an attempt is now taken to have cost, and before: nano-dollars, None where it is unknown."""

    job_id: str
    n: int
    cost_nano: tuple[int | None, int | None]  # before, now
    standard_nano: tuple[int | None, int | None]


# ---- what changes attempts ----


@contextmanager
def changing(connection: Connection, job_ids: Sequence[str]) -> Iterator[None]:
    """Roll up what the block changes of these jobs' attempts, new ones too. The jobs are held by this transaction."""
    before = _facts(connection, job_ids)
    yield
    tally = Tally()
    for one, fact in _facts(connection, job_ids).items():
        if fact != before.get(one):
            tally.change(before.get(one), fact)
    keep(connection, tally)


class Closing:
    """Attempts that are about to be closed: what they were, and then what their ends come to."""

    def __init__(self, connection: Connection, job_ids: Sequence[str]) -> None:
        self._facts = _facts(connection, job_ids)
        self._tally = Tally()

    def keep(self, connection: Connection, closed: Sequence[Closed], now: datetime, batch_id: str | None) -> None:
        """Roll up what the ledger's own statement did, by its rules: only what was open was closed."""
        alike: defaultdict[Any, list[tuple[Fact, Any]]] = defaultdict(list)
        kinds: dict[int, tuple[Any, ...]] = {}
        once = len({one[:2] for one in closed}) == len(closed)
        for one in closed:
            before, charge = self._facts.get(one[:2]), one[2]
            if before is None or before.state not in _OPEN or (batch_id is not None and before.batch_id != batch_id):
                continue
            if once:  # alike are those with all in common that is no amount
                if (kind := kinds.get(id(before))) is None:
                    kind = kinds[id(before)] = before[1:16]
                end = kind, charge.state, charge.error_code, charge.tier, charge.total_ms is None, one[3]
                alike[end].append((before, charge))
            else:
                self._facts[one[:2]] = self._close(before, charge, now, answers=one[3])
        for kind, rows in alike.items():
            self._close_all(rows, now, answers=kind[-1])
        keep(connection, self._tally)

    def _close_all(self, rows: Sequence[tuple[Fact, Any]], now: datetime, *, answers: bool) -> None:
        """Rows of a batch that end alike are added up column by column: an import has nearly no others."""
        before, charge = rows[0]
        costs, standards, *others = zip(*(_SUMMED(charge) for _, charge in rows), strict=True)
        plain = before.state == SENT and before.job_state not in FINAL and charge.total_ms is None
        in_batch = before.batch_id is not None  # open live calls were never counted
        if len(rows) < _MANY or not (plain and in_batch) or None in costs or None in standards:
            for before, charge in rows:
                self._close(before, charge, now, answers=answers)
            return
        totals = [sum(costs), sum(standards), *(sum(filter(None, column)) for column in others)]
        risk = sum(fact.at_risk_nano or 0 for fact, _ in rows)
        answers = answers and may_answer(charge.state.value, charge.error_code)
        self._tally.change_many(before, _closed(before, charge, now), len(rows), risk, totals, answers=answers)

    def _close(self, before: Fact, charge: Any, now: datetime, *, answers: bool) -> Fact:
        after = _closed(before, charge, now)
        answered = answers and before.job_state not in FINAL and may_answer(after.state, after.error_code)
        self._tally.change(before, after, answers=answered or None)
        return after._replace(job_state=SUCCEEDED, finished_at=now) if answered else after


_OPEN = (SENT, "unknown")
_MANY = 8  # rows that are worth their columns
_SUMMED = attrgetter(
    "cost_nano", "standard_nano", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens",
)  # fmt: skip


def _closed(before: Fact, charge: Any, now: datetime) -> Fact:
    """An attempt as the ledger's statement leaves it; its tier and its risk stay where the charge says nothing."""
    risk = before.at_risk_nano if charge.at_risk_nano is None else charge.at_risk_nano
    return Fact(
        before.job_id, before.n, charge.state.value, charge.error_code, before.lane, before.class_,
        charge.tier or before.tier, *before[7:12], now, *before[13:16], charge.first_token_ms, charge.gap_p50_ms,
        charge.total_ms, risk if charge.cost_nano is None else None, charge.cost_nano, charge.standard_nano,
        charge.input_tokens, charge.cached_tokens, charge.cache_write_tokens, charge.output_tokens,
        charge.reasoning_tokens, *before[27:],
    )  # fmt: skip


def opened(connection: Connection, batch_ids: Sequence[str]) -> None:
    """Roll up the rows of batches that were just packed."""
    found = connection.execute(text(said(connection, _PACKED)), {"ids": _list(connection, batch_ids)})
    tally = Tally()
    for row in found:
        tally.packed(*row)
    keep(connection, tally)


def adjust(connection: Connection, changed: Iterable[Adjusted]) -> None:
    """Roll up that closed attempts cost something else than was said: in the transaction that says so.

    What one without a known cost had at risk is at risk no longer; the states and the times stay.
    """
    rows = {(one.job_id, one.n): one for one in changed}
    facts = _facts(connection, sorted({job_id for job_id, _ in rows}))
    tally = Tally()
    for key, one in rows.items():
        if key in facts:
            old, new = (
                facts[key]._replace(adjusted_nano=one.cost_nano[n], adjusted_standard_nano=one.standard_nano[n])
                for n in (0, 1)
            )
            tally.adjust(old, new)
    keep(connection, tally)


def fill(connection: Connection) -> None:
    """Roll up every attempt there is, some at a time: for a database from before there were rollups, or re-pricings."""
    query = FACTS.replace(", a.adjusted_nano, a.adjusted_standard_nano", "")
    tally = Tally()
    for page in connection.execute(text(query), execution_options={"yield_per": _A_PAGE}).partitions():
        for row in page:
            tally.whole(Fact(*row))
        if len(tally.sums) > _KEPT:
            keep(connection, tally)
            tally = Tally()
    keep(connection, tally)


_A_PAGE, _KEPT = 5_000, 30_000  # attempts, and rollups in memory


# ---- what is read and written ----


def _facts(connection: Connection, job_ids: Sequence[str]) -> dict[Try, Fact]:
    """What is known of the attempts of these jobs; many of them share the facts of those that are alike."""
    statements, given = _THEIRS if len(job_ids) < _MANY else _ALIKE, _list(connection, job_ids)
    cursor: Any = connection.exec_driver_sql(statements[connection.dialect.name], (given,)).cursor
    facts = map(Fact._make, cursor.fetchall())  # SQLAlchemy's rows take as long as the query
    return {(job_id, fact.n): fact for fact in facts for job_id in fact.job_id.split(",")}


_THEIRS = {
    "sqlite": f"{FACTS} WHERE a.job_id IN (SELECT value FROM json_each(?))",  # noqa: S608 (all written above)
    "postgresql": f"{FACTS} WHERE a.job_id = ANY(%s)",
}
_REST = ", ".join(str(place) for place in range(2, len(Fact._fields) + 1))
_JOINED = {"sqlite": "group_concat(a.job_id)", "postgresql": "string_agg(a.job_id, ',')"}
_ALIKE = {
    name: f"{query.replace('a.job_id', _JOINED[name], 1)} GROUP BY {_REST}"  # the jobs of those with all else in common
    for name, query in _THEIRS.items()
}


def _list(connection: Connection, values: Sequence[str]) -> Any:
    return json.dumps([*values]) if connection.dialect.name == "sqlite" else [*values]


_PACKED = {
    name: f"""
SELECT a.sent_at, a.lane, d.class, a.tier, a.model, a.provider, CAST(j.tags AS VARCHAR),
    count(*), sum(CASE WHEN a.n = 1 THEN 1 ELSE 0 END), sum(a.at_risk_nano)
FROM attempt a JOIN job j ON j.id = a.job_id JOIN decision d ON d.id = j.decision_id
WHERE a.batch_id IN ({listed}) AND a.state = 'sent' GROUP BY 1, 2, 3, 4, 5, 6, 7
"""  # noqa: S608 (all written above)
    for name, listed in WITHIN.items()
}

_GIVEN = {name: bindparam(f"b_{name}", type_=ROLLUP.c[name].type) for name in (*KEY, *SUMS)}
_NEW = upsert(ROLLUP).values(_GIVEN)
_ADD = Prepared(
    _NEW.on_conflict_do_update(
        index_elements=[*KEY], set_={name: ROLLUP.c[name] + _NEW.excluded[name] for name in SUMS}
    )
)
_NAMES = [f"b_{name}" for name in (*KEY, *SUMS)]

_PLACE = {name: bindparam(f"b_{name}", type_=TIMED.c[name].type) for name in (*WHERE, *TIMES)}
_HERE = [TIMED.c[name] == _PLACE[name] for name in WHERE]
_HELD = Prepared(select(*(TIMED.c[name] for name in TIMES)).where(*_HERE).with_for_update())
_BEGIN = Prepared(upsert(TIMED).values(_PLACE).on_conflict_do_nothing())
_POUR = Prepared(update(TIMED).where(*_HERE).values({name: _PLACE[name] for name in TIMES}))


def keep(connection: Connection, tally: Tally) -> None:
    """Add a tally to what is stored, after all else that the transaction does."""
    rows = [(*key, *sums) for key, sums in sorted(tally.sums.items()) if any(sums)]
    if rows:
        _ADD.many(connection, _NAMES, rows)
    for key, times in sorted(tally.times.items()):
        _keep_times(connection, {f"b_{name}": value for name, value in zip(WHERE, key, strict=True)}, times)


def _keep_times(connection: Connection, place: dict[str, Any], times: Mapping[str, Counter[int]]) -> None:
    held = _HELD.run(connection, [place]).fetchone()
    if held is None:
        new = place | {f"b_{name}": packed(bins) for name, bins in times.items()}
        if _BEGIN.run(connection, [new]).rowcount:
            return
        held = _HELD.run(connection, [place]).fetchone()  # on PostgreSQL another writer has begun it since we looked
    stored = {f"b_{name}": bytes(one) if one is not None else None for name, one in zip(TIMES, held, strict=True)}
    for name, bins in times.items():
        if (known := stored[f"b_{name}"]) is not None:
            pour(known, bins)
        stored[f"b_{name}"] = packed(bins) or None
    _POUR.run(connection, [place | stored])
