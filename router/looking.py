"""What people look at, as values: the commands print them, and the page draws the same ones. Read only."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from db import progress, reports, standing
from db.engine import Store
from db.progress import PRIORS, Prior, Priors
from jobs.errors import UsageError
from router import budgets as budgets_
from router.asking import Asked
from router.budgeting import Means
from router.decided import Decided
from router.decision import Decision
from router.dispatch import Router
from router.intake import canonical
from router.rules import Policy

View = dict[str, Any]

_LEAVE = ("cancel_s", "cancel_background_s", "sync_times", "sure_alone", "least_chance")


# ---- batches ----


def batches(store: Store, rows: Sequence[View], policy: Policy) -> list[View]:
    """Rows of `db.reports` with what is only known by looking at their attempts and at earlier batches."""
    priors = policy.priors
    windows: Priors = {window: Prior(one.p50, one.p95) for window, one in priors.windows_s.items()}
    mine: Priors = {**PRIORS, **windows, None: Prior(priors.batch_s.p50, priors.batch_s.p95)}
    return progress.told(store, rows, datetime.now(UTC), mine)


def the_batch(store: Store, word: str) -> View:
    """The one batch that the word names; UsageError for none, and for several."""
    found = reports.batch(store, word)
    if not found:
        raise UsageError(f"there is no batch {word!r}; `shunter batches list` shows them", code="not_found")
    if len(found) > 1:
        raise UsageError(f"{word!r} can be any of {', '.join(row['id'] for row in found[:5])}; say which")
    return found[0]


# ---- budgets ----


def budgets(store: Store, now: datetime) -> View:
    """{"budgets": […], "waiting_jobs": …}, by name."""
    views = [budgets_.view(one) for one in standing.standing(store, now)]
    return {"budgets": views, "waiting_jobs": standing.waiting(store)}


# ---- decisions ----


def explained(router: Router, asked: Asked) -> tuple[View, datetime]:
    """How a prompt would go, with what that rests on, and when it was decided; nothing is sent or kept.

    Refused where its budgets, however empty, have no room for it.
    """
    decision = _afforded(router, asked)
    return decision.json() | {"rests_on": decision.rests_on}, decision.at


def _afforded(router: Router, asked: Asked) -> Decision:
    now = router.clock.now()
    request, facts = router.routed(asked.request(router), asked.wish(), now)
    decision = router.decide(facts, now)
    Means(router, now).check(request, canonical(request.body()), Decided.of(decision, facts, now))
    return decision


# ---- the policy ----


def policy(policy: Policy, path: Path) -> View:
    """The rules in order, with their reasons, and the numbers."""
    return {
        "name": policy.name,
        "file": str(path.absolute()),
        "confidence": policy.confidence,
        "leave": {name: getattr(policy, name) for name in _LEAVE},
        "timeouts": asdict(policy.timeouts),
        "priors": asdict(policy.priors),
        "rules": [
            {
                "name": rule.name,
                "when": dict(_condition(one) for one in rule.when),
                "class": rule.class_,
                "lane": rule.lane.value if rule.lane else None,
                "tier": rule.tier.value if rule.tier else None,
                "refuse": rule.refuse,
                "model": rule.model,
                "provider": rule.provider,
                "deadline_s": rule.deadline_s,
                "timeouts": dict(rule.timeouts),
                "why": rule.why,
            }
            for rule in policy.rules
        ],
    }


def _condition(one: Any) -> tuple[str, Any]:
    """A condition as it is written in the file."""
    if one.test == "has":
        return one.fact, dict(one.value)
    value = list(one.value) if one.test == "any" else one.value
    return (f"{one.fact}_{one.test}" if one.test in ("below", "at_least") else one.fact), value
