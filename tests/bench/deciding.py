"""What one decision takes, beside the reading of its request: every plan weighed, and one chosen."""

import gc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from time import thread_time

import orjson

from db.states import Lane
from jobs import pricing
from jobs.chat import Request, Usage
from router.decision import Facts
from router.estimate import estimate, measure
from router.policy import decide
from router.rules import load
from tests.bench.measure import verdict

MODEL, MOST_US = "gpt-6-luna", 20
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TIMES, ROUNDS = 60, 700


def main() -> bool:
    """Every shape of a choice that a request can be."""
    policy = load()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Sum up the minutes of the meeting. " * 20}]}
    raw = orjson.dumps(body)
    request = Request.from_body(body, deadline=NOW + timedelta(hours=6))
    size = measure(request)
    facts = Facts.of(request, size, provider="openai", has_batch=True)
    times = policy.priors.times(size)
    plain = estimate(size, cost=_cost, times=times, has_batch=True)
    all_lanes = estimate(size, cost=_cost, times=times, has_batch=True, has_flex=True, has_background=True)
    waits = facts._replace(interactive=True, deadline=None)
    read = microseconds(lambda: Request.from_body(orjson.loads(raw)))
    shapes = {
        "a plain call or a batch": (facts, plain),
        "flex and two windows, too": (facts, all_lanes),
        "the same, due in two days": (facts._replace(deadline=NOW + timedelta(days=2)), all_lanes),
        "with no deadline": (facts._replace(deadline=None), all_lanes),
        "with a cap on its cost": (facts._replace(max_cost_nano=10**9), all_lanes),
        "for a person who waits": (waits, all_lanes),
    }
    took = {name: microseconds(partial(decide, *shape, policy, NOW)) for name, shape in shapes.items()}
    words = microseconds(lambda: decide(facts, plain, policy, NOW).json())
    print(f"reading a request {read:.1f} µs; deciding it:")
    for name, one in (took | {"a plain call, in words": words}).items():
        print(f"  {name:26} {one:6.1f} µs, {one / read:5.2f} of the reading")
    return verdict("µs to decide, at most", max(took.values()), MOST_US)


def _cost(usage: Usage, lane: Lane, tier: str | None) -> int | None:
    return pricing.price(usage, model=MODEL, provider="openai", own=True, lane=lane, tier=tier, at=NOW).nano


def microseconds(work: Callable[[], object]) -> float:
    """The least of many short rounds, for one, of this thread's own time: others have the machine, too."""
    gc.disable()
    try:
        rounds = []
        for _ in range(ROUNDS):
            began = thread_time()
            for _ in range(TIMES):
                work()
            rounds.append(thread_time() - began)
    finally:
        gc.enable()
    return min(rounds) / TIMES * 1e6
