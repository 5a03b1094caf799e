"""Reports while four processes write into the same database: how long one sleeps, which is all a lock can do to it.

A report that waits for a lock neither runs nor waits for a processor. So of its wall time we take away the time in
which it ran, and that in which the kernel kept it waiting for a processor (`/proc/.../schedstat`): what is left is
sleep, for locks and for the disk. Beside it runs the same with the writers at another database, which takes as much of
the machine and none of the locks. On PostgreSQL a report sleeps while its server works: there the server is told to
refuse whatever waits so long for a lock.
"""

import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import text

from db import queue, reports, settle
from db.engine import Store, connect
from db.ids import new_id
from db.ledger import Charge
from db.migrations import migrate
from db.packing import Waiting
from db.settle import Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests.bench.measure import PYTHON, verdict
from tests.bench.reports import fill
from tests.lanes import MODEL, add, job, pack

WRITERS, SECONDS, PAST = 4, 15.0, 3_000
LONGEST_MS = 50.0
CLAIMED, PACKED, PAGE = 8, 300, 150

PAID = Charge(AttemptState.OK, 700, CostSource.COMPUTED, 1400, input_tokens=90, output_tokens=40, total_ms=800.0)
LOST = Charge(AttemptState.UNKNOWN, error_code="cut", error="it was cut")
YES, NO = Succeeded(Text("yes", "stop")), Failed("cut", "it was cut")

KINDS: dict[str, Callable[[Store], object]] = {
    "cost": lambda store: reports.cost(store, ["lane", "model"]),
    "cost since": lambda store: reports.cost(store, ["day"], datetime.now(UTC) - timedelta(hours=3, seconds=7)),
    "latency": lambda store: reports.latency(store, ["lane"]),
    "savings": lambda store: reports.savings(store, ["day"]),
    "errors": lambda store: reports.errors(store, []),
}


# ---- those who write ----


def write(url: str, name: str) -> None:
    """Claim, settle, pack and import as fast as can be, until stdin is closed; how many attempts that were."""
    store, attempts = connect(url), 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        now = datetime.now(UTC)
        attempts += _live(store, name, now) + _batch(store, now)
    store.close()
    print(attempts)


def _live(store: Store, name: str, now: datetime) -> int:
    add(store, *(job(lane="sync", now=now, tags={"team": name}) for _ in range(CLAIMED)), now=now)
    claims = queue.claim(store, name, now + timedelta(minutes=5), CLAIMED, now, ["openai"])
    for n, one in enumerate(claims):
        charge, ending = (PAID, YES) if n % 8 else (LOST, NO)
        settle.settle(store, [Settlement(one.job_id, one.n, charge, ending)], now + timedelta(seconds=1))
    return len(claims)


def _batch(store: Store, now: datetime) -> int:
    batch_id = new_id(now)
    add(store, *(job(now=now) for _ in range(PACKED)), now=now)
    group = Waiting("openai", MODEL, PACKED)
    pack(store, batch_id, group, base_url="u", max_rows=PACKED, max_bytes=10**7, now=now)
    with store.read() as connection:
        query = text("SELECT job_id, n FROM attempt WHERE batch_id = :id ORDER BY job_id")
        tries = [(row[0], row[1]) for row in connection.execute(query, {"id": batch_id})]
    for first in range(0, len(tries), PAGE):
        ends = [Settlement(*one, PAID, YES) for one in tries[first : first + PAGE]]
        settle.settle_rows(store, ends, now + timedelta(minutes=3), batch_id)
    return len(tries)


@contextmanager
def writing(url: str) -> Iterator[list[int]]:
    """So many processes that write; at the end, how many attempts each of them made."""
    command = [PYTHON, "-m", "tests.bench.busy_reports", url]
    writers = [subprocess.Popen([*command, f"w{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
               for n in range(WRITERS)]  # fmt: skip
    made: list[int] = []
    try:
        time.sleep(2.0)  # they start
        yield made
    finally:
        said = [one.communicate()[0] for one in writers]
        made += [int(words) for words in said]


# ---- the one who reads ----


class Look(NamedTuple):
    """One report, in milliseconds: the whole of it, and the sleep in it."""

    kind: str
    wall: float
    asleep: float


def looks(url: str, seconds: float) -> list[Look]:
    """Every kind of report in turn, for so long; AssertionError when the account does not balance meanwhile."""
    found, end, rounds = list[Look](), time.monotonic() + seconds, count()
    with closing(connect(url)) as store:
        while time.monotonic() < end:
            for kind, report in KINDS.items():
                found.append(_timed(kind, partial(report, store)))
            found.append(_timed("opened anew", partial(_anew, url)))
            if next(rounds) % 10 == 0:
                account = reports.account(store)
                assert account["balances"], account
    return found


def _timed(kind: str, report: Callable[[], object]) -> Look:
    awake, start = _awake(), time.perf_counter()
    report()
    wall = time.perf_counter() - start
    return Look(kind, wall * 1000, max(wall - (_awake() - awake), 0.0) * 1000)


def _awake() -> float:
    """Seconds in which this thread ran or could have."""
    return time.thread_time() + int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def _anew(url: str) -> None:
    with closing(connect(url)) as store:
        migrate(store)
        reports.cost(store, [])


def told(name: str, found: list[Look]) -> tuple[float, float]:
    """Print what was seen; the longest sleep of a report, and their usual whole time."""
    walls, asleep = [one.wall for one in found], sorted(one.asleep for one in found)
    longest = max(found, key=lambda one: one.asleep)
    usual = statistics.median(walls)
    print(f"       {name}: {len(found)} reports, median {usual:.1f} ms, longest {max(walls):.0f} ms; asleep p99 "
          f"{asleep[-len(asleep) // 100 - 1]:.1f} ms, longest {longest.asleep:.1f} ms ({longest.kind})")  # fmt: skip
    return longest.asleep, usual


def measured(name: str, url: str, other: str, options: str = "") -> tuple[float, float]:
    """One kind of database: alone, beside writers at another one, and beside writers at this one.

    The longest sleep there, and how many times as long as beside the others a report took.
    """
    print(f"{name}, {WRITERS} processes that claim, settle, pack and import:")
    for one in (url, other):
        with closing(connect(one)) as store:
            migrate(store)
            fill(store, PAST)
    told("nobody writes", looks(url + options, SECONDS / 3))
    with writing(other):
        _, apart = told("they write elsewhere", looks(url + options, SECONDS))
    with writing(url) as made:
        asleep, together = told("they write here", looks(url + options, SECONDS))
    print(f"       they made {sum(made):,} attempts; beside it, a report takes {together / apart:.2f} times as long")
    return asleep, together / apart


def main() -> bool | None:
    """The longest time that a report could have waited for a lock, on SQLite and on PostgreSQL."""
    if not os.access("/proc/thread-self/schedstat", os.R_OK):
        print("reports while others write: this system does not say how long a thread sleeps; not measured")
        return None
    from tests.postgres import postgres

    with tempfile.TemporaryDirectory() as folder:
        asleep, _ = measured("SQLite", *(f"sqlite:///{Path(folder, name)}.db" for name in ("here", "elsewhere")))
    held = verdict("SQLite: longest sleep of a report, ms", asleep, LONGEST_MS)
    refused = f"?options=-c%20lock_timeout%3D{LONGEST_MS:.0f}"
    with postgres() as server:
        measured("PostgreSQL", server.create(), server.create(), refused)
    print(f"  ok   PostgreSQL: no report waited {LONGEST_MS:.0f} ms for a lock, or it would have been refused")
    return held


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(*sys.argv[1:])
    else:
        raise SystemExit(main() is False)
