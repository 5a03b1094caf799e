"""Processes and threads that race one budget, their answers as long as they may be: never over, nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from db import standing
from db.engine import Store
from tests.lanes import add, balanced, job, rows
from tests.purses import budget, even, sums

pytestmark = pytest.mark.both
ROOT = Path(__file__).parent.parent
PROCESSES, THREADS, JOBS, LIMIT = 4, 64, 240, 30_000

# Each thread claims a few jobs and settles them, until nothing more fits. It expects 10 and may get as much as 370.
# Some answers are lost by chance, and those of every fortieth job in any case.
_WORKER = """
import json, random, sys, threading
from datetime import timedelta
from db import queue, settle
from db.engine import connect
from tests.lanes import NOW
from tests.purses import lost, paid, purse
from db.settle import Failed

store, name, threads = connect(sys.argv[1]), sys.argv[2], int(sys.argv[3])
most = lambda sending: 130 + 10 * (len(sending.body) % 25)
over = []

def race(number):
    dice, at = random.Random(f"{name} {number}"), NOW
    for turn in range(40):
        at += timedelta(minutes=2)  # what others held may have come back by then
        claims = queue.claim(store, name, at + timedelta(days=1), dice.randint(1, 4), at, ["openai"], None, purse(most))
        ends = []
        for claim in claims:
            top = 130 + 10 * (len(claim.body) % 25)
            drawn = dice.random()
            ends.append(lost(claim, Failed("cut", "cut")) if drawn < 0.02 or not len(claim.body) % 40 else
                        paid(claim, top if drawn < 0.6 else dice.randint(0, top)))
        settle.settle(store, ends, at)
        if not claims:
            return

print("ready", flush=True)
sys.stdin.readline()
racers = [threading.Thread(target=race, args=(number,)) for number in range(threads)]
for racer in racers:
    racer.start()
for racer in racers:
    racer.join()
print(json.dumps("done"))
"""


def test_nobody_spends_more_than_there_is(store: Store, database_url: str) -> None:
    budget(store, LIMIT)
    add(store, *(job("x" * number, lane="sync") for number in range(JOBS)))
    racers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, database_url, f"process {number}", str(THREADS)],
                         cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for number in range(PROCESSES)
    ]  # fmt: skip
    assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * PROCESSES
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    seen = []
    while any(racer.poll() is None for racer in racers):
        seen.append(_look(store))
    assert [json.loads(racer.communicate(timeout=60)[0]) for racer in racers] == ["done"] * PROCESSES

    assert len(set(seen)) > 20, "somebody looked while they raced"
    assert all(spent + held <= LIMIT for spent, held, *_ in seen)
    assert all((spent, held) == (cost, reserved) for spent, held, cost, reserved in seen), "at any moment, to the nano"
    spent, held = sums(store)
    unknown = rows(store, "SELECT count(*), coalesce(sum(reserved_nano), 0) FROM attempt WHERE state = 'unknown'")[0]
    assert unknown[0] > 0
    assert held == unknown[1], "only what may have been billed holds something"
    assert LIMIT // 2 < spent + held <= LIMIT, "they raced for the last of it"
    assert not rows(store, "SELECT 1 FROM attempt WHERE state = 'sent'")
    assert standing.audit(store) == []
    even(store)
    balanced(store)


def _look(store: Store) -> tuple[int, ...]:
    """The budget's sums, and those of its attempts, at one moment."""
    query = """SELECT spent_nano, reserved_nano,
        (SELECT coalesce(sum(cost_nano), 0) FROM attempt), (SELECT coalesce(sum(reserved_nano), 0) FROM attempt)
        FROM budget_period"""
    found = rows(store, query)
    return tuple(map(int, found[0])) if found else (0, 0, 0, 0)
