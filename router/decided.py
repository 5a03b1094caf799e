"""What goes into a decision beside the request, and what a decided request becomes in the store."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from db.ids import new_id
from db.queue import Claim, NewJob
from db.states import Lane
from db.turnarounds import COUNTED_WITH
from jobs.chat import Request
from jobs.errors import Refused
from router.decision import Decision, Facts


@dataclass(frozen=True, slots=True)
class Wish:
    """What the sender says beside the request.

    A lane of their own; a cap on its cost in nano-dollars; to run a known one `again`; to run live lanes `here`, in
    this process, though no person waits; that its words are `shown` as they come, for which no plain call will do; the
    only `lanes` that it may go to.
    """

    lane: Lane | None = None
    max_cost_nano: int | None = None
    again: bool = False
    here: bool = False
    shown: bool = False
    lanes: tuple[str, ...] | None = None

    def check(self, decision: Decision) -> None:
        """Refused when the plan goes to a lane that is not allowed."""
        if self.lanes is None:
            return
        if barred := [step.lane.value for step in decision.plan if step.lane not in self.lanes]:
            said = f"it would go to the {barred[0]} lane, and this key may use {', '.join(self.lanes)} alone"
            said += "; X-Shunter-Class and X-Shunter-Deadline have a say in that"
            raise Refused(said, code="lane_not_allowed")


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision and the id of its row: equal decisions of one moment are one row."""

    decision: Decision
    id: str
    provider: str
    at: datetime
    max_cost_nano: int | None = None  # for all attempts at it together

    @classmethod
    def of(cls, decision: Decision, facts: Facts, now: datetime) -> "Decided":
        """The same decision later is a row of its own, with its own hour, and so is one on counted tokens."""
        with_ = f"{COUNTED_WITH}{facts.counted.vocabulary}" if facts.counted else ""
        ident = f"{decision.id}-{int(now.timestamp()):x}{with_}"
        return cls(decision, ident, facts.provider, now, facts.max_cost_nano)

    def job(self, request: Request, body: str, row_key: str) -> NewJob:
        """The row of a request that was decided so."""
        decision = self.decision
        return NewJob(
            id=new_id(self.at),
            row_key=row_key,
            client_key=request.client_key,
            decision_id=self.id,
            lane=decision.lane.value,
            tier=decision.tier.value,
            provider=self.provider,
            model=request.model,
            interactive=request.interactive,
            priority=request.priority,
            tags=request.tags or None,
            deadline_at=request.deadline,
            leave_by=decision.plan[0].leave_by,
            body=body,
            post_process=request.post_process,
            handling=request.handling.stored(),
            max_cost_nano=self.max_cost_nano,
        )


@dataclass(frozen=True, slots=True)
class Started:
    """A job that runs here now, and how it was decided."""

    job_id: str
    decision: Decision
    claim: Claim | None  # None: it waits for a worker, or was known already
    known: bool = False  # the key was used before: this is that job, and nothing new is sent


def row_of(decided: Decided) -> dict[str, Any]:
    """A decision as it is kept."""
    decision = decided.decision
    whole = decision.json()
    return {
        "id": decided.id,
        "class": decision.class_,
        "lane": decision.lane.value,
        "tier": decision.tier.value,
        "rule": decision.rule,
        "reason": decision.reason,
        "input_tokens": decision.input_tokens,
        "output_p50": decision.output_p50,
        "output_p90": decision.output_p90,
        "cost_nano": decision.cost_nano,
        "cost_p90_nano": decision.cost_p90_nano,
        "finish_by": decision.finish_by,
        "plan": whole["plan"],
        "options": whole["options"],
        "policy": decision.policy,
        "decided_at": decided.at,
    }
