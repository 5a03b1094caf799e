"""decide(facts, estimates, policy, now) -> Decision: the cheapest plan that still meets the deadline. Pure.

Who waits decides first: a person, or a program in the middle of a tool loop, is never sent to a slow lane.
Where nobody waits, money decides among the plans that are done in time with the policy's confidence.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import NamedTuple, NoReturn

from db.money import usd
from db.states import Lane, Tier
from jobs.chat import Request
from jobs.errors import Refused, UsageError
from router.decision import Decision, Facts, Option, Plan, Step, Told
from router.estimate import Estimates
from router.options import Weighed, weigh
from router.reason import reason
from router.rules import Policy, Rule, changed_by, told

__all__ = ["Decision", "Facts", "Option", "Plan", "Policy", "Step", "decide"]

FactsOf = Callable[[Request, str | None], Facts]
FAST, STREAM = Tier.FAST, Lane.STREAM  # found quicker than in their class

# Where prices are unknown: what usually costs least.
USUALLY_CHEAPER = (Lane.BATCH, Lane.BACKGROUND, Lane.SYNC, Lane.STREAM)


class Verdict(NamedTuple):
    """What the rules say: the class with its reason, and a lane or a tier where one is forced."""

    class_: str
    why: str
    rule: str
    lane: Lane | None
    tier: Tier | None = None

    @property
    def forced(self) -> bool:
        """Whether the rule that is named forces the way."""
        return bool(self.lane or self.tier)


def decide(facts: Facts, estimates: Estimates, policy: Policy, now: datetime) -> Decision:
    """The way a request goes, with the roads not taken.

    UsageError where what is asked cannot be (a deadline in the past, a lane that is not there),
    Refused where a rule or the cap says no.
    """
    left_s = seconds_left(facts, now)
    verdict = classify(facts, policy, left_s)
    weighed = weigh(facts, estimates, policy, left_s)
    chosen = _forced(verdict, facts, weighed) if verdict.lane else _choose(verdict, facts, weighed)
    return Decision(
        verdict.class_,
        chosen.first.lane,
        chosen.first.tier,
        verdict.rule,
        facts.input_tokens,
        facts.output_p50,
        facts.output_p90,
        chosen.cost,
        chosen.cost_p90,
        policy.name,
        partial(_told, facts, estimates, policy, now, verdict, chosen, weighed),
    )


def _told(
    facts: Facts, estimates: Estimates, policy: Policy, now: datetime,
    verdict: Verdict, chosen: Weighed, weighed: list[Weighed],
) -> Told:  # fmt: skip
    plan, cap = chosen.plan(now), facts.max_cost_nano
    why = reason(facts, verdict.why, verdict.rule if verdict.forced else None, chosen, weighed, now)
    seen = {"batches_seen": estimates.times.batches_seen, "calls_seen": estimates.times.calls_seen}
    vocabulary, whole = facts.counted or (None, False)
    tokens = {"input_tokens": facts.input_tokens, "counted_with": vocabulary, "counted_whole": whole}
    rests_on = {**tokens, "confidence": policy.confidence, **seen}
    options = tuple(one.option(now, cap) for one in weighed)
    return Told(plan, why, now + timedelta(0, chosen.p95_s), options, rests_on, now)


def classify(facts: Facts, policy: Policy, seconds_left: float) -> Verdict:
    """The first rule that fits and names a class; those before it that fit may force lane and tier, or refuse."""
    lane = tier = None
    for rule in policy.rules:
        if not rule.fits(facts, seconds_left):
            continue
        if rule.refuse:
            raise Refused(f"the policy's rule '{rule.name}' refuses this request: {rule.why}", code="policy")
        lane, tier = lane or (rule if rule.lane else None), tier or (rule if rule.tier else None)
        if rule.class_:
            break
    assert rule.class_  # a policy ends in a rule that fits everything and names a class
    forced_tier = tier.tier if tier else None
    if facts.lane_asked:
        return Verdict(rule.class_, rule.why, "asked", facts.lane_asked, forced_tier)
    forcing = lane or tier or rule
    return Verdict(rule.class_, forcing.why, forcing.name, lane.lane if lane else None, forced_tier)


def changes(facts: Facts, policy: Policy, seconds_left: float) -> list[Rule]:
    """The rules that change the request itself, in their order: the first one counts that names a thing."""
    return [rule for rule in policy.rules if rule.changes_request and rule.fits(facts, seconds_left)]


def routed(request: Request, policy: Policy, now: datetime, facts_of: FactsOf) -> tuple[Request, Facts]:
    """The request as the policy changes it, most often not at all, and its facts.

    `facts_of` is asked for the facts of a request, and told the provider where a rule names one.
    """
    facts = facts_of(request, None)
    rules = changes(facts, policy, seconds_left(facts, now)) if policy.changes_requests else []
    if not rules:
        return request, facts
    changed = changed_by(rules, request, now)
    provider = next((rule.provider for rule in rules if rule.provider), None)
    return changed, facts_of(changed, provider)._replace(changed=told(rules))


def seconds_left(facts: Facts, now: datetime) -> float:
    """To the deadline; UsageError for one that has passed."""
    if facts.deadline is None:
        return float("inf")
    if facts.deadline.utcoffset() is None:
        raise UsageError(f"the deadline {facts.deadline.isoformat()} has no time zone", code="deadline")
    left = (facts.deadline - now).total_seconds()
    if left <= 0:
        raise UsageError(f"the deadline {facts.deadline.isoformat()} is in the past", code="deadline")
    return left


def _of_tier(tier: Tier | None, weighed: list[Weighed]) -> list[Weighed]:
    """The options of the tier that a rule forces; the fast one is never taken unasked."""
    if tier is None:
        return [one for one in weighed if one.first.tier is not FAST]
    return [one for one in weighed if one.first.tier is tier]


def _forced(verdict: Verdict, facts: Facts, weighed: list[Weighed]) -> Weighed:
    """The lane that was asked for, alone, however late it may be; of its windows the one that fits."""
    lane, tier = verdict.lane, verdict.tier or Tier.DEFAULT
    assert lane
    weighed = _of_tier(verdict.tier, weighed)
    alone = [one for one in weighed if one.lane is lane and one.tier is tier and one.then is None]
    if not alone:
        words = ", ".join(dict.fromkeys(one.lane.value for one in weighed))
        raise UsageError(f"there is no {lane.value} lane here{_where(lane)}; choose one of: {words}", code="lane")
    if all(one.why_not for one in alone):
        raise UsageError(f"the {lane.value} lane cannot be taken: {alone[0].why_not}", code="lane")
    possible = [one for one in alone if one.possible]
    return _cheapest_in_time(possible) if possible else _refuse(alone, facts.max_cost_nano)


def _where(lane: Lane) -> str:
    """Where the lane would be."""
    return " (it is OpenAI's; see `openai_background`)" if lane is Lane.BACKGROUND else ""


def _choose(verdict: Verdict, facts: Facts, weighed: list[Weighed]) -> Weighed:
    if verdict.tier is None:
        possible = [one for one in weighed if one.possible and one.first.tier is not FAST]
    else:
        possible = [one for one in _of_tier(verdict.tier, weighed) if one.possible]
    if not possible:
        _refuse(_of_tier(verdict.tier, weighed), facts.max_cost_nano)
    if facts.waits:
        streamed = facts.interactive and verdict.class_ == "interactive-long"
        wanted = Lane.STREAM if streamed else Lane.SYNC
        return next((one for one in possible if one.first.lane is wanted), possible[0])
    return _cheapest_in_time([one for one in possible if one.first.lane is not STREAM] or possible)


def _cheapest_in_time(possible: list[Weighed]) -> Weighed:
    """The cheapest that meets the deadline; where none does, the fastest."""
    best, least = None, None
    for one in possible:
        if one.late:
            continue
        cost = one.cost
        if best is None or cost is None or least is None or cost == least:  # most plans differ in what they cost
            better = best is None or _order(one) < _order(best)
        else:
            better = cost < least
        if better:
            best, least = one, cost
    return best or min(possible, key=attrgetter("p95_s"))


def _order(one: Weighed) -> tuple[bool, int, bool, float]:
    """Orders plans by expected cost, unknown ones by what is usual; of equal ones flex comes last, then the finish."""
    if one.cost is None:
        return True, USUALLY_CHEAPER.index(one.lane) * 2 + (one.then is not None), one.tier is Tier.FLEX, one.p95_s
    return False, one.cost, one.first.tier is Tier.FLEX, one.p95_s


def _refuse(weighed: list[Weighed], cap: int | None) -> NoReturn:
    """Refused, with the plan that comes nearest to the cap."""
    known = [one for one in weighed if not one.why_not and one.cost_p90 is not None]
    if not known:
        raise Refused("the price of this model is unknown, so no cap on its cost can be kept", code="unknown_price")
    cheapest = min(known, key=lambda one: one.cost_p90 or 0)
    lane, cost = cheapest.lane.value, usd(cheapest.cost_p90)
    raise Refused(f"over the cap of ${usd(cap)}: the cheapest way, {lane}, may cost ${cost}", code="over_cap")
