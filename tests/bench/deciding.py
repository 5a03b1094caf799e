"""What one decision takes, beside the reading of its request: every plan weighed, and one chosen."""

import gc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import perf_counter

import orjson

from db.states import Lane
from jobs import pricing
from jobs.chat import Request, Usage
from router.decision import Facts
from router.estimate import estimate, measure
from router.policy import decide
from router.rules import load
from tests.bench.measure import verdict

MODEL = "gpt-6-luna"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TIMES, ROUNDS = 500, 40


def main() -> bool:
    """The best of many rounds: other work on the machine only ever adds to it."""
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
    took = {
        "a plain call or a batch": microseconds(lambda: decide(facts, plain, policy, NOW)),
        "flex and two windows, too": microseconds(lambda: decide(facts, all_lanes, policy, NOW)),
        "for a person who waits": microseconds(lambda: decide(waits, plain, policy, NOW)),
        "and in words, as JSON": microseconds(lambda: decide(facts, plain, policy, NOW).json()),
    }
    print(f"reading a request {read:.1f} µs; deciding it:")
    for name, one in took.items():
        print(f"  {name:26} {one:6.1f} µs, {one / read:5.2f} of the reading")
    return verdict("µs to decide", took["a plain call or a batch"], 20)


def _cost(usage: Usage, lane: Lane, tier: str | None) -> int | None:
    return pricing.price(usage, model=MODEL, provider="openai", own=True, lane=lane, tier=tier, at=NOW).nano


def microseconds(work: Callable[[], object]) -> float:
    """The least of many rounds, for one."""
    gc.disable()
    try:
        rounds = []
        for _ in range(ROUNDS):
            began = perf_counter()
            for _ in range(TIMES):
                work()
            rounds.append(perf_counter() - began)
    finally:
        gc.enable()
    return min(rounds) / TIMES * 1e6
