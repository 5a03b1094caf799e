"""Rollups of a period, grouped: whole quarters of an hour from what is stored, its edges from the attempts.

Nothing here imports the tables: a report starts in half the time without them. Open live calls are in no rollup, and
are read where they are; so every attempt that was sent in the period counts once.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from db.sketches import Bins, Heap
from db.tallies import KEY, SUMS, TIMES, WHERE, Fact, Tally, moment, quarter
from db.words import FACTS, given

BY = ("lane", "class", "model", "provider", "tier", "day", "hour")  # and tag:K

Group = tuple[Any, ...]
_QUARTER = timedelta(minutes=15)
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_OPEN_LIVE = """a.state IN ('sent', 'unknown') AND a.state = 'sent' AND a.batch_id IS NULL
    AND (a.lane = 'stream' OR a.lane = 'sync')"""


class Period(NamedTuple):
    """From a time on, and until before another one; days and hours are those of the zone."""

    since: datetime | None = None
    until: datetime | None = None
    zone: str = "UTC"


class Spans(NamedTuple):
    """A period in three: edges that are read from the attempts, and the whole quarters between them, if any."""

    since: datetime
    first: datetime
    last: datetime
    until: datetime

    @classmethod
    def of(cls, period: Period) -> "Spans":
        since, until = period.since or _FIRST, period.until or _LAST
        first, last = quarter(since), quarter(until)
        if first < since:
            first += _QUARTER
        return cls(since, first, last, until) if first < last else cls(since, until, until, until)


class Grouping:
    """By what rows are told apart: any of BY, or tag:K. ValueError for another word."""

    def __init__(self, by: Sequence[str], zone: str) -> None:
        for word in by:
            if word not in BY and not (word.startswith("tag:") and word != "tag:"):
                raise ValueError(f"{word!r} is not one of {', '.join(BY)}, tag:NAME")
        self.tagged = any(word.startswith("tag:") for word in by)
        timed = ["begins_at"] if "day" in by or "hour" in by else []
        self.columns = [*timed, *(word for word in by if word in WHERE)]  # of the tables, besides the tags
        self._parts = [self._part(word, ZoneInfo(zone)) for word in by]

    def _part(self, word: str, zone: ZoneInfo) -> Callable[[Mapping[str, Any]], Any]:
        if word.startswith("tag:"):
            name = word.removeprefix("tag:")
            return lambda row: _tags(row["tags"]).get(name)
        if word not in ("day", "hour"):
            return lambda row: row[word]
        label = cache(lambda stored: _label(moment(stored).astimezone(zone), word))
        return lambda row: label(row["begins_at"])

    def group(self, row: Mapping[str, Any]) -> Group:
        """What the row belongs to."""
        return tuple(part(row) for part in self._parts)


def _label(at: datetime, word: str) -> str:
    if word == "day":
        return f"{at:%Y-%m-%d}"
    return at.replace(minute=0).isoformat(timespec="minutes").replace("+00:00", "Z")


@cache
def _tags(stored: str) -> dict[str, str]:
    return json.loads(stored) if stored else {}


# ---- sums ----


def sums(connection: Connection, by: Sequence[str], period: Period, also: Sequence[str] = ()) -> dict[Group, list[int]]:
    """What attempts come to (SUMS), by the words and then by the columns `also`: state, error_code."""
    grouping, spans = Grouping(by, period.zone), Spans.of(period)
    found: dict[Group, list[int]] = {}

    def add(row: Mapping[str, Any], values: Sequence[int], sign: int = 1) -> None:
        group = (*grouping.group(row), *(row[name] for name in also))
        whole = found.setdefault(group, [0] * len(SUMS))
        for n, value in enumerate(values):
            whole[n] += sign * value

    for row, values in _rolled(connection, grouping, spans, also):
        if not row.get("tags"):
            add(row, values)
        elif grouping.tagged:  # it is in the rows without tags, too
            add(row, values)
            add({**row, "tags": ""}, values, -1)
    return {group: whole for group, whole in found.items() if whole[0]}


def _rolled(
    connection: Connection, grouping: Grouping, spans: Spans, also: Sequence[str]
) -> Iterator[tuple[Mapping[str, Any], Sequence[int]]]:
    names = [*grouping.columns, *(["tags"] if grouping.tagged else []), *also]
    columns = "".join(f"{name}, " for name in names)
    group = f"GROUP BY {', '.join(str(n + 1) for n in range(len(names)))}" if names else ""
    tags = "" if grouping.tagged else "tags = '' AND"
    query = f"""SELECT {columns} {", ".join(f"coalesce(sum({name}), 0)" for name in SUMS)} FROM rollup
        WHERE {tags} begins_at >= :first AND begins_at < :last {group}"""  # noqa: S608 (names of columns)
    for row in connection.execute(text(query), given(connection, spans._asdict())):
        yield dict(zip(names, row, strict=False)), row[len(names) :]
    tally = Tally(live=True)
    for fact in edges(connection, spans):
        tally.count(fact)
    for fact in _facts(connection, "first", "last", spans, _OPEN_LIVE):
        tally.count(fact)
    for key, values in tally.sums.items():
        yield dict(zip(KEY, key, strict=True)), values


def edges(connection: Connection, spans: Spans) -> Iterator[Fact]:
    """The attempts of a period that are in no whole quarter of an hour of it."""
    yield from _facts(connection, "since", "first", spans)
    yield from _facts(connection, "last", "until", spans)


def _facts(connection: Connection, begin: str, end: str, spans: Spans, where: str = "1 = 1") -> Iterator[Fact]:
    if getattr(spans, begin) < getattr(spans, end):
        query = f"{FACTS} WHERE a.sent_at >= :{begin} AND a.sent_at < :{end} AND {where}"
        for row in connection.execute(text(query), given(connection, spans._asdict())):
            yield Fact(*row)


# ---- times ----


def times(connection: Connection, by: Sequence[str], period: Period) -> dict[Group, dict[str, Bins]]:
    """Sketches of the TIMES by group. Where tags are asked for, from the attempts themselves: it takes longer."""
    grouping, spans = Grouping(by, period.zone), Spans.of(period)
    if grouping.tagged:
        spans = Spans(spans.since, spans.until, spans.until, spans.until)
    heaps: defaultdict[Group, defaultdict[str, Heap]] = defaultdict(lambda: defaultdict(Heap))
    names = [*grouping.columns, *TIMES]
    query = f"SELECT {', '.join(names)} FROM rollup_times WHERE begins_at >= :first AND begins_at < :last"  # noqa: S608
    kinds: dict[Group, defaultdict[str, Heap]] = {}
    for row in connection.execute(text(query), given(connection, spans._asdict())):
        kind = row[: len(grouping.columns)]
        if (heap := kinds.get(kind)) is None:
            heap = kinds[kind] = heaps[grouping.group(dict(zip(grouping.columns, kind, strict=True)))]
        for name, stored in zip(TIMES, row[len(kind) :], strict=True):
            if stored is not None:
                heap[name].add(stored)
    found: defaultdict[Group, defaultdict[str, Bins]] = defaultdict(lambda: defaultdict(Counter))
    for group, gathered in heaps.items():
        found[group].update((name, one.bins()) for name, one in gathered.items())
    for tags, tally in _tallied(connection, grouping, spans).items():
        for key, measured in tally.times.items():
            whole = found[grouping.group({**dict(zip(WHERE, key, strict=True)), "tags": tags})]
            for name, bins in measured.items():
                whole[name].update(bins)
    return {group: dict(whole) for group, whole in found.items()}


def _tallied(connection: Connection, grouping: Grouping, spans: Spans) -> dict[str, Tally]:
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    for fact in edges(connection, spans):
        tallies[(fact.tags or "") if grouping.tagged else ""].whole(fact)
    return tallies
