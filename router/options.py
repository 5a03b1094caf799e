"""The plans that a request can take, weighed: what each is expected to cost and when it is done. Pure.

This is asked for every request, so it computes in plain numbers; `option` puts one plan into words when it is shown.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from math import floor, inf
from typing import NamedTuple

from db.money import usd
from db.states import Lane, Tier
from router.decision import Facts, Option, Plan, Step
from router.estimate import Z95, Estimates, LaneEstimate
from router.rules import Policy

# Found quicker than in their classes.
BATCH, BACKGROUND, SYNC, FLEX = Lane.BATCH, Lane.BACKGROUND, Lane.SYNC, Tier.FLEX

PERSON, LOOP = "a person is waiting", "a tool loop is waiting for this step"
LATE = "it may not be done by the deadline"


class Weighed(NamedTuple):
    """A plan: one lane, or one that is left after `stay_s` for a plain call. Seconds from now.

    It is `possible` unless it cannot be taken (`why_not`) or may cost more than the cap; then it may still be late.
    """

    first: LaneEstimate
    then: LaneEstimate | None
    stay_s: float
    then_s: float  # when it is done if it is left: what leaving takes, and a plain call of usual length
    cost: int | None
    cost_p90: int | None
    p95_s: float
    why_not: str | None
    too_dear: bool
    late: bool
    possible: bool

    @property
    def lane(self) -> Lane:
        """The first of the plan."""
        return self.first.lane

    @property
    def tier(self) -> Tier:
        """The first of the plan."""
        return self.first.tier

    @property
    def p50_s(self) -> float:
        """Seconds to its finish, in the middle of what can be."""
        inside = self.first.finish_p50_s
        return inside if inside <= self.stay_s else self.then_s

    def plan(self, now: datetime) -> Plan:
        """Its steps."""
        first = self.first
        if self.then is None:
            return (Step(first.lane, first.tier, window=first.window),)
        leave_by = (now + timedelta(0, self.stay_s)).replace(microsecond=0)
        return Step(first.lane, first.tier, leave_by, first.window), Step(self.then.lane, self.then.tier)

    def option(self, now: datetime, cap: int | None) -> Option:
        """The plan as it is shown; `cap` is the most that it may cost."""
        obstacle = self.why_not or (_too_dear(self.cost_p90, cap) if self.too_dear else LATE if self.late else None)
        times = now + timedelta(0, self.p50_s), now + timedelta(0, self.p95_s)
        return Option(self.plan(now), obstacle is None, obstacle, self.cost, *times)


# By its fields, in their order: twice as quick as the class's own way, and there are ten to a request.
_Fields = tuple[LaneEstimate, LaneEstimate | None, float, float, int | None, int | None, float, str | None, bool, bool,
                bool]  # fmt: skip
_weighed: Callable[[_Fields], Weighed] = partial(tuple.__new__, Weighed)


def weigh(facts: Facts, estimates: Estimates, policy: Policy, left_s: float) -> list[Weighed]:
    """Every plan: each lane alone, and each slow one left in time for a plain call where there is a deadline.

    `left_s` is the time to the deadline, in seconds, endless without one.
    """
    waits, cap, due = facts.waits, facts.max_cost_nano, left_s < inf
    barred = (PERSON if facts.interactive else LOOP) if waits else None
    weighed = []
    for lane in estimates.lanes:
        cost, why_not = lane.cost_p90_nano, lane.why_not
        if barred and why_not is None and lane.slow and (facts.lane_asked is None or lane.tier is FLEX):
            why_not = barred
        dear = cap is not None and (cost is None or cost > cap)
        late = due and _late(lane, policy, left_s)
        possible = why_not is None and not dear
        p95_s = lane.finish_p95_s
        weighed.append(_weighed((lane, None, inf, inf, lane.cost_nano, cost, p95_s, why_not, dear, late, possible)))
    if due and not waits:
        _add_chains(weighed, estimates.lanes, policy, left_s, cap)
    return weighed


def _late(lane: LaneEstimate, policy: Policy, left_s: float) -> bool:
    """Whether it is not sure enough to be done by then; a slow lane that is never left has to be surer."""
    if lane.slow:
        return 1 - lane.lost < policy.sure_alone or lane.chance(left_s) < policy.sure_alone
    z = policy.confidence_z
    return (lane.finish_p95_s if z == Z95 else lane.quantile(z)) > left_s


def _add_chains(
    weighed: list[Weighed], lanes: Sequence[LaneEstimate], policy: Policy, left_s: float, cap: int | None
) -> None:
    """Each slow lane, left early enough that its end and some slow plain calls still fit in before the deadline."""
    plain = next(lane for lane in lanes if lane.lane is SYNC)
    calls_s, call_p50_s, call_p95_s = policy.sync_times * plain.finish_p95_s, plain.finish_p50_s, plain.finish_p95_s
    call, call_p90, least = plain.cost_nano, plain.cost_p90_nano, policy.least_chance
    for first in lanes:
        if not first.slow or not first.available:
            continue
        end_s = _end_s(first, policy)
        stay_s = floor(left_s - end_s - calls_s)
        done = first.chance(stay_s)
        if done < least or not done:
            continue
        left_at = stay_s + end_s
        p95_s = first.finish_p95_s
        if p95_s > stay_s:
            p95_s = left_at + call_p95_s
        late = (p95_s if policy.confidence_z == Z95 else _left_at(first, plain, policy, stay_s, end_s)) > left_s
        usual, dearest = first.cost_nano, first.cost_p90_nano
        if usual is not None:  # what it never ran costs nothing there
            usual = None if call is None else round(usual * done + call * (1 - done))
        if dearest is not None:
            dearest = call_p90 if call_p90 is None or call_p90 > dearest else dearest
        dear = cap is not None and (dearest is None or dearest > cap)
        then_s = left_at + call_p50_s
        weighed.append(_weighed((first, plain, stay_s, then_s, usual, dearest, p95_s, None, dear, late, not dear)))


def _left_at(first: LaneEstimate, plain: LaneEstimate, policy: Policy, stay_s: float, end_s: float) -> float:
    """When such a plan is done, with the policy's own confidence."""
    inside = first.quantile(policy.confidence_z)
    return inside if inside <= stay_s else stay_s + end_s + plain.quantile(policy.confidence_z)


def _end_s(lane: LaneEstimate, policy: Policy) -> float:
    """Seconds from leaving a lane until it is known what it did: of a flex call, until that ends."""
    if lane.lane is BATCH:
        return policy.cancel_s
    if lane.lane is BACKGROUND:
        return policy.cancel_background_s
    return min(lane.work_s.p95, policy.timeouts.total)


def _too_dear(cost_p90: int | None, cap: int | None) -> str:
    if cost_p90 is None:
        return "its price is unknown, so the cap cannot be kept"
    return f"it may cost ${usd(cost_p90)}, above the cap of ${usd(cap)}"
