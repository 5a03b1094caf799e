"""One request as it is accepted: decided and recorded, leased to this process when it runs at once, else queued."""

import secrets
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from db import lookup, queue
from db.ids import new_id
from db.queue import Claim, NewJob
from db.reserving import OverBudget
from db.states import Lane
from jobs.chat import Request
from jobs.errors import UsageError
from router import reason
from router.budgeting import Means, refused
from router.decided import Decided, Started, Wish, row_of
from router.decision import Decision, Facts
from router.intake import canonical

if TYPE_CHECKING:
    from router.dispatch import Router

LIVE = (Lane.STREAM, Lane.SYNC)


def start(router: "Router", request: Request, wish: Wish) -> Started:
    """Decide and record it. Refused when the policy, a cap or a budget says no."""
    now = router.clock.now()
    request, facts = router.routed(request, wish, now)
    decision = router.decide(facts, now)
    if wish.shown and decision.lane is Lane.SYNC:
        decision = _shown(router.decide(facts._replace(lane_asked=Lane.STREAM), now), facts)
    decided = Decided.of(decision, facts, now)
    wish.check(decision)
    router.context().endpoint(facts.provider)  # a missing key is said first
    body = canonical(request.body())
    keyed = request.client_key is not None and not wish.again
    row_key = f"key {request.client_key}" if keyed else f"once {secrets.token_hex(16)}"
    if keyed and lookup.by_key(router.store, row_key):
        return _known(router, row_key, body, request, decided.decision)
    job, claim = decided.job(request, body, row_key), None
    if (request.interactive or wish.here) and decided.decision.lane in LIVE:
        claim, known = _run_here(router, job, decided, now)
    else:
        Means(router, now).check(request, body, decided)
        known = _queue(router, job, decided, now)
    if known:
        return _known(router, row_key, body, request, decided.decision)
    return Started(job.id, decided.decision, claim)


def _shown(decision: Decision, facts: Facts) -> Decision:
    """The decision in words of its own: nobody asked for a lane."""
    tell = decision.tell
    return replace(decision, tell=lambda: tell()._replace(reason=reason.shown(facts)))


def _run_here(router: "Router", job: NewJob, decided: Decided, now: datetime) -> tuple[Claim | None, bool]:
    """A job that is leased to this process, and whether it was known.

    One that no budget has room for now is queued; it is refused where a person waits, or waiting is of no use.
    """
    context, row = router.context(), row_of(decided)
    try:
        claim = queue.start(router.store, job, new_id(now), row, context.owner, context.until(), now, context.purse)
    except OverBudget as over:
        if job.interactive or over.no.until is None:
            raise refused(over.no) from None
        context.news.append(over.no.why)
        return None, _queue(router, job, decided, now)
    return claim, claim is None


def _queue(router: "Router", job: NewJob, decided: Decided, now: datetime) -> bool:
    """Leave it to a worker; whether it was known."""
    submission = new_id(now)
    queue.open_submission(router.store, submission, "prompt", now)
    return bool(queue.add(router.store, submission, [row_of(decided)], [job], now))


def _known(router: "Router", row_key: str, body: str, request: Request, decision: Decision) -> Started:
    job_id = lookup.by_key(router.store, row_key)
    assert job_id is not None
    before = lookup.body(router.store, job_id)
    if before is None:
        raise UsageError(
            f"the key {request.client_key!r} was used by job {job_id}, whose words were pruned: choose another key, "
            "or --again to run it as a new job",
            code="key_pruned",
        )
    if before != (body, request.post_process):
        raise UsageError(
            f"the key {request.client_key!r} was used for another request (job {job_id}): "
            "choose another key, or --again to run it as a new job",
            code="key_reused",
        )
    return Started(job_id, decision, None, known=True)
