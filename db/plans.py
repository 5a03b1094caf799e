"""The next step of a job's stored plan."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, select, update

from db.dialect import hold, within
from db.engine import Store
from db.ledger import DECISION, JOB
from db.states import JobState, Lane, Tier


@dataclass(frozen=True, slots=True)
class Onto:
    """Where a job goes on: the number of the step and what it says."""

    step: int
    lane: str
    tier: str
    leave_by: datetime | None


def step_of(plan: list[dict[str, Any]], number: int) -> Onto | None:
    """Step `number` of a stored plan, or None when the plan is at its end."""
    if number >= len(plan):
        return None
    leave_by = plan[number].get("leave_by")
    return Onto(
        number, plan[number]["lane"], plan[number]["tier"], datetime.fromisoformat(leave_by) if leave_by else None
    )


def next_steps(store: Store, job_ids: Iterable[str], now: datetime) -> dict[str, Onto]:
    """The next step of each of the jobs whose hour to leave its lane has come."""
    query = select(JOB.c.id, JOB.c.step, DECISION.c.plan).join(DECISION, DECISION.c.id == JOB.c.decision_id)
    with store.read() as connection:
        rows = connection.execute(query.where(within(JOB.c.id, list(job_ids), connection), JOB.c.leave_by <= now)).all()
    steps = {job_id: step_of(plan, step + 1) for job_id, step, plan in rows}
    return {job_id: step for job_id, step in steps.items() if step}


def leave_late(store: Store, now: datetime) -> int:
    """Move queued jobs whose hour to leave their lane has come to the next step of their plan."""
    return _leave(store, JOB.c.leave_by <= now)


def leave_open_batch(store: Store, batch_id: str, now: datetime) -> int:
    """Move the rows of a batch whose hour to leave it has come to their next step, while the batch is still open.

    Their attempts stay open: what the batch still does of them is charged, too, and the first answer is the result.
    """
    inside = and_(JOB.c.batch_id == batch_id, JOB.c.leave_by <= now)
    return _leave(
        store, inside, JobState.SUBMITTED, {"batch_id": None, "run_after": now, "state": JobState.QUEUED.value}
    )


def leave_batch_lane(store: Store, provider: str, model: str) -> int:
    """Move queued batch jobs on because their server has no Batch API: to their next step, else to plain calls."""
    where = and_(JOB.c.lane == Lane.BATCH.value, JOB.c.provider == provider, JOB.c.model == model)
    return _leave(store, where)


def _leave(store: Store, where: Any, state: JobState = JobState.QUEUED, also: dict[str, Any] | None = None) -> int:
    there = and_(JOB.c.state == state.value, where)
    groups = select(JOB.c.decision_id, JOB.c.step).where(there).distinct()
    with store.read() as connection:  # most often there is nothing to move: look without the writer's lock
        if connection.execute(groups.limit(1)).first() is None:
            return 0
    moved = 0
    with store.write() as connection:
        hold(connection, select(JOB.c.id).where(there).order_by(JOB.c.id))
        for decision_id, step in connection.execute(groups).all():
            plan = connection.scalar(select(DECISION.c.plan).where(DECISION.c.id == decision_id)) or []
            onto = step_of(plan, step + 1) or Onto(step + 1, Lane.SYNC.value, Tier.DEFAULT.value, None)
            values = {"step": onto.step, "lane": onto.lane, "tier": onto.tier, "leave_by": onto.leave_by}
            same = and_(there, JOB.c.decision_id == decision_id, JOB.c.step == step)
            moved += connection.execute(update(JOB).where(same).values(values | (also or {}))).rowcount
    return moved
