"""The plans that a request can take, weighed: what each is expected to cost and when it is done. Pure."""

from datetime import datetime, timedelta
from typing import NamedTuple

from db.money import usd
from db.states import Lane
from router.decision import Facts, Option, Plan, Step
from router.estimate import Z95, Estimates, LaneEstimate
from router.rules import Policy

SLOW = (Lane.BATCH, Lane.BACKGROUND)


class Weighed(NamedTuple):
    """An option, with what kind of obstacle it has: it cannot be taken, or it can but is late."""

    option: Option
    lane: Lane  # the first of the plan
    cost_p90: int | None
    available: bool
    affordable: bool
    late: bool

    @property
    def possible(self) -> bool:
        """Whether it can be taken at all, be it late."""
        return self.available and self.affordable


def weigh(facts: Facts, estimates: Estimates, policy: Policy, now: datetime) -> list[Weighed]:
    """Every plan: each lane alone, and each slow one left in time for a plain call where there is a deadline."""
    deadline = facts.deadline
    left_s = float("inf") if deadline is None else (deadline - now).total_seconds()
    weighed = [_alone(lane, facts, policy, left_s, now) for lane in estimates.lanes]
    if deadline is not None and not facts.waits:
        sync = next(lane for lane in estimates.lanes if lane.lane is Lane.SYNC)
        slow = [lane for lane in estimates.lanes if lane.lane in SLOW and lane.available]
        chains = [_slow_first(lane, sync, facts, policy, deadline, now) for lane in slow]
        weighed += [chain for chain in chains if chain]
    return weighed


def _alone(lane: LaneEstimate, facts: Facts, policy: Policy, left_s: float, now: datetime) -> Weighed:
    why_not = lane.why_not
    late = facts.deadline is not None and lane.quantile(policy.confidence_z) > left_s
    if why_not is None and lane.lane in SLOW and facts.waits and facts.lane_asked is None:
        why_not = "a person is waiting" if facts.interactive else "a tool loop is waiting for this step"
    plan = (Step(lane.lane, lane.tier, window=lane.window),)
    times = now + timedelta(0, lane.finish_p50_s), now + timedelta(0, lane.finish_p95_s)
    return _judge(facts, plan, why_not, late, lane.cost_nano, lane.cost_p90_nano, *times)


def _slow_first(
    slow: LaneEstimate, sync: LaneEstimate, facts: Facts, policy: Policy, deadline: datetime, now: datetime
) -> Weighed | None:
    """A slow lane, left early enough that its cancel and some slow plain calls still fit in before the deadline."""
    cancel_s = policy.cancel_s if slow.lane is Lane.BATCH else policy.cancel_background_s
    leave_by = deadline - timedelta(seconds=cancel_s + policy.sync_times * sync.finish_p95_s)
    leave_by = leave_by.replace(microsecond=0)
    stay_s = (leave_by - now).total_seconds()
    done = slow.chance(stay_s)
    if done < policy.least_chance:
        return None

    def finish(z: float) -> datetime:
        inside = slow.quantile(z)
        return now + timedelta(0, inside if inside <= stay_s else stay_s + cancel_s + sync.quantile(z))

    plan = (Step(slow.lane, slow.tier, leave_by, slow.window), Step(sync.lane, sync.tier))
    late = finish(policy.confidence_z) > deadline
    cost, cost_p90 = _mix(slow.cost_nano, sync.cost_nano, done), _dearer(slow.cost_p90_nano, sync.cost_p90_nano)
    return _judge(facts, plan, None, late, cost, cost_p90, finish(0.0), finish(Z95))


def _mix(slow: int | None, sync: int | None, done: float) -> int | None:
    """What the slow lane did is paid at its price; what it never ran costs nothing there."""
    return None if slow is None or sync is None else round(slow * done + sync * (1 - done))


def _dearer(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _judge(
    facts: Facts,
    plan: Plan,
    why_not: str | None,
    late: bool,
    cost: int | None,
    cost_p90: int | None,
    finish_p50: datetime,
    finish_p95: datetime,
) -> Weighed:
    too_dear = None if facts.max_cost_nano is None else _too_dear(cost_p90, facts.max_cost_nano)
    obstacle = why_not or too_dear or ("it may not be done by the deadline" if late else None)
    option = Option(plan, obstacle is None, obstacle, cost, finish_p50, finish_p95)
    return Weighed(option, plan[0].lane, cost_p90, why_not is None, too_dear is None, late)


def _too_dear(cost_p90: int | None, cap: int) -> str | None:
    if cost_p90 is None:
        return "its price is unknown, so the cap cannot be kept"
    return f"it may cost ${usd(cost_p90)}, above the cap of ${usd(cap)}" if cost_p90 > cap else None
