"""The choice of lane: who waits, what is in time, what costs least, and what no money or deadline may change."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.states import Lane, Tier
from jobs.chat import Request, Usage
from jobs.errors import Refused, UsageError
from router.estimate import Size, estimate
from router.policy import Decision, Facts, Policy, decide
from router.rules import load

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
POLICY = load()
HOUR = timedelta(hours=1)


def facts(**given: Any) -> Facts:
    request = Request(model="gpt-6-luna", messages=[{"role": "user", "content": "Go."}])
    return Facts.of(request, Size(1000, 300, 700), provider="openai", has_batch=None)._replace(**given)


def way(
    given: Facts, *, policy: Policy = POLICY, nano: int | None = 100, batch: float = 0.5, wait_s: float = 0
) -> Decision:
    """Decides at `nano` a token, a batch at `batch` of it and after `wait_s`."""

    shares = {Lane.BATCH: batch, "2h": 0.7, "8h": 0.6, "flex": 0.5, "fast": 2.0}

    def cost(usage: Usage, lane: Lane, tier: str | None) -> int | None:
        share = shares.get(tier or "", shares.get(lane, 1))
        return None if nano is None else int((usage.input + 5 * usage.output) * nano * share)

    there = {name: getattr(given, name) for name in ("has_batch", "has_background", "has_flex")}
    size = Size(given.input_tokens, given.output_p50, given.output_p90)
    times = policy.priors.times(size)
    weighed = estimate(size, cost=cost, times=times, batch_wait_s=wait_s, with_fast=policy.has_fast, **there)
    return decide(given, weighed, policy, NOW)


def lanes(decision: Decision) -> list[str]:
    return [step.lane.value for step in decision.plan]


@pytest.mark.parametrize(
    ("given_", "class_", "plan"),
    [
        ({"interactive": True}, "interactive-long", ["stream"]),
        ({"interactive": True, "output_p50": 49}, "short", ["sync"]),
        ({"interactive": True, "output_p50": 50}, "interactive-long", ["stream"]),
        ({"interactive": True, "structured": True}, "structured-output", ["sync"]),
        ({"interactive": True, "structured": True, "output_p50": 5}, "structured-output", ["sync"]),
        ({}, "bulk", ["batch"]),
        ({"structured": True, "output_p50": 5}, "bulk", ["batch"]),
        ({"has_batch": True}, "bulk", ["batch"]),
        ({"has_batch": False}, "bulk", ["sync"]),
        ({"deadline": NOW + 24 * HOUR}, "bulk", ["batch", "sync"]),
        ({"deadline": NOW + 6 * HOUR}, "bulk", ["batch", "sync"]),
        ({"deadline": NOW + 6 * HOUR, "has_batch": False}, "bulk", ["sync"]),
        ({"deadline": NOW + HOUR / 6}, "interactive-long", ["sync"]),
        ({"deadline": NOW + HOUR / 6, "output_p50": 9}, "short", ["sync"]),
        ({"deadline": NOW + 24 * HOUR, "interactive": True}, "interactive-long", ["stream"]),
        ({"tool_loop_step": True}, "interactive-long", ["sync"]),
        ({"tool_loop_step": True, "interactive": True}, "interactive-long", ["stream"]),
    ],
)
def test_class_and_plan(given_: dict[str, Any], class_: str, plan: list[str]) -> None:
    decision = way(facts(**given_))
    assert (decision.class_, lanes(decision)) == (class_, plan)
    assert (decision.lane, decision.tier) == (plan[0], Tier.DEFAULT)


def test_every_plan_is_listed_with_what_it_would_cost() -> None:
    decision = way(facts(deadline=NOW + 6 * HOUR))
    options = {"-".join(step.lane for step in option.plan): option for option in decision.options}
    assert list(options) == ["stream", "sync", "batch", "batch-sync"]
    assert options["sync"].cost_nano == options["stream"].cost_nano == 250_000
    assert options["batch"].cost_nano == 125_000
    assert not options["batch"].feasible
    assert options["batch"].why_not
    assert decision.cost_nano == options["batch-sync"].cost_nano
    assert 125_000 < (decision.cost_nano or 0) < 250_000
    assert all(option.feasible == (option.why_not is None) for option in decision.options)


def test_a_batch_is_left_early_enough() -> None:
    deadline = NOW + 6 * HOUR
    decision = way(facts(deadline=deadline))
    leave_by, sync = decision.plan[0].leave_by, decision.options[1]
    assert leave_by is not None
    slow_call = sync.finish_p95 - NOW
    assert leave_by + timedelta(seconds=POLICY.cancel_s) + POLICY.sync_times * slow_call <= deadline
    assert decision.finish_by <= deadline
    assert decision.plan[-1].leave_by is None


def test_the_expected_cost_counts_only_rows_that_the_batch_did_not_do() -> None:
    decision = way(facts(deadline=NOW + 6 * HOUR))
    leave_by = decision.plan[0].leave_by
    assert leave_by is not None
    done = POLICY.priors.batch_s.chance((leave_by - NOW).total_seconds()) * (1 - POLICY.priors.batch_lost)
    assert decision.cost_nano == round(125_000 * done + 250_000 * (1 - done))


def test_a_batch_that_is_hardly_done_in_time_is_not_begun() -> None:
    assert lanes(way(facts(deadline=NOW + timedelta(minutes=18)))) == ["sync"]


def test_where_a_batch_saves_nothing_the_answer_comes_at_once() -> None:
    assert lanes(way(facts(), nano=0)) == ["sync"]
    assert lanes(way(facts(), batch=1.0)) == ["sync"]
    assert lanes(way(facts(), batch=2.0)) == ["sync"]


def test_an_unknown_price_still_goes_the_usual_cheap_way() -> None:
    decision = way(facts(), nano=None)
    assert lanes(decision) == ["batch"]
    assert decision.cost_nano is None
    assert decision.json()["cost_usd"] is None
    assert lanes(way(facts(deadline=NOW + 6 * HOUR), nano=None)) == ["batch", "sync"]


@pytest.mark.parametrize("lane", [Lane.STREAM, Lane.SYNC, Lane.BATCH])
@pytest.mark.parametrize("interactive", [True, False])
def test_an_asked_lane_is_taken(lane: Lane, interactive: bool) -> None:
    decision = way(facts(lane_asked=lane, interactive=interactive))
    assert (decision.rule, lanes(decision)) == ("asked", [lane])
    assert decision.options[("stream", "sync", "batch").index(lane)].feasible


def test_an_asked_lane_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="no Batch API"):
        way(facts(lane_asked=Lane.BATCH, has_batch=False))
    with pytest.raises(UsageError, match="stream, sync, batch"):
        way(facts(lane_asked=Lane.BACKGROUND))


def test_an_asked_lane_says_when_it_may_be_late() -> None:
    decision = way(facts(lane_asked=Lane.BATCH, deadline=NOW + HOUR))
    assert lanes(decision) == ["batch"]
    assert "may not be done by 2026-11-22 13:00 UTC" in decision.reason


def test_a_cap_leaves_the_cheaper_way_or_none() -> None:
    assert lanes(way(facts(deadline=NOW + 6 * HOUR, max_cost_nano=240_000))) == ["batch"]  # 0.9 quantile: 225,000
    with pytest.raises(Refused, match=r"\$0\.000225"):
        way(facts(max_cost_nano=224_999))
    with pytest.raises(Refused, match="over the cap"):
        way(facts(interactive=True, max_cost_nano=240_000))
    with pytest.raises(Refused, match="over the cap"):
        way(facts(lane_asked=Lane.SYNC, max_cost_nano=240_000))


def test_a_cap_refuses_an_unknown_price() -> None:
    with pytest.raises(Refused, match="unknown"):
        way(facts(max_cost_nano=10**12), nano=None)


@pytest.mark.parametrize("deadline", [NOW, NOW - HOUR, datetime(2026, 11, 23)])  # noqa: DTZ001  one has no time zone
def test_a_deadline_must_be_ahead_and_have_a_time_zone(deadline: datetime) -> None:
    with pytest.raises(UsageError, match="deadline"):
        way(facts(deadline=deadline))


def test_nothing_in_time_takes_the_fastest_and_says_so() -> None:
    decision = way(facts(deadline=NOW + timedelta(seconds=2)))
    assert lanes(decision) == ["sync"]
    assert not any(option.feasible for option in decision.options)
    assert "nothing is sure to be done" in decision.reason


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({}, "Nobody is waiting and there is time: with no deadline it goes to the Batch API at about half the price."),
        ({"interactive": True}, "A person is waiting and the answer will be long: it is streamed"),
        ({"interactive": True, "structured": True}, "only as a whole: one plain call"),
        ({"tool_loop_step": True}, "A tool loop is waiting for this step"),
        ({"has_batch": False}, "this server has no Batch API"),
        ({"deadline": NOW + 6 * HOUR}, "due by 2026-11-22 18:00 UTC, so it goes to the Batch API first"),
        ({"deadline": NOW + HOUR / 6}, "too soon for the Batch API"),
    ],
)
def test_the_reason_is_one_sentence(given_: dict[str, Any], words: str) -> None:
    reason = way(facts(**given_)).reason
    assert words in reason
    assert reason.endswith(".")


def test_json_is_the_contract() -> None:
    shown = way(facts(deadline=NOW + 6 * HOUR)).json()
    assert list(shown) == [
        "class", "lane", "tier", "plan", "rule", "reason", "expected_output_tokens", "cost_usd", "finish_by", "options",
    ]  # fmt: skip
    assert shown["expected_output_tokens"] == {"p50": 300, "p90": 700}
    assert set(shown["options"][0]) == {"plan", "feasible", "why_not", "cost_usd", "finish_p50", "finish_p95"}
    assert shown["plan"][0]["lane"] == "batch"
    assert shown["plan"][0]["leave_by"].endswith("Z")
    assert datetime.fromisoformat(shown["finish_by"]) <= NOW + 6 * HOUR
    assert Decimal(shown["options"][1]["cost_usd"]) == Decimal("0.00025")
    assert json.loads(json.dumps(shown)) == shown


def test_times_are_shown_in_utc() -> None:
    east = timezone(timedelta(hours=9))
    here, there = (way(facts(deadline=(NOW + 6 * HOUR).astimezone(zone))) for zone in (UTC, east))
    assert here.id == there.id


def test_facts_of_a_request() -> None:
    request = Request(
        model="gpt-6-luna",
        messages=[{"role": "user", "content": "hi"}, {"role": "tool", "content": "12"}],
        tags={"b": "2", "a": "1"},
        whole=True,
        priority=3,
    )
    found = Facts.of(request, Size(10, 20, 40), provider="openai", has_batch=None, max_cost_nano=5)
    assert found.tags == (("a", "1"), ("b", "2"))
    assert (found.tool_loop_step, found.structured, found.interactive, found.priority) == (True, True, False, 3)
    assert (found.input_tokens, found.output_p50, found.output_p90, found.max_cost_nano) == (10, 20, 40, 5)
    assert hash(found) == hash(found._replace())


# ---- properties ----

SOON_TO_LATE = st.none() | st.floats(1, 200_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
ANY_FACTS = st.builds(
    facts,
    interactive=st.booleans(),
    deadline=SOON_TO_LATE,
    structured=st.booleans(),
    tool_loop_step=st.booleans(),
    input_tokens=st.integers(1, 10**6),
    output_p50=st.integers(1, 5000),
    output_p90=st.integers(5000, 20_000),
    priority=st.integers(-1000, 1000),
    tags=st.sampled_from([(), (("team", "search"),)]),
    has_batch=st.sampled_from([None, True, False]),
    has_background=st.booleans(),
)
PRICE = st.none() | st.integers(0, 100_000)


@given(ANY_FACTS, PRICE)
def test_always_decides_and_always_alike(given_: Facts, nano: int | None) -> None:
    one, other = way(given_, nano=nano), way(given_, nano=nano)
    assert one == other
    assert one.id == other.id
    assert one.reason
    assert any(option.plan == one.plan for option in one.options)


@given(ANY_FACTS, PRICE)
def test_whoever_waits_never_waits_for_a_batch(given_: Facts, nano: int | None) -> None:
    decision = way(given_, nano=nano)
    if given_.waits:
        assert lanes(decision) in (["stream"], ["sync"])
    elif decision.lane is Lane.STREAM:
        raise AssertionError("nobody looks at a stream")
    if given_.has_batch is False:
        assert "batch" not in lanes(decision)


@given(ANY_FACTS, st.integers(0, 100_000), st.lists(st.floats(1, 200_000), min_size=2, max_size=6))
def test_a_later_deadline_never_costs_more(given_: Facts, nano: int, seconds: list[float]) -> None:
    deadlines = [*(NOW + timedelta(seconds=one) for one in sorted(seconds)), None]
    costs = [way(given_._replace(deadline=one), nano=nano).cost_nano or 0 for one in deadlines]
    assert all(later <= sooner for sooner, later in pairwise(costs))


@given(ANY_FACTS, st.integers(1, 100_000), st.lists(st.integers(1, 10**11), min_size=2, max_size=6))
def test_a_lower_cap_never_costs_more(given_: Facts, nano: int, caps: list[int]) -> None:
    def cost(cap: int) -> int:
        try:
            decision = way(given_._replace(max_cost_nano=cap), nano=nano)
        except Refused:
            return 0
        return decision.cost_nano or 0

    assert all(cost(low) <= cost(high) for low, high in pairwise(sorted(caps)))


@given(ANY_FACTS, st.integers(1, 100_000))
def test_a_chosen_plan_is_the_cheapest_that_is_in_time(given_: Facts, nano: int) -> None:
    decision = way(given_, nano=nano)
    if not given_.waits:
        in_time = [option.cost_nano or 0 for option in decision.options if option.feasible]
        assert not in_time or (decision.cost_nano or 0) == min(in_time)
