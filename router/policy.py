"""decide(facts, estimates, policy, now) -> Decision: the cheapest plan that still meets the deadline. Pure.

Who waits decides first: a person, or a program in the middle of a tool loop, is never sent to a slow lane.
Where nobody waits, money decides among the plans that are done in time with the policy's confidence.
"""

from datetime import datetime
from typing import NamedTuple, NoReturn

from db.money import usd
from db.states import Lane
from jobs.errors import Refused, UsageError
from router.decision import Decision, Facts, Option, Plan, Step
from router.estimate import Estimates
from router.options import Weighed, weigh
from router.reason import reason
from router.rules import Policy

__all__ = ["Decision", "Facts", "Option", "Plan", "Policy", "Step", "decide"]

# Where prices are unknown: what usually costs least.
USUALLY_CHEAPER = (Lane.BATCH, Lane.BACKGROUND, Lane.SYNC, Lane.STREAM)


class Verdict(NamedTuple):
    """What the rules say: the class with its reason, and a lane where one is forced."""

    class_: str
    why: str
    rule: str
    lane: Lane | None


def decide(facts: Facts, estimates: Estimates, policy: Policy, now: datetime) -> Decision:
    """The way a request goes, with the roads not taken.

    UsageError where what is asked cannot be (a deadline in the past, a lane that is not there),
    Refused where a rule or the cap says no.
    """
    verdict = classify(facts, policy, _seconds_left(facts, now))
    weighed = weigh(facts, estimates, policy, now)
    chosen = _forced(verdict.lane, facts, weighed) if verdict.lane else _choose(verdict.class_, facts, weighed)
    option, first = chosen.option, chosen.option.plan[0]
    return Decision(
        class_=verdict.class_,
        lane=first.lane,
        tier=first.tier,
        plan=option.plan,
        rule=verdict.rule,
        reason=reason(facts, verdict.why, verdict.rule if verdict.lane else None, chosen, weighed),
        input_tokens=facts.input_tokens,
        output_p50=facts.output_p50,
        output_p90=facts.output_p90,
        cost_nano=option.cost_nano,
        cost_p90_nano=chosen.cost_p90,
        finish_by=option.finish_p95,
        options=tuple(other.option for other in weighed),
        policy=policy.name,
    )


def classify(facts: Facts, policy: Policy, seconds_left: float) -> Verdict:
    """The first rule that fits and names a class; one before it that fits may force the lane, or refuse."""
    forcing = None
    for rule in policy.rules:
        if not rule.fits(facts, seconds_left):
            continue
        if rule.refuse:
            raise Refused(f"the policy's rule '{rule.name}' refuses this request: {rule.why}", code="policy")
        if rule.lane and forcing is None:
            forcing = rule
        if rule.class_:
            break
    assert rule.class_  # a policy ends in a rule that fits everything and names a class
    if facts.lane_asked:
        return Verdict(rule.class_, rule.why, "asked", facts.lane_asked)
    if forcing:
        return Verdict(rule.class_, forcing.why, forcing.name, forcing.lane)
    return Verdict(rule.class_, rule.why, rule.name, None)


def _seconds_left(facts: Facts, now: datetime) -> float:
    if facts.deadline is None:
        return float("inf")
    if facts.deadline.utcoffset() is None:
        raise UsageError(f"the deadline {facts.deadline.isoformat()} has no time zone", code="deadline")
    left = (facts.deadline - now).total_seconds()
    if left <= 0:
        raise UsageError(f"the deadline {facts.deadline.isoformat()} is in the past", code="deadline")
    return left


def _forced(lane: Lane, facts: Facts, weighed: list[Weighed]) -> Weighed:
    """The lane that was asked for, alone, however late it may be; of its windows the one that fits."""
    alone = [one for one in weighed if one.lane is lane and len(one.option.plan) == 1]
    if not alone:
        words = ", ".join(dict.fromkeys(one.lane.value for one in weighed))
        raise UsageError(f"there is no {lane.value} lane here{_where(lane)}; choose one of: {words}", code="lane")
    if not any(one.available for one in alone):
        raise UsageError(f"the {lane.value} lane cannot be taken: {alone[0].option.why_not}", code="lane")
    possible = [one for one in alone if one.possible]
    return _cheapest_in_time(possible) if possible else _refuse(alone, facts.max_cost_nano)


def _where(lane: Lane) -> str:
    """Where the lane would be."""
    return " (it is OpenAI's; see `openai_background`)" if lane is Lane.BACKGROUND else ""


def _choose(class_: str, facts: Facts, weighed: list[Weighed]) -> Weighed:
    possible = [one for one in weighed if one.possible]
    if not possible:
        _refuse(weighed, facts.max_cost_nano)
    if facts.waits:
        streamed = facts.interactive and class_ == "interactive-long"
        wanted = Lane.STREAM if streamed else Lane.SYNC
        return next((one for one in possible if one.lane is wanted), possible[0])
    unseen = [one for one in possible if one.lane is not Lane.STREAM] or possible  # nobody sees the first words
    return _cheapest_in_time(unseen)


def _cheapest_in_time(possible: list[Weighed]) -> Weighed:
    """The cheapest that meets the deadline; where none does, the fastest."""
    in_time = [one for one in possible if not one.late]
    return min(in_time, key=_price) if in_time else min(possible, key=lambda one: one.option.finish_p95)


def _price(one: Weighed) -> tuple[bool, int, datetime]:
    """Orders plans by expected cost, equal ones by their finish; unknown costs by what is usual."""
    cost = one.option.cost_nano
    usual = USUALLY_CHEAPER.index(one.lane) * 2 + len(one.option.plan) if cost is None else 0
    return cost is None, cost or usual, one.option.finish_p95


def _refuse(weighed: list[Weighed], cap: int | None) -> NoReturn:
    """Refused, with the plan that comes nearest to the cap."""
    known = [one for one in weighed if one.available and one.cost_p90 is not None]
    if not known:
        raise Refused("the price of this model is unknown, so no cap on its cost can be kept", code="unknown_price")
    cheapest = min(known, key=lambda one: one.cost_p90 or 0)
    lane, cost = cheapest.lane.value, usd(cheapest.cost_p90)
    raise Refused(f"over the cap of ${usd(cap)}: the cheapest way, {lane}, may cost ${cost}", code="over_cap")
