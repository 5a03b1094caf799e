"""Days of mixed traffic with deadlines, without waiting: what the shipped policy costs and misses, beside others.

Every policy meets the same future: jobs that nobody waits for, alone and in files, with deadlines log-uniform from 10
minutes to 48 hours; a batch that is submitted in a given minute takes what it takes, lognormal around a median that is
half or twice what the prior believes, and 3 % of them run out of time after a day. The clock is only a number. What is
real here: `decide` with its estimates, the learning of finish times, and the cutting of rows into batches.

The oracle knows, of the batch that a job would be in, whether it will be done by the job's deadline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from db.states import Lane
from jobs import pricing
from jobs.chat import Request, Usage
from router.decision import Facts
from router.estimate import Size, estimate
from router.finish import Finish
from router.policy import decide
from router.rules import Policy, load
from tests.bench.futures import BEGAN, DAYS, MODEL, SWEEP_S, Choose, Future, Job, Run, price, time
from tests.bench.measure import verdict

SEEDS = 10
LEARN_S = 600.0
HOUR_S = 3600.0


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
