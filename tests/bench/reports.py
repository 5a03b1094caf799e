"""Reports over a million jobs beside a thousand, and what an import pays for its charges and rollups.

The history is written straight into the tables, spread over thirty days, and rolled up by the migration's own function.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from db import ledger, rollups
from db.bulk import insert_rows
from db.engine import Store, connect
from db.ids import new_id
from db.ledger import ATTEMPT, DECISION, JOB, Settled
from db.migrations import migrate
from db.packing import Waiting
from db.queue import SUBMISSION
from db.states import Lane
from jobs import outcome
from jobs.chat import Answer, Choice, Outcome, Usage
from jobs.providers import Endpoint
from tests.bench.measure import PYTHON, Cost, median, paired, ratio, run, verdict
from tests.lanes import MODEL, add, decision, job, pack

FEW, MANY, RUNS = 1_000, int(os.environ.get("SHUNTER_BENCH_JOBS", "1000000")), 5
IMPORTED, PAGE = 20_000, 150
MODELS = (("openai", "gpt-6-luna"), ("openai", "gpt-6-nova"), ("anthropic", "claude-haiku-5-5"))
LANES = ("batch", "batch", "batch", "sync", "stream")
DAYS = 30


def history(path: Path, jobs: int) -> None:
    """A database of so many jobs that ended, in the last thirty days."""
    store = connect(f"sqlite:///{path}")
    migrate(store)
    fill(store, jobs)
    store.close()


def fill(store: Store, jobs: int) -> None:
    """Put them into an empty database."""
    dice, now = random.Random(7), datetime.now(UTC)
    with store.write() as connection:
        insert_rows(connection, SUBMISSION, {"duplicates": 0, "rejected": 0},
                    ("id", "source", "submitted_at", "accepted"), [("s", "past", now, jobs)])  # fmt: skip
        for lane in sorted(set(LANES)):
            insert_rows(connection, DECISION, decision(lane, lane=lane), (), [()])
    for first in range(0, jobs, 20_000):
        with store.write() as connection:
            _insert(connection, list(_made(dice, now, min(20_000, jobs - first))))
    with store.write() as connection:
        rollups.fill(connection)


def _made(dice: random.Random, now: datetime, jobs: int) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    for _ in range(jobs):
        (provider, model), lane = dice.choice(MODELS), dice.choice(LANES)
        submitted = now - timedelta(seconds=dice.uniform(7200, DAYS * 86_400))
        sent = submitted + timedelta(seconds=dice.expovariate(1 / 60))
        took, cost = dice.lognormvariate(6 if lane == "batch" else 1, 1), dice.randrange(10_000, 90_000)
        ident, ended = new_id(submitted), sent + timedelta(seconds=took)
        live = lane != "batch"
        yield (
            (ident, ident, lane, lane, provider, model, submitted, submitted, ended),
            (ident, lane, provider, model, sent, ended, cost // 2 if lane == "batch" else cost, cost,
             dice.lognormvariate(6, 0.7) if lane == "stream" else None,
             dice.lognormvariate(3, 0.5) if lane == "stream" else None, took * 1000 if live else None),
        )  # fmt: skip


def _insert(connection: Any, made: list[tuple[tuple[Any, ...], tuple[Any, ...]]]) -> None:
    same = {"submission_id": "s", "state": "succeeded", "step": 0, "tier": "default", "interactive": False,
            "priority": 0, "attempts": 1}  # fmt: skip
    names = "id row_key decision_id lane provider model submitted_at run_after finished_at".split()
    insert_rows(connection, JOB, same, names, [one for one, _ in made])
    same = {"n": 1, "state": "ok", "tier": "default", "cost_source": "computed", "input_tokens": 200,
            "output_tokens": 100}  # fmt: skip
    names = ("job_id lane provider model sent_at ended_at cost_nano standard_nano first_token_ms gap_p50_ms "
             "total_ms").split()  # fmt: skip
    insert_rows(connection, ATTEMPT, same, names, [one for _, one in made])


def report(path: Path, *words: str) -> Cost:
    """One whole process that prints a report."""
    env = os.environ | {"SHUNTER_DATABASE_URL": f"sqlite:///{path}", "HOME": str(path.parent)}
    return run([str(Path(PYTHON).with_name("shunter")), "report", *words], env)


def grows(few: Path, many: Path) -> bool:
    """How much longer the reports of many jobs take than those of few."""
    held = True
    for words in (("cost", "--by", "lane,model", "--since", "30d"), ("latency",), ("savings", "--by", "day"),
                  ("errors",)):  # fmt: skip
        more, less = paired(lambda words=words: report(many, *words), lambda words=words: report(few, *words), RUNS)
        cpu, peak = [median(one, "cpu") for one in (less, more)], median(more, "peak_mb")
        print(f"       report {' '.join(words)}: {cpu[0]:.2f} s and {cpu[1]:.2f} s of CPU, {peak:.0f} MB")
        held = verdict(f"report {words[0]}, time over {MANY:,} / {FEW:,} jobs", ratio(more, less, "wall"), 3) and held
    return held


def charged(store: Store) -> float:
    """CPU seconds to price, charge and roll up the rows of a batch, some at a time as an import does."""
    now, batch_id = datetime.now(UTC), new_id(datetime.now(UTC))
    for first in range(0, IMPORTED, 5000):
        add(store, *(job(f"{first} {n}") for n in range(5000)))
    pack(store, batch_id, Waiting("openai", MODEL, IMPORTED), base_url="u", max_rows=IMPORTED, max_bytes=10**9, now=now)
    with store.read() as connection:
        rows = [row[0] for row in connection.exec_driver_sql("SELECT job_id FROM attempt WHERE state = 'sent'")]
    endpoint = Endpoint("openai", "u", own=True, key_env="OPENAI_API_KEY")
    usages = [Usage(input=200 + n % 50, output=100 + n % 90, cached=n % 3) for n in range(1000)]
    answers = [Answer((Choice("x", "stop"),), Outcome.COMPLETE, usage=usage, model=MODEL) for usage in usages]
    start = time.process_time()
    prices = outcome.tariff(MODEL, endpoint, Lane.BATCH, now)
    for first in range(0, len(rows), PAGE):
        settled = [
            Settled(ident, 1, outcome.charge_by(prices, answers[n % 1000], "default"), True)
            for n, ident in enumerate(rows[first : first + PAGE])
        ]
        with store.write() as connection:
            ledger.close(connection, settled, now, batch_id)
    return time.process_time() - start


def main() -> bool:
    """How reports grow, and rows a second of charge and rollup."""
    print(f"reports over {MANY:,} jobs and over {FEW:,}, medians of {RUNS}:")
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few.db"), Path(folder, "many.db")
        history(few, FEW)
        history(many, MANY)
        held = grows(few, many)
        store = connect(f"sqlite:///{Path(folder, 'import.db')}")
        migrate(store)
        seconds = charged(store)
        store.close()
    return verdict("rows/s of charge and rollup", IMPORTED / seconds, 20_000, at_least=True) and held


if __name__ == "__main__":
    raise SystemExit(not main())
