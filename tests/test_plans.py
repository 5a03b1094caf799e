"""The next step of a stored plan: when its hour has come, or the server has no Batch API."""

from datetime import timedelta
from typing import Any

import pytest

from db import plans
from db.engine import Store
from tests.lanes import MODEL, NOW, add, job, rows

pytestmark = pytest.mark.both

HOUR = NOW + timedelta(hours=1)
STEPS: list[dict[str, Any]] = [
    {"lane": "batch", "tier": "default", "leave_by": HOUR.isoformat()},
    {"lane": "stream", "tier": "flex", "leave_by": None},
]


def where(store: Store, ident: str) -> tuple[Any, ...]:
    return tuple(rows(store, "SELECT step, lane, tier, leave_by IS NULL FROM job WHERE id = :id", id=ident)[0])


def test_nothing_moves_before_its_hour(store: Store) -> None:
    ident = add(store, job(leave_by=HOUR), plan=STEPS)[0]
    assert plans.leave_late(store, HOUR - timedelta(seconds=1)) == 0
    assert where(store, ident) == (0, "batch", "default", 0)


def test_at_its_hour_a_queued_job_goes_on_as_its_plan_says(store: Store) -> None:
    ident = add(store, job(leave_by=HOUR), plan=STEPS)[0]
    assert plans.leave_late(store, HOUR) == 1
    assert where(store, ident) == (1, "stream", "flex", 1)
    assert plans.leave_late(store, HOUR) == 0


def test_a_plan_at_its_end_goes_on_with_plain_calls(store: Store) -> None:
    ident = add(store, job(leave_by=HOUR), plan=STEPS[:1])[0]
    plans.leave_late(store, HOUR)
    assert where(store, ident) == (1, "sync", "default", 1)


def test_without_a_batch_api_the_jobs_of_that_model_go_on(store: Store) -> None:
    planned = add(store, job(decision_id="d1"), plan=STEPS)[0]
    alone = add(store, job(decision_id="d2"))[0]
    other = add(store, job(decision_id="d3", model="gpt-4o"))[0]
    assert plans.leave_batch_lane(store, "openai", MODEL) == 2
    assert where(store, planned) == (1, "stream", "flex", 1)
    assert where(store, alone) == (1, "sync", "default", 1)
    assert where(store, other) == (0, "batch", "default", 1)


def test_the_next_steps_of_those_whose_hour_has_come(store: Store) -> None:
    late = add(store, job(leave_by=HOUR, decision_id="d1"), plan=STEPS)[0]
    early = add(store, job(leave_by=HOUR + timedelta(hours=1), decision_id="d2"), plan=STEPS)[0]
    last = add(store, job(leave_by=HOUR, decision_id="d3"), plan=STEPS[:1])[0]
    found = plans.next_steps(store, [late, early, last], HOUR)
    assert found == {late: plans.Onto(1, "stream", "flex", None)}


def test_a_step_with_an_hour_keeps_it(store: Store) -> None:
    onto = plans.step_of(STEPS, 0)
    assert onto is not None
    assert onto.leave_by == HOUR
    assert plans.step_of(STEPS, 2) is None
