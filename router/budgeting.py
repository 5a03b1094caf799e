"""Budgets at the front door: what can never be paid is refused, with what to do; what has to wait is queued."""

from datetime import datetime
from typing import TYPE_CHECKING

from db.reserving import Sending, in_force
from db.rooms import No, never
from jobs import bounds
from jobs.chat import Request
from jobs.errors import Refused
from router.decided import Decided

if TYPE_CHECKING:
    from router.dispatch import Router


class Means:
    """The budgets in force when a submit began, beside the caps that it brings."""

    def __init__(self, router: "Router", now: datetime) -> None:
        self._now = now
        self._weigh = bounds.weigher(router.settings.endpoints, router.settings.budget_output_cap)
        self._budgets = []
        if router.exists():
            with router.store.read() as connection:
                self._budgets = in_force(connection)

    def check(self, request: Request, body: str, decided: Decided) -> None:
        """Refused when even empty budgets, or its own cap, have no room for the request: over_budget, over_cap or
        unknown_price.
        """
        budgets = [one for one in self._budgets if one.covers(request.tags)]
        cap = decided.max_cost_nano
        if not budgets and cap is None:
            return
        first, decision = decided.decision.plan[0], decided.decision
        sending = Sending(first.lane.value, first.window or first.tier.value, decided.provider, request.model, body,
                          decision.input_tokens, decision.output_p90, cap)  # fmt: skip
        no = never(budgets, self._weigh(sending, self._now), request.model, cap, cap)
        if no is not None:
            raise refused(no)


def refused(no: No) -> Refused:
    """What a person, or a row, is told."""
    return Refused(no.why, code=no.code)
