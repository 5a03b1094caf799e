"""Futures for the simulator: the traffic, what batches and calls take, and a worker's sweeps through them.

The clock is only a number; rows are cut into batches by the worker's own rule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import exp, log
from random import Random

from db.packing import Growing, Room
from db.states import Lane
from db.turnarounds import Turnaround
from jobs import pricing
from jobs.chat import Usage
from router.estimate import Size
from router.rules import load

DAYS, GROUPS_A_DAY = 3, 120
MODEL = "gpt-6-luna"
BEGAN = datetime(2026, 11, 22, tzinfo=UTC)
SWEEP_S = 60.0
DAY_S = 86_400.0
SHORTEST_S, LONGEST_S = 600.0, 2 * DAY_S
SPREAD = 1.0  # of the logarithm of a batch's time
EXPIRES = 0.03
CANCEL_S = (30.0, 600.0)  # a cancel takes up to ten minutes, OpenAI says
ROOM = Room(50_000, 200_000_000)


@dataclass(slots=True)
class Job:
    """One request, and what became of it; times in seconds from the beginning."""

    at: float
    deadline: float
    size: Size
    group: int
    leave_by: float | None = None
    finished: float = 0.0
    cost: float = 0.0  # nano-dollars
    predicted: float | None = None  # by when it is done, 19 times of 20

    @property
    def met(self) -> bool:
        """Whether its deadline was."""
        return self.finished <= self.deadline


class Future:
    """What will happen, whoever asks: equal for every policy."""

    def __init__(self, seed: int) -> None:
        self._seed, self._priors = seed, load().priors
        self._middle = self._priors.batch_s.p50 * (2.0 if seed % 2 else 0.5)

    def batch_s(self, at: float) -> float | None:
        """What a batch takes that is submitted in this minute; None: it runs out of time."""
        chance = Random(f"{self._seed} batch {int(at // SWEEP_S)}")
        lost, seconds = chance.random() < EXPIRES, self._middle * exp(chance.gauss(0, SPREAD))
        return None if lost or seconds >= DAY_S else seconds

    def cancel_s(self, at: float) -> float:
        """What a cancel takes that is asked for now."""
        return Random(f"{self._seed} cancel {at:.0f}").uniform(*CANCEL_S)

    def call_s(self, job: Job, at: float) -> float:
        """What a plain call of the job takes."""
        return self._priors.live_s(job.size).quantile(Random(f"{self._seed} call {job.at} {at}").gauss(0, 1))

    def jobs(self) -> list[Job]:
        """The traffic, by arrival: most requests come alone, some in files."""
        chance, jobs = Random(f"{self._seed} jobs"), []
        for _ in range(DAYS * GROUPS_A_DAY):
            at = chance.uniform(0, DAYS * DAY_S)
            deadline = at + exp(chance.uniform(log(SHORTEST_S), log(LONGEST_S)))
            rows = 1 if chance.random() < 0.7 else chance.randint(10, 200)
            size = Size(chance.choice((100, 1000, 4000)), *chance.choice(((20, 60), (300, 700), (1000, 2200))))
            jobs += [Job(at, deadline, size, rows) for _ in range(rows)]
        return sorted(jobs, key=lambda job: job.at)


def price(job: Job, lane: Lane) -> float:
    """Nano-dollars of the job in this lane."""
    usage = Usage(job.size.input_tokens, job.size.output_p50)
    nano = pricing.price(usage, model=MODEL, provider="openai", own=True, lane=lane, tier=None, at=BEGAN).nano
    assert nano is not None
    return nano


@dataclass(slots=True)
class Batch:
    """One provider batch under way."""

    at: float
    jobs: list[Job]
    ends: float  # when it is done, or has run out of time
    done: bool
    leave_by: float | None
    cancelled: float | None = None


Choose = Callable[["Run", Job], tuple[Lane, float | None]]  # the lane, and when to leave it


@dataclass
class Run:
    """One policy in one future."""

    future: Future
    choose: Choose
    waiting: list[Job] = field(default_factory=list)
    open: list[Batch] = field(default_factory=list)
    past: list[Turnaround] = field(default_factory=list)
    now: float = 0.0

    def play(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """From the first arrival to the last end, a sweep at a time."""
        coming = list(reversed(jobs))
        while coming or self.waiting or self.open:
            self.now += SWEEP_S
            while coming and coming[-1].at <= self.now:
                self._take(coming.pop())
            self._move()
            self._pack()
        return jobs

    def _take(self, job: Job) -> None:
        lane, job.leave_by = self.choose(self, job)
        if lane is Lane.BATCH:
            self.waiting.append(job)
        else:
            self._call(job)

    def _call(self, job: Job) -> None:
        job.finished = self.now + self.future.call_s(job, self.now)
        job.cost += price(job, Lane.SYNC)

    def _pack(self) -> None:
        """As the worker does: those whose hour has come leave, the others are cut into batches by theirs."""
        stay = []
        for job in self.waiting:
            if job.leave_by is not None and job.leave_by <= self.now:
                self._call(job)
            else:
                stay.append(job)
        self.waiting = []
        stay.sort(key=lambda job: (job.leave_by is None, job.leave_by))
        growing, inside = Growing(ROOM, time(self.now)), []
        for job in stay:
            leave_by = None if job.leave_by is None else time(job.leave_by)
            if not growing.fits(leave_by, 1000, job.size.input_tokens):
                self._submit(inside)
                growing.cut()
                inside = []
            growing.add(f"{len(inside):026x}", leave_by, 1000, job.size.input_tokens)
            inside.append(job)
        if inside:
            self._submit(inside)

    def _submit(self, jobs: list[Job]) -> None:
        seconds = self.future.batch_s(self.now)
        hours = [job.leave_by for job in jobs if job.leave_by is not None]
        ends = self.now + (DAY_S if seconds is None else seconds)
        self.open.append(Batch(self.now, jobs, ends, seconds is not None, min(hours, default=None)))

    def _move(self) -> None:
        """Import what has ended, cancel what is to be left, and take up what came of that."""
        still = []
        for batch in self.open:
            if batch.ends <= self.now and batch.done:
                self._import(batch)
            elif batch.ends <= self.now or (batch.cancelled is not None and batch.cancelled <= self.now):
                self._over(batch)
            else:
                if batch.cancelled is None and batch.leave_by is not None and batch.leave_by <= self.now:
                    batch.cancelled = self.now + self.future.cancel_s(self.now)
                still.append(batch)
        self.open = still

    def _import(self, batch: Batch) -> None:
        for job in batch.jobs:
            job.finished = self.now
            job.cost += price(job, Lane.BATCH)
        self.past.append(self._seen(batch, done=True))

    def _over(self, batch: Batch) -> None:
        """It ended without answers: rows with time left go into the next batch."""
        self.waiting += batch.jobs
        self.past.append(self._seen(batch, done=False))

    def _seen(self, batch: Batch, *, done: bool) -> Turnaround:
        end = self.now if done or batch.leave_by is None else min(batch.leave_by, self.now)
        lost = not done and batch.cancelled is None
        rows, began = len(batch.jobs), time(batch.at)
        return Turnaround("batch", None, "openai", MODEL, rows, began, end - batch.at, done, lost)

    def seen(self) -> list[Turnaround]:
        """What an installation would know by now."""
        return [*self.past[-500:], *(self._seen(batch, done=False)._replace(lost=False) for batch in self.open)]


def time(seconds: float) -> datetime:
    """The hour of the clock."""
    return BEGAN + timedelta(seconds=seconds)
