"""What the tests of rollups share: whether what is stored is what the attempts say."""

from collections import Counter
from typing import Any

from sqlalchemy import text

from db.engine import Store
from db.sketches import pour
from db.tallies import KEY, SUMS, TIMES, WHERE, Fact, Tally, moment
from db.words import FACTS


def stored(store: Store) -> tuple[dict[Any, list[int]], dict[Any, dict[str, dict[int, int]]]]:
    """The rollups, and their times."""
    with store.read() as connection:
        rows = connection.execute(text(f"SELECT {', '.join((*KEY, *SUMS))} FROM rollup")).all()
        timed = connection.execute(text(f"SELECT {', '.join((*WHERE, *TIMES))} FROM rollup_times")).all()
    sums = {(row[0], moment(row[1]), *row[2 : len(KEY)]): list(row[len(KEY) :]) for row in rows}
    times: dict[Any, dict[str, dict[int, int]]] = {}
    for row in timed:
        bins = times[(moment(row[0]), *row[1 : len(WHERE)])] = {}
        for name, sketch in zip(TIMES, row[len(WHERE) :], strict=True):
            if sketch is not None:
                pour(bytes(sketch), bins.setdefault(name, Counter()))
    return {key: values for key, values in sums.items() if any(values)}, times


def rolled_up(store: Store) -> None:
    """Every rollup, and every sketch, is what the attempts say now."""
    tally = Tally()
    with store.read() as connection:
        for row in connection.execute(text(FACTS)):
            tally.whole(Fact(*row))
    sums, times = stored(store)
    assert sums == {key: values for key, values in tally.sums.items() if any(values)}
    wanted = {key: {name: dict(bins) for name, bins in by.items() if bins} for key, by in tally.times.items()}
    assert {key: by for key, by in times.items() if by} == {key: by for key, by in wanted.items() if by}
