"""Days of mixed traffic with deadlines, without waiting: what the shipped policy costs and misses, beside others.

Every policy meets the same future: jobs that nobody waits for, alone and in files, with deadlines log-uniform from 10
minutes to 48 hours; a batch that is submitted in a given minute takes what it takes, lognormal around a median that is
half or twice what the prior believes, and 3 % of them run out of time after a day. The clock is only a number. What is
real here: `decide` with its estimates, the learning of finish times, and the cutting of rows into batches.

The oracle knows, of the batch that a job would be in, whether it will be done by the job's deadline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import exp, log
from random import Random
from statistics import fmean

from db.packing import Growing, Room
from db.states import Lane
from db.turnarounds import Turnaround
from jobs import pricing
from jobs.chat import Request, Usage
from router.decision import Facts
from router.estimate import Size, estimate
from router.finish import Finish
from router.policy import decide
from router.rules import Policy, load
from tests.bench.measure import verdict

SEEDS, DAYS, GROUPS_A_DAY = 10, 3, 120
MODEL = "gpt-6-luna"
BEGAN = datetime(2026, 11, 22, tzinfo=UTC)
SWEEP_S = 60.0
DAY_S = 86_400.0
SHORTEST_S, LONGEST_S = 600.0, 2 * DAY_S
SPREAD = 1.0  # of the logarithm of a batch's time
EXPIRES = 0.03
CANCEL_S = (30.0, 600.0)  # a cancel takes up to ten minutes, OpenAI says
LEARN_S = 600.0
ROOM = Room(50_000, 200_000_000)
HOUR_S = 3600.0


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


# ---- the policies ----


def always_sync(run: Run, job: Job) -> tuple[Lane, float | None]:
    """A plain call for each."""
    return Lane.SYNC, None


def always_batch(run: Run, job: Job) -> tuple[Lane, float | None]:
    """The Batch API for each, to its end."""
    return Lane.BATCH, None


def one_lane(hours: float) -> Choose:
    """The Batch API from so many hours to the deadline on, else a plain call: no way out of either."""
    return lambda run, job: (Lane.BATCH if job.deadline - job.at >= hours * HOUR_S else Lane.SYNC, None)


def batch_first(run: Run, job: Job) -> tuple[Lane, float | None]:
    """The Batch API for each that has two hours, left one hour before the deadline."""
    return (Lane.BATCH, job.deadline - HOUR_S) if job.deadline - job.at >= 2 * HOUR_S else (Lane.SYNC, None)


def oracle(run: Run, job: Job) -> tuple[Lane, float | None]:
    """The Batch API where its batch will be done in time."""
    submitted = -(-job.at // SWEEP_S) * SWEEP_S
    seconds = run.future.batch_s(submitted)
    done = seconds is not None and -(-(submitted + seconds) // SWEEP_S) * SWEEP_S <= job.deadline
    return (Lane.BATCH if done else Lane.SYNC), None


class Shipped:
    """The policy that Shunter ships, or another file's, as an installation that begins without a history."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._finish = Finish(policy.priors, 1000, lambda: None)
        self._learned = -LEARN_S
        self._known: dict[tuple[float, Size], tuple[Lane, float | None, float]] = {}

    def __call__(self, run: Run, job: Job) -> tuple[Lane, float | None]:
        """What `decide` says, once a file."""
        if run.now - self._learned >= LEARN_S:
            self._learned = run.now
            self._finish.learn(run.seen(), ())
        lane, leave_by, by = self._known.get((job.at, job.size)) or self._decide(run, job)
        job.predicted = by
        return lane, leave_by

    def _decide(self, run: Run, job: Job) -> tuple[Lane, float | None, float]:
        now = time(run.now)
        request = Request(model=MODEL, messages=[{"role": "user", "content": "…"}], deadline=time(job.deadline))
        facts = Facts.of(request, job.size, provider="openai", has_batch=True, group=job.group)
        times = self._finish.times(facts, job.size, now)
        decision = decide(facts, estimate(job.size, cost=_cost, times=times, has_batch=True), self._policy, now)
        leave_by, by = decision.plan[0].leave_by, (decision.finish_by - BEGAN).total_seconds()
        known = decision.lane, (leave_by - BEGAN).total_seconds() if leave_by else None, by
        self._known[job.at, job.size] = known
        return known


def _cost(usage: Usage, lane: Lane, tier: str | None) -> int | None:
    return pricing.price(usage, model=MODEL, provider="openai", own=True, lane=lane, tier=tier, at=BEGAN).nano


@dataclass(frozen=True, slots=True)
class Score:
    """One policy over all futures; cost as times the oracle's, in the mean over seeds."""

    met: float
    cost: float
    batched: float  # share of the money's jobs that came out of a batch
    in_time: float | None  # of what was predicted with 0.95


def score(runs: Sequence[Sequence[Job]], oracles: Sequence[Sequence[Job]]) -> Score:
    """How it did, beside the oracle in the same futures."""
    costs = [sum(job.cost for job in one) / sum(job.cost for job in best)
             for one, best in zip(runs, oracles, strict=True)]  # fmt: skip
    jobs = [job for one in runs for job in one]
    predicted = [job.finished <= job.predicted for job in jobs if job.predicted is not None]
    batched = fmean(job.cost == price(job, Lane.BATCH) for job in jobs)
    return Score(fmean(job.met for job in jobs), fmean(costs), batched, fmean(predicted) if predicted else None)


def play(choose: Callable[[], Choose], seeds: int = SEEDS) -> list[Sequence[Job]]:
    """One policy in every future, each time without a history."""
    return [Run(future := Future(seed), choose()).play(future.jobs()) for seed in range(seeds)]


def main() -> bool:
    """The table, and whether the shipped policy holds what is wanted of it."""
    best = play(lambda: oracle)
    shipped = play(lambda: Shipped(load()))
    tried = [play(partial(one_lane, hours)) for hours in (2.0, 6.0, 12.0, 24.0, 30.0)]
    single = min(tried, key=lambda runs: _worth(runs, best))
    others = {
        "always a plain call": play(lambda: always_sync),
        "always the Batch API": play(lambda: always_batch),
        "the best single lane": single,
        "batch first, left an hour before": play(lambda: batch_first),
        "the shipped policy": shipped,
        "the oracle": best,
    }
    print(f"{SEEDS} futures of {DAYS} days, {sum(map(len, best)) // SEEDS} jobs each")
    print(f"{'':34} {'met':>7} {'cost':>7} {'batched':>8} {'p95 kept':>9}")
    scores = {name: score(runs, best) for name, runs in others.items()}
    for name, one in scores.items():
        kept = "" if one.in_time is None else f"{one.in_time:9.3f}"
        print(f"{name:34} {one.met:7.4f} {one.cost:7.3f} {one.batched:8.3f} {kept}")
    ours, theirs = scores["the shipped policy"], scores["the oracle"]
    met = verdict("deadlines met, of the oracle's", ours.met / theirs.met, 0.99, at_least=True)
    return verdict("cost, of the oracle's", ours.cost, 1.05) and met


def _worth(runs: Sequence[Sequence[Job]], best: Sequence[Sequence[Job]]) -> float:
    """The cheapest one that misses little: each missed deadline counts as a hundred jobs' money."""
    one = score(runs, best)
    return one.cost + 100 * max(0.99 - one.met, 0)
