"""What /metrics shows, read in one transaction: totals from the rollups, and how things stand now.

A counter must never fall, or whoever watches it takes that for a new beginning and counts all of it again. So attempts
are counted once they are final, and costs as they were first charged; re-pricings stand beside them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from db.engine import Store
from db.sketches import Bins, pour
from db.standing import Standing, standing
from db.states import JobState
from db.summing import Group, Period, sums
from db.tallies import SUMS, WHERE, quarter
from db.words import given

KIND = ("lane", "model", "provider")
MEASURED = ("first_token", "call", "wait", "turnaround")
_BEFORE = timedelta(days=1)  # times are those of attempts that were sent since then, when they are first read
_CLOSED = timedelta(days=3)  # after which no attempt of a quarter of an hour is still to end

Sketches = Mapping[Group, Mapping[str, Bins]]
OpenBatches = Mapping[tuple[str, str, str], tuple[int, int, int]]  # state, model, provider: batches, rows, done rows


@dataclass(frozen=True, slots=True)
class Reading:
    """The numbers at one time: `sums` as in SUMS by KIND and state, `adjusted` in nano-dollars by KIND."""

    sums: Mapping[Group, list[int]]
    adjusted: Mapping[Group, int]
    times: Sketches
    jobs: Mapping[str, int]
    batches: OpenBatches
    workers: int
    budgets: list[Standing]


@dataclass(slots=True)
class _Adjusted:
    """What all re-pricings changed, kept while there is no new one: to add it up takes a look at each attempt."""

    rows: int = 0
    nano: int = 0
    by: dict[Group, int] = field(default_factory=dict)


class _Times:
    """Sketches of times since a day before they were first read, added up: a histogram may begin anywhere.

    Only what has changed since the last time is looked into.
    """

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._known: dict[tuple[Any, ...], tuple[bytes | None, ...]] = {}  # as stored, by the keys of their rows
        self.sums: defaultdict[Group, defaultdict[str, Bins]] = defaultdict(lambda: defaultdict(Counter))

    def read(self, connection: Connection, now: datetime) -> Sketches:
        self._since = max(self._since or quarter(now - _BEFORE), quarter(now - _CLOSED))
        found: dict[tuple[Any, ...], tuple[bytes | None, ...]] = {}
        for row in connection.execute(_STORED, given(connection, {"since": self._since})):
            key, stored = tuple(row[: len(WHERE)]), tuple(row[len(WHERE) :])
            found[key] = stored
            if (before := self._known.get(key)) != stored:
                self._change(key, before, stored)
        self._known = found
        return self.sums

    def _change(self, key: tuple[Any, ...], before: Sequence[bytes | None] | None, now: Sequence[bytes | None]) -> None:
        place = dict(zip(WHERE, key, strict=True))
        sums = self.sums[tuple(place[name] for name in KIND)]
        for n, name in enumerate(MEASURED):
            if before and (old := before[n]) is not None:
                gone: Bins = Counter()
                pour(bytes(old), gone)
                sums[name].subtract(gone)
            if (new := now[n]) is not None:
                pour(bytes(new), sums[name])


class Reader:
    """Reads them again and again, and keeps what was added up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._adjusted, self._times = _Adjusted(), _Times()

    def read(self, now: datetime, dead_s: float) -> Reading:
        """As they are now; a worker that has not beaten for `dead_s` seconds is none."""
        budgets = standing(self._store, now)
        with self._store.read() as connection:
            return Reading(
                sums(connection, KIND, Period(), ["state"]),
                self._repriced(connection),
                self._times.read(connection, now),
                _jobs(connection),
                _batches(connection),
                _workers(connection, now - timedelta(seconds=dead_s)),
                budgets,
            )

    def _repriced(self, connection: Connection) -> Mapping[Group, int]:
        rows, nano = map(int, connection.execute(_ADJUSTED).one())
        known = self._adjusted
        if (rows, nano) != (known.rows, known.nano):
            by = {tuple(row[:-1]): int(row[-1]) for row in connection.execute(_ADJUSTED_BY)}
            self._adjusted = known = _Adjusted(rows, nano, by)
        return known.by


_STORED = text(f"SELECT {', '.join((*WHERE, *MEASURED))} FROM rollup_times WHERE begins_at >= :since")  # noqa: S608 (names)
_ADJUSTED = text("SELECT count(*), coalesce(sum(difference_nano), 0) FROM adjustment")
_ADJUSTED_BY = text("""SELECT a.lane, a.model, a.provider, sum(d.difference_nano) FROM adjustment d
    JOIN attempt a ON a.job_id = d.job_id AND a.n = d.n GROUP BY a.lane, a.model, a.provider""")


def _jobs(connection: Connection) -> dict[str, int]:
    found = {row[0]: int(row[1]) for row in connection.execute(text("SELECT state, count(*) FROM job GROUP BY state"))}
    return {state.value: found.get(state.value, 0) for state in JobState}


def _batches(connection: Connection) -> OpenBatches:
    query = """SELECT state, model, provider, count(*), sum(rows), sum(done) FROM batch WHERE state <> 'imported'
        GROUP BY state, model, provider"""
    return {
        (row[0], row[1], row[2]): (int(row[3]), int(row[4]), int(row[5])) for row in connection.execute(text(query))
    }


def _workers(connection: Connection, since: datetime) -> int:
    query = text("""SELECT count(*) FROM worker
        WHERE kind = 'worker' AND stopped_at IS NULL AND taken_by IS NULL AND beat_at >= :since""")
    return int(connection.scalar(query, given(connection, {"since": since})) or 0)


def summed(values: list[int]) -> dict[str, int]:
    """A group's sums by their names."""
    return dict(zip(SUMS, values, strict=True))
