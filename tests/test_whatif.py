"""One job under another plan: what history tells of it, to the nano-dollar, and what it does not."""

from datetime import timedelta
from typing import Any

import pytest

from db.replay import Answered, Recorded, Stay
from db.states import Lane, Tier
from router.curves import History
from router.decision import Step
from router.whatif import COST, WAIT, Replayed, Roads, Untold, replay, silent, way
from tests.lanes import MODEL, NOW
from tests.past import BATCH, SYNC

PRICES = {"sync": SYNC, "stream": SYNC, "batch": BATCH, "background": 105_000}
CANCEL_S = 900.0


def at(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def answered(lane: str = "batch", cost: int | None = BATCH, tier: str = "default") -> Answered:
    return Answered(lane, tier, 1000, 100, 0, 0, cost, at(600))


def recorded(*plan: Step, took: float = 600, **more: Any) -> Recorded:
    """A job that was answered in a batch after ten minutes."""
    steps = [step.json() for step in plan or (Step(Lane.BATCH, Tier.DEFAULT),)]
    facts: dict[str, Any] = {
        "id": "j", "state": "succeeded", "step": 0, "provider": "openai", "model": MODEL, "interactive": False,
        "priority": 0, "tags": None, "submitted_at": NOW, "deadline_at": None, "finished_at": at(took),
        "max_cost_nano": None, "body": "{}", "post_process": None, "handling": None, "group": 1, "class_": "bulk",
        "rule": "r", "plan": steps, "options": [], "input_tokens": 1, "output_p50": 1, "output_p90": 1,
        "decision_id": "d", "paid_nano": BATCH, "blind": 0, "answers": (answered(),),
    }  # fmt: skip
    return Recorded(**facts | more)


def step(lane: str, leave_s: float | None = None, **more: Any) -> Step:
    return Step(Lane(lane), Tier.DEFAULT, None if leave_s is None else at(leave_s), **more)


def seen(**lanes: list[float]) -> History:
    return History(
        Stay("openai", MODEL, lane, "default", False, at(n), seconds, answered=True)
        for lane, took in lanes.items()
        for n, seconds in enumerate(took)
    )


def ask(job: Recorded, *plan: Step, history: History | None = None, prices: Any = PRICES) -> Replayed:
    roads = Roads(history or seen(), lambda step: CANCEL_S)
    return replay(job, plan, roads, lambda job, one, lane, tier: prices.get(lane))


def test_the_same_plan_is_what_happened() -> None:
    for plan in ((step("batch"),), (step("batch", 3600), step("sync"))):
        got = ask(recorded(*plan), *plan)
        assert (got.moved, got.paid, got.would, got.waits, got.untold) == (False, BATCH, BATCH, [(600.0, 1.0)], ())


def test_another_lane_costs_the_same_usage_there_and_takes_what_it_took_there() -> None:
    got = ask(recorded(), step("sync"), history=seen(sync=[2.0, 4.0]))
    assert (got.came, got.to, got.moved) == ("batch", "sync", True)
    assert (got.paid, got.would, got.untold) == (BATCH, SYNC, ())
    assert got.waits == [(2.0, 0.5), (4.0, 0.5)]


def test_a_lane_that_is_left_is_followed_through() -> None:
    """Three of four batches were done within the half hour: the fourth goes on to a plain call."""
    history = seen(batch=[100.0, 200.0, 1800.0, 5000.0], sync=[10.0, 20.0])
    job = recorded(step("sync"), took=12, paid_nano=SYNC, answers=(answered("sync", SYNC),))
    got = ask(job, step("batch", 1800), step("sync"), history=history)
    assert got.to == "batch, then sync"
    assert (got.paid, got.would) == (SYNC, round(0.75 * BATCH + 0.25 * SYNC)) == (150_000, 93_750)
    left = 1800 + CANCEL_S
    assert got.waits == [(100.0, 0.25), (200.0, 0.25), (1800.0, 0.25), (left + 10, 0.125), (left + 20, 0.125)]
    sure = ask(job, step("batch", 6000), step("sync"), history=seen(batch=[100.0]))
    assert (sure.would, sure.waits, sure.untold) == (BATCH, [(100.0, 1.0)], ())  # it never comes to the plain call


def test_an_answer_before_the_other_hour_to_leave_is_what_happened() -> None:
    job = recorded(step("batch", 3600), step("sync"))
    same = ask(job, step("batch", 700), step("sync"))
    assert (same.would, same.waits) == (BATCH, [(600.0, 1.0)])
    assert ask(job, step("batch")).waits == [(600.0, 1.0)]
    earlier = ask(job, step("batch", 300), step("sync"), history=seen(batch=[600.0], sync=[5.0]))
    assert (earlier.would, earlier.waits) == (SYNC, [(300 + CANCEL_S + 5, 1.0)])
    moved_on = job._replace(step=1)
    assert ask(moved_on, step("batch")).untold == (Untold("no_history", f"batch for {MODEL}", (WAIT,)),)


def test_no_history_of_a_lane_is_said_and_its_cost_is_told_all_the_same() -> None:
    got = ask(recorded(), step("sync"))
    assert (got.would, got.waits) == (SYNC, None)
    assert got.untold == (Untold("no_history", f"sync for {MODEL}", (WAIT,)),)
    assert got.untold[0].text == f"no history of sync for {MODEL}"


def test_without_history_of_a_lane_that_is_left_nothing_is_told() -> None:
    job = recorded(step("sync"), paid_nano=SYNC, answers=(answered("sync", SYNC),))
    got = ask(job, step("batch", 1800), step("sync"), history=seen(sync=[9.0]))
    assert (got.paid, got.would, got.waits) == (None, None, None)
    assert got.untold == (Untold("no_history", f"batch for {MODEL}", (COST, WAIT)),)
    unpriced = ask(job, step("batch", 1800), step("sync"), history=seen(sync=[9.0]), prices={"sync": SYNC})
    assert [one.lacks for one in unpriced.untold] == [(COST,), (WAIT,)]  # each is lacking for one reason


@pytest.mark.parametrize(
    ("job", "prices", "why"),
    [
        (recorded(blind=1), PRICES, Untold("unknown_cost", "", (COST,))),
        (recorded(answers=()), PRICES, Untold("unknown_cost", "", (COST,))),
        (recorded(blind=1, answers=(answered(cost=None),)), PRICES, Untold("unknown_price", MODEL, (COST,))),
        (recorded(), {"batch": BATCH}, Untold("unknown_price", f"sync for {MODEL}", (COST,))),
        (recorded(), PRICES | {"batch": BATCH + 1}, Untold("repriced", f"batch for {MODEL}", (COST,))),
    ],
)
def test_a_cost_that_cannot_be_told_says_why_and_the_wait_is_told(job: Recorded, prices: Any, why: Untold) -> None:
    got = ask(job, step("sync"), history=seen(sync=[3.0]), prices=prices)
    assert (got.paid, got.would, got.waits, got.untold) == (None, None, [(3.0, 1.0)], (why,))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"state": "queued"}, "unfinished"),
        ({"state": "submitted"}, "unfinished"),
        ({"state": "failed"}, "unanswered"),
        ({"state": "cancelled"}, "unanswered"),
        ({"body": None}, "pruned"),
        ({"body": ""}, "pruned"),
    ],
)
def test_jobs_that_say_nothing(more: dict[str, Any], why: str) -> None:
    assert silent(recorded(**more)) == Untold(why)
    assert silent(recorded()) is None


def test_every_answer_that_was_needed_is_priced() -> None:
    job = recorded(paid_nano=2 * BATCH, answers=(answered(), answered()))
    assert ask(job, step("sync"), history=seen(sync=[1.0])).would == 2 * SYNC


def test_plans_in_words() -> None:
    assert way((step("background", 60, window="2h"), step("sync"))) == "background 2h, then sync"
    assert way((Step(Lane.SYNC, Tier.FLEX, at(9)), step("sync"))) == "sync flex, then sync"
