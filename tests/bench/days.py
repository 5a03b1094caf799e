"""The simulator's days once more, through the real thing: files submitted, a worker's sweeps, batches of the sandbox.

The sandbox's clock and the worker's are moved on together, a sweep at a time, so nothing waits. What happens is the
simulator's future: the same traffic in smaller files, the same time for a batch of the same minute. The words of the
requests tell how long their answers are, so sizes are estimated, and batches are packed, polled, left, cancelled and
imported as they would be. Money is the sandbox's own bill.
"""

import asyncio
import json
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from db.states import Lane
from jobs import worker
from jobs.clock import Clock
from jobs.providers import Endpoint
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from router import bulk
from router.decided import Wish
from router.dispatch import Router
from router.intake import Defaults, Kind, Reader, Rejects
from router.settings import Settings
from tests.bench.futures import CANCEL_S, DAY_S, MODEL, SWEEP_S, Future, Job, Run
from tests.bench.measure import verdict
from tests.bench.simulator import oracle

DAYS, MOST_ROWS = 2, 12
NEVER_S = 9 * DAY_S  # a batch that runs out of time with a row in ten done
HALF = 0.5  # what a batch costs of a plain call, with this model
ENDED = """SELECT j.client_key, (SELECT coalesce(sum(a.standard_nano), 0) FROM attempt a WHERE a.job_id = j.id),
    j.state = 'succeeded' AND j.finished_at <= j.deadline_at, j.finished_at <= d.finish_by
    FROM job j JOIN decision d ON d.id = j.decision_id"""
SEEDS = (0, 1)  # batches that take half, and twice, what the prior believes


class Moved(Clock):
    """The time, so many seconds on."""

    ahead = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead)


def traffic(future: Future) -> list[list[Job]]:
    """What comes in the first days, a file each, of at most so many rows."""
    jobs = [job for job in future.jobs() if job.at < DAYS * DAY_S]
    files = [list(rows)[:MOST_ROWS] for _, rows in groupby(jobs, key=lambda job: (job.at, job.deadline))]
    for rows in files:
        for job in rows:
            job.group = len(rows)
    return files


def key(job: Job, n: int) -> str:
    """The custom_id of a file's n-th row."""
    return f"{job.at}-{n}"


def lines(rows: list[Job]) -> bytes:
    """A file of requests whose answers are as long as the jobs'."""
    made = []
    for n, job in enumerate(rows):
        words = "signal " * (job.size.input_tokens // 2)
        prompt = f"{words}\n\nExplain it in {job.size.output_p50} words."
        made.append(json.dumps({"custom_id": key(job, n), "prompt": prompt}).encode())
    return b"\n".join(made)


class Office:
    """An installation over a sandbox, whose clocks are moved on together."""

    def __init__(self, folder: Path, sandbox: Sandbox, future: Future) -> None:
        self.clock, self._sandbox, self._future = Moved(), sandbox, future
        endpoint = Endpoint("openai", f"{sandbox.url}/v1", own=False, key_env="OPENAI_API_KEY")
        self.router = Router(Settings(f"sqlite:///{folder / 'days.db'}", folder / "files", {"openai": endpoint}))
        self.router.clock = self.clock
        self.began = self.clock.now()
        self.loop = asyncio.Runner()

    def later(self) -> None:
        """A minute passes; batches that are made now take what the future says."""
        self.clock.ahead += SWEEP_S
        self._sandbox.advance(SWEEP_S)
        seconds = self._future.batch_s(self.clock.ahead)
        self._sandbox.faults([{"kind": "batch_takes", "seconds": NEVER_S if seconds is None else seconds}])

    def sweep(self) -> None:
        """What the worker does now."""
        context = self.router.context(owner=f"worker-{self.clock.ahead:.0f}")
        self.loop.run(worker.once(context, worker.Told(), asyncio.Event()))

    def submit(self, rows: list[Job]) -> None:
        """One file, as `submit --file --deadline` does it."""
        deadline = self.began + timedelta(seconds=rows[0].deadline)
        reader = Reader(BytesIO(lines(rows)), Kind.JSONL, Defaults(model=MODEL, deadline=deadline), name="file.jsonl")
        bulk.submit(self.router, reader, Wish(), Rejects(None), "file.jsonl", lambda summary: None)

    def rows(self, query: str) -> list[Any]:
        """Whatever a query finds."""
        with self.router.store.read() as connection:
            return list(connection.exec_driver_sql(query))

    def play(self, files: list[list[Job]]) -> None:
        """From the first file to the last answer."""
        coming = files[::-1]
        while coming or self.rows("SELECT 1 FROM job WHERE finished_at IS NULL LIMIT 1"):
            self.later()
            while coming and coming[-1][0].at <= self.clock.ahead:
                self.submit(coming.pop())
            self.sweep()


@dataclass(frozen=True, slots=True)
class Score:
    """How days went: shares of all jobs, and money as times the oracle's."""

    jobs: int
    met: float
    cost: float
    in_time: float  # of what was predicted with 0.95


def score(office: Office, sandbox: Sandbox, run: Run, files: list[list[Job]]) -> Score:
    """What became of the jobs, beside what the oracle would have done with the same ones."""
    ended = {key: (cost, met, kept) for key, cost, met, kept in office.rows(ENDED)}
    paid = sandbox.bill(rows="0")["totals"]["cost_nano_usd"]
    assert paid == office.rows("SELECT sum(cost_nano) FROM attempt")[0][0], "the ledger is the bill"
    best = 0.0
    for rows in files:
        run.now = rows[0].at
        lane, _ = oracle(run, rows[0])
        best += sum(ended[key(job, n)][0] for n, job in enumerate(rows)) * (HALF if lane is Lane.BATCH else 1.0)
    met, kept = fmean(one[1] for one in ended.values()), fmean(one[2] for one in ended.values())
    return Score(len(ended), met, paid / best, kept)


def main() -> bool:
    """The table, and whether days through the worker are as good as the simulator says."""
    os.environ.setdefault("OPENAI_API_KEY", "sk-none")
    worker.LINGER_S = -1.0  # the clock waits for nobody
    held = True
    for seed in SEEDS:
        future = Future(seed)
        files = traffic(future)
        with tempfile.TemporaryDirectory() as folder, running(SandboxSettings(cancel_seconds=CANCEL_S[1])) as sandbox:
            office = Office(Path(folder), sandbox, future)
            office.play(files)
            one = score(office, sandbox, Run(future, oracle), files)
            office.loop.run(office.router.close())
            office.loop.close()
        print(f"future {seed}: {one.jobs} jobs in {len(files)} files; met {one.met:.4f}, cost {one.cost:.3f}, "
              f"p95 kept {one.in_time:.3f}")  # fmt: skip
        held &= verdict("deadlines met", one.met, 0.99, at_least=True)
        held &= verdict("cost, of the oracle's", one.cost, 1.15)
    return held
