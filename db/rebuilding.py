"""Rollups held against the attempts that they are of, and made anew where they differ, while others write.

They are checked a day at a time, in a view that waits for nobody. What differs is rebuilt a quarter of an hour at a
time, each in a write of its own into which nobody else's rollups come.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, text

from db.dialect import guard
from db.engine import Store, repeatable
from db.rollups import ROLLUP, TIMED, keep
from db.sketches import pour
from db.tallies import KEY, SUMS, TIMES, WHERE, Fact, Key, Tally, moment
from db.words import FACTS, given

_QUARTER, _DAY = timedelta(minutes=15), timedelta(days=1)
_A_PAGE = 5_000
_ATTEMPTS, _COST = SUMS.index("attempts"), SUMS.index("cost_nano")
_AT = KEY.index("begins_at")


class Differs(NamedTuple):
    """A quarter of an hour whose rollups are not what its attempts come to: what is stored, and what is right."""

    begins_at: datetime
    attempts: tuple[int, int]
    cost_nano: tuple[int, int]
    sums: bool  # whether any of its sums differs, also of what has tags
    times: bool  # and any of its sketches


class Seen(NamedTuple):
    """One day: how many attempts were sent in it, and what differs."""

    attempts: int
    differs: list[Differs]


class _Rolled(NamedTuple):
    """Rollups that hold anything, and the bins of their sketches that do."""

    sums: dict[Key, list[int]]
    times: dict[Key, dict[str, dict[int, int]]]


def check(store: Store) -> Iterator[Seen]:
    """Every day that has attempts or rollups, from the first on."""
    day: datetime | None = None
    while True:
        with store.read() as connection:
            at = _next(connection, day + _DAY if day else _FIRST)
            if at is None:
                return
            day = at.replace(hour=0, minute=0, second=0, microsecond=0)
            attempts, tally = _tallied(connection, day, day + _DAY)
            stored = _stored(connection, day, day + _DAY)
        yield Seen(attempts, _compared(stored, _of(tally)))


@repeatable
def rebuild(store: Store, begins_at: datetime) -> Differs | None:
    """Make the rollups of one quarter of an hour anew, if they differ still; what did.

    Whoever changes attempts writes their rollups last, as differences: those that are written before are seen here, and
    those that wait for this to end come on top.
    """
    with store.write(durable=True) as connection:
        guard(connection, "rollup", "rollup_times")
        _, tally = _tallied(connection, begins_at, begins_at + _QUARTER)
        found = _compared(_stored(connection, begins_at, begins_at + _QUARTER), _of(tally))
        if not found:
            return None
        for table in (ROLLUP, TIMED):
            connection.execute(delete(table).where(table.c.begins_at == begins_at))
        keep(connection, tally)
    return found[0]


_FIRST = datetime(1, 1, 2, tzinfo=UTC)
_NEXT = """SELECT min(at) FROM (SELECT min(sent_at) AS at FROM attempt WHERE sent_at >= :since
    UNION ALL SELECT min(begins_at) FROM rollup WHERE begins_at >= :since
    UNION ALL SELECT min(begins_at) FROM rollup_times WHERE begins_at >= :since) AS first"""


def _next(connection: Connection, since: datetime) -> datetime | None:
    found = connection.scalar(text(_NEXT), given(connection, {"since": since}))
    return moment(found) if found else None


def _tallied(connection: Connection, since: datetime, until: datetime) -> tuple[int, Tally]:
    """How many attempts were sent in this time, and what they come to."""
    query = text(f"{FACTS} WHERE a.sent_at >= :since AND a.sent_at < :until")
    span = given(connection, {"since": since, "until": until})
    tally, attempts = Tally(), 0
    for page in connection.execute(query, span, execution_options={"yield_per": _A_PAGE}).partitions():
        attempts += len(page)
        for row in page:
            tally.whole(Fact._make(row))
    return attempts, tally


def _of(tally: Tally) -> _Rolled:
    times = {key: _filled(measured) for key, measured in tally.times.items()}
    return _Rolled(
        {key: values for key, values in tally.sums.items() if any(values)},
        {key: measured for key, measured in times.items() if measured},
    )


def _stored(connection: Connection, since: datetime, until: datetime) -> _Rolled:
    span = given(connection, {"since": since, "until": until})
    where = "WHERE begins_at >= :since AND begins_at < :until"
    rows = connection.execute(text(f"SELECT {', '.join((*KEY, *SUMS))} FROM rollup {where}"), span)  # noqa: S608
    sums = {(row[0], moment(row[1]), *row[2 : len(KEY)]): [*row[len(KEY) :]] for row in rows}
    times: dict[Key, dict[str, dict[int, int]]] = {}
    query = f"SELECT {', '.join((*WHERE, *TIMES))} FROM rollup_times {where}"  # noqa: S608 (names of columns)
    for row in connection.execute(text(query), span):
        measured: defaultdict[str, Counter[int]] = defaultdict(Counter)
        for name, sketch in zip(TIMES, row[len(WHERE) :], strict=True):
            if sketch is not None:
                pour(bytes(sketch), measured[name])
        times[moment(row[0]), *row[1 : len(WHERE)]] = _filled(measured)
    return _Rolled(
        {key: values for key, values in sums.items() if any(values)}, {key: one for key, one in times.items() if one}
    )


def _filled(measured: Mapping[str, Mapping[int, int]]) -> dict[str, dict[int, int]]:
    filled = {name: {number: count for number, count in bins.items() if count} for name, bins in measured.items()}
    return {name: bins for name, bins in filled.items() if bins}


def _compared(stored: _Rolled, right: _Rolled) -> list[Differs]:
    """The quarters that differ, in order."""
    sums = {key[_AT] for key in stored.sums.keys() | right.sums.keys() if stored.sums.get(key) != right.sums.get(key)}
    times = {
        key[0] for key in stored.times.keys() | right.times.keys() if stored.times.get(key) != right.times.get(key)
    }
    return [
        Differs(at, _both(stored, right, at, _ATTEMPTS), _both(stored, right, at, _COST), at in sums, at in times)
        for at in sorted(sums | times)
    ]


def _both(stored: _Rolled, right: _Rolled, at: Any, column: int) -> tuple[int, int]:
    """A sum over all attempts of a quarter: those with tags are in the rows without, too."""
    before, after = (
        sum(values[column] for key, values in one.sums.items() if key[_AT] == at and not key[0])
        for one in (stored, right)
    )
    return before, after
