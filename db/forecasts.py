"""What submissions have cost so far, and the sums that the rest is estimated from."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Float, and_, case, cast, func, select

from db.engine import Store
from db.ledger import ATTEMPT, DECISION, JOB
from db.paid import PAID
from db.queue import SUBMISSION
from db.states import FINAL
from db.tables import among

MOST = 20  # submissions


class Sums(NamedTuple):
    """One submission. Money in nano-dollars; what is paid counts every attempt of known cost.

    Of its jobs that ended, at a known cost and a known price: their number, and the sums of what was expected (x), of
    what they cost (y), of the squares and of the products. Of those that are still to end: their number, those without
    a price, and the sums of the median and of the 0.1 and 0.9 quantiles of what they will cost.
    """

    submission: str
    source: str
    submitted_at: datetime
    rows: int
    finished: int
    paid: int
    unknown: int
    n: int
    x: float
    y: float
    xx: float
    xy: float
    yy: float
    left: int
    unpriced: int
    median: float
    low: float
    high: float


def sums(store: Store, submission: str | None = None) -> list[Sums]:
    """The newest submissions of files, or the one."""
    wanted = SUBMISSION.c.id == submission if submission else SUBMISSION.c.source != "prompt"
    chosen = select(*SUBMISSION.c).where(wanted).order_by(SUBMISSION.c.id.desc()).limit(MOST).subquery()
    paid = (
        select(ATTEMPT.c.job_id, func.sum(PAID).label("cost"), _count(PAID.is_(None)))
        .join(JOB, JOB.c.id == ATTEMPT.c.job_id)
        .where(JOB.c.submission_id.in_(select(chosen.c.id)))
        .group_by(ATTEMPT.c.job_id)
        .subquery()
    )
    p50, p90 = cast(DECISION.c.cost_nano, Float), cast(DECISION.c.cost_p90_nano, Float)
    over, cost = among(JOB.c.state, FINAL), func.coalesce(paid.c.cost, 0)
    known = and_(over, func.coalesce(paid.c.number, 0) == 0, p50 > 0)
    x, y = case((known, p50), else_=0.0), case((known, cast(cost, Float)), else_=0.0)
    left = and_(~over, p50.is_not(None))
    least = case((p90 > 0, p50 * p50 / p90), else_=0.0)  # lognormal: as far below the median as the 0.9 one above
    query = (
        select(
            chosen.c.id,
            chosen.c.source,
            chosen.c.submitted_at,
            func.count(JOB.c.id),
            _count(over),
            func.coalesce(func.sum(cost), 0),
            func.coalesce(func.sum(paid.c.number), 0),
            _count(known),
            *(func.coalesce(func.sum(one), 0.0) for one in (x, y, x * x, x * y, y * y)),
            _count(~over),
            _count(and_(~over, p50.is_(None))),
            *(func.coalesce(func.sum(case((left, one), else_=0.0)), 0.0) for one in (p50, least, p90)),
        )
        .join(JOB, JOB.c.submission_id == chosen.c.id)
        .join(DECISION, DECISION.c.id == JOB.c.decision_id)
        .outerjoin(paid, paid.c.job_id == JOB.c.id)
        .group_by(chosen.c.id, chosen.c.source, chosen.c.submitted_at)
        .order_by(chosen.c.id.desc())
    )
    with store.read() as connection:
        return [_sums(*row) for row in connection.execute(query)]


def _count(condition: Any) -> Any:
    return func.sum(case((condition, 1), else_=0)).label("number")


def _sums(*row: Any) -> Sums:
    whole = Sums(*row)
    counts = {name: int(getattr(whole, name)) for name in ("finished", "paid", "unknown", "n", "left", "unpriced")}
    return whole._replace(**counts)  # type: ignore[arg-type]
