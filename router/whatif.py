"""Another policy over the recorded past: what jobs would have cost and waited, and what nobody can tell. Pure.

Only history speaks. What a job used is known from its answer, so its cost in another lane is the price of the same
usage there; how long it would have waited is what that lane really took around that time. What neither says is counted
under its reason and in no sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from db.replay import Answered, Recorded
from db.states import FINAL, JobState, Lane, Tier
from router.curves import History, Kind
from router.decision import Plan, Step

COST, WAIT = "cost", "wait"
_ROADS = 1000  # that are remembered
WHY = {
    "unfinished": "not ended yet",
    "unanswered": "never answered",
    "pruned": "the words are no longer kept, and rules look at them",
    "refused": "would have been refused: {}",
    "undecided": "could not have been sent: {}",
    "other_model": "would have gone to {}, and what that would have used is not known",
    "unknown_cost": "what was paid is unknown",
    "unknown_price": "no price is known: {}",
    "repriced": "charged at another price than today's list has for it: {}",
    "no_history": "no history of {}",
}

Price = Callable[[Recorded, Answered, Lane, str], int | None]  # of the same usage in a lane and tier, or window


class Untold(NamedTuple):
    """What of a job history cannot tell, and why: a key of WHY, with what it is about."""

    why: str
    about: str = ""
    lacks: tuple[str, ...] = (COST, WAIT)

    @property
    def text(self) -> str:
        """The reason for people."""
        return WHY[self.why].format(self.about)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One job, really and under the other policy; `to` is None where it would not have been sent.

    Money is `paid` and `would`, both or neither; `waits` are seconds with their shares, which fall short of 1 by what
    was never seen to end. None where that is not told; `untold` says why.
    """

    job: Recorded
    came: str
    to: str | None
    paid: int | None = None
    would: int | None = None
    waits: Sequence[tuple[float, float]] | None = None
    untold: tuple[Untold, ...] = ()

    @property
    def moved(self) -> bool:
        """Whether it would have gone another way."""
        return self.to is not None and self.to != self.came


def steps_of(plan: Sequence[dict[str, Any]]) -> Plan:
    """The steps of a stored plan."""
    return tuple(
        Step(
            Lane(step["lane"]),
            Tier(step["tier"]),
            datetime.fromisoformat(step["leave_by"]) if step.get("leave_by") else None,
            step.get("window"),
        )
        for step in plan
    )


def way(plan: Plan) -> str:
    """The lanes of a plan in words: "batch, then sync"."""
    tiers = (step.window or ("" if step.tier is Tier.DEFAULT else step.tier.value) for step in plan)
    return ", then ".join(f"{step.lane.value} {tier}".rstrip() for step, tier in zip(plan, tiers, strict=True))


def silent(job: Recorded) -> Untold | None:
    """Why nothing can be told of a job, whatever the policy says."""
    if job.state not in FINAL:
        return Untold("unfinished")
    if job.state != JobState.SUCCEEDED:
        return Untold("unanswered")
    return None if job.body else Untold("pruned")


def left_out(job: Recorded, why: Untold) -> Replayed:
    """A job of which nothing can be told."""
    return Replayed(job, way(steps_of(job.plan)), None, untold=(why,))


def replay(job: Recorded, plan: Plan, roads: "Roads", price: Price) -> Replayed:
    """A job that was answered, under another plan."""
    was = steps_of(job.plan)
    money = _unpaid(job)
    if _as_it_was(job, was, plan):
        known = None if money else job.paid_nano
        return Replayed(job, way(was), way(plan), known, known, [(waited(job), 1.0)], (money,) if money else ())
    money = money or _unpriced(job, plan, price)
    road = roads.of(job, plan)
    blind = Untold("no_history", road.blind, road.lacks) if road.blind else None
    if blind and money:  # each job lacks its cost for one reason
        blind = blind._replace(lacks=(WAIT,))
    if blind and COST in blind.lacks:
        money = blind
    paid, would = (None, None) if money else (job.paid_nano, _cost(job, plan, road.shares, price))
    untold = tuple(dict.fromkeys(one for one in (money, blind) if one))
    return Replayed(job, way(was), way(plan), paid, would, road.waits, untold)


def waited(job: Recorded) -> float:
    """Seconds from the submit of an ended job to its end."""
    assert job.finished_at is not None
    return (job.finished_at - job.submitted_at).total_seconds()


def in_time(job: Recorded) -> float:
    """Seconds that an answer may take; endless without a deadline."""
    return (job.deadline_at - job.submitted_at).total_seconds() if job.deadline_at else float("inf")


def _as_it_was(job: Recorded, was: Plan, plan: Plan) -> bool:
    """Whether what happened is what would have happened: the same plan, or answered before any other was left."""
    if was == plan:
        return True
    leave_by, same = plan[0].leave_by, way(was[:1]) == way(plan[:1])
    return same and job.step == 0 and (leave_by is None or waited(job) <= (leave_by - job.submitted_at).total_seconds())


def _unpaid(job: Recorded) -> Untold | None:
    """Why what was paid is not known."""
    if any(one.cost_nano is None for one in job.answers):
        return Untold("unknown_price", job.model, (COST,))
    return Untold("unknown_cost", lacks=(COST,)) if job.blind or not job.answers else None


def _unpriced(job: Recorded, plan: Plan, price: Price) -> Untold | None:
    """Why the same usage cannot be priced in the lanes of the plan."""
    for one in job.answers:
        if price(job, one, Lane(one.lane), one.tier) != one.cost_nano:
            return Untold("repriced", _kind(job, Lane(one.lane), one.tier).words, (COST,))
    for step in plan:
        if any(price(job, one, step.lane, _tier(step)) is None for one in job.answers):
            return Untold("unknown_price", _kind(job, step.lane, _tier(step)).words, (COST,))
    return None


def _cost(job: Recorded, plan: Plan, shares: Sequence[float], price: Price) -> int:
    """What is expected: each step's price by the share that is answered in it."""
    costs = [sum(price(job, one, step.lane, _tier(step)) or 0 for one in job.answers) for step in plan]
    return round(sum(cost * share for cost, share in zip(costs, shares, strict=False)))


def _tier(step: Step) -> str:
    return step.window or step.tier.value


def _kind(job: Recorded, lane: Lane, tier: str) -> Kind:
    return Kind.of(job.provider, job.model, lane.value, tier, job.interactive)


class Road(NamedTuple):
    """Where a job is answered on a plan: the share of each step, and when; `blind` names what has no history."""

    shares: Sequence[float]
    waits: Sequence[tuple[float, float]] | None
    blind: str = ""
    lacks: tuple[str, ...] = ()


class Roads:
    """What history says of plans: `leaving` tells how many seconds it takes to leave a step.

    Jobs of one moment that go the same way share one road.
    """

    def __init__(self, history: History, leaving: Callable[[Step], float]) -> None:
        self._history, self._leaving = history, leaving
        self._known: dict[tuple[Any, ...], Road] = {}

    def of(self, job: Recorded, plan: Plan) -> Road:
        """The road of a job on a plan."""
        key = (job.provider, job.model, job.interactive, job.submitted_at, plan)
        if (road := self._known.get(key)) is None:
            if len(self._known) >= _ROADS:
                self._known.clear()
            road = self._known[key] = self._follow(job, plan)
        return road

    def _follow(self, job: Recorded, plan: Plan) -> Road:
        """Each step takes what its lane took; what is not answered by `leave_by` goes on to the next."""
        begun, left = 0.0, 1.0
        shares: list[float] = []
        waits: list[tuple[float, float]] = []
        for step in plan:
            kind = _kind(job, step.lane, _tier(step))
            curve, last = self._history.near(kind, job.submitted_at), step.leave_by is None
            stay = float("inf") if step.leave_by is None else (step.leave_by - job.submitted_at).total_seconds() - begun
            if curve is None:  # in the last lane all of the rest is answered, however late
                return Road([*shares, left], None, kind.words, (WAIT,) if last else (COST, WAIT))
            done = 1.0 if last else curve.within(stay)
            shares.append(left * done)
            waits += [(begun + seconds, left * share) for seconds, share in curve.parts(stay)]
            begun, left = begun + stay + self._leaving(step), left * (1 - done)
            if not left:
                break
        return Road(shares, waits)
