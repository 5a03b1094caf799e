"""What the tests of budgets share: budgets in few words, purses that weigh as they are told, and what stands where."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from db import standing
from db.budgets import Budget
from db.engine import Store
from db.ledger import Charge
from db.queue import Claim
from db.reserving import Purse, Sending
from db.rooms import Most
from db.settle import Again, Ending, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests.lanes import NOW, rows


def budget(store: Store, limit: int, *, name: str = "b", per: str = "total", tag: str | None = None,
           zone: str = "UTC", now: datetime = NOW) -> Budget:  # fmt: skip
    """Set a budget of so many nano-dollars."""
    key, _, value = (tag or "").partition("=")
    return standing.put(store, Budget("", name, limit, per, key or None, value or None, zone, now))


def purse(most: int | Callable[[Sending], int | None] | None = 100, cap: int | None = None) -> Purse:
    """One for which each attempt may cost so much."""
    return Purse(lambda sending, _: Most(most(sending) if callable(most) else most, cap))


def sums(store: Store, name: str = "b", now: datetime = NOW) -> tuple[int, int]:
    """What is spent and set aside of a budget in its period at that time."""
    (one,) = (one for one in standing.standing(store, now) if one.budget.name == name)
    return one.spent_nano, one.reserved_nano


def paid(claim: Claim, nano: int) -> Settlement:
    """It was answered, and cost so much."""
    charge = Charge(AttemptState.OK, nano, CostSource.COMPUTED, standard_nano=nano)
    return Settlement(claim.job_id, claim.n, charge, Succeeded(Text("done")))


def lost(claim: Claim, ending: Ending | None = None) -> Settlement:
    """It may have been billed."""
    charge = Charge(AttemptState.UNKNOWN, at_risk_nano=7, error_code="cut", error="cut")
    return Settlement(claim.job_id, claim.n, charge, ending or Again(NOW, "cut", "cut", Text("half", partial=True)))


def said(store: Store, job_id: str) -> tuple[str, str | None, str]:
    """State, code and words of a job."""
    query = "SELECT state, error_code, coalesce(error, '') FROM job WHERE id = :id"
    state, code, error = rows(store, query, id=job_id)[0]
    return str(state), code, str(error)


def even(store: Store) -> None:
    """Each budget holds what its attempts come to, and only what is open or unknown holds something."""
    assert standing.audit(store) == []
    held: list[Any] = rows(store, "SELECT DISTINCT state FROM attempt WHERE reserved_nano IS NOT NULL")
    assert {row[0] for row in held} <= {"sent", "unknown"}
