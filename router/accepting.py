"""One request as it is accepted: decided and recorded, leased to this process when it runs at once, else queued."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from db import lookup, queue
from db.ids import new_id
from db.queue import Claim, KeyKnown, NewJob, Starting
from db.reserving import OverBudget
from db.states import Lane
from jobs.chat import Request
from jobs.errors import UsageError
from jobs.observing import JobAccepted
from jobs.together import each
from router import reason
from router.budgeting import Means, refused
from router.decided import Decided, Started, Wish, row_of
from router.decision import Decision, Facts
from router.intake import canonical

if TYPE_CHECKING:
    from router.dispatch import Router

LIVE = (Lane.STREAM, Lane.SYNC)


SMALL = 30_000  # characters that are read and measured in a millisecond


def is_small(request: Request) -> bool:
    """Whether accepting it takes no longer than an event loop can wait: one that runs at once, of few words."""
    words = sum(len(one.content) if isinstance(one.content, str) else SMALL for one in request.messages if one.content)
    return request.interactive and words < SMALL and not request.tools


class Asked(NamedTuple):
    """A request as it came."""

    request: Request
    wish: Wish


class Ready(NamedTuple):
    """A request that is decided and not recorded yet."""

    job: NewJob
    request: Request
    decided: Decided
    here: bool  # it runs in this process

    def started(self, claim: Claim | None) -> Started:
        """It is recorded."""
        return Started(self.job.id, self.decided.decision, claim)


def start_all(router: "Router", asked: Sequence[Asked]) -> Sequence[Started | Exception]:
    """Decide and record requests that came at the same time, in one transaction where that can be.

    What came of each: Refused when the policy, a cap or a budget says no.
    """
    now = router.clock.now()
    ready = each(lambda one: _ready(router, *one, now), asked)
    here = [one for one in ready if isinstance(one, Ready) and one.here]
    later = [one for one in ready if isinstance(one, Ready) and not one.here]
    claimed, queued = iter(_claims(router, here, now)), iter(each(lambda one: _queued(router, one, now), later))
    started = [next(claimed if one.here else queued) if isinstance(one, Ready) else one for one in ready]
    for one, came in zip(ready, started, strict=True):
        if isinstance(one, Ready) and isinstance(came, Started) and not came.known:
            _tell(router, one, came)
    return started


def _ready(router: "Router", request: Request, wish: Wish, now: datetime) -> Ready | Started:
    request, facts = router.routed(request, wish, now)
    decision = router.decide(facts, now, shown=wish.shown)
    decided = Decided.of(decision, facts, now)
    wish.check(decision)
    router.context().endpoint(facts.provider)  # a missing key is said first
    body = canonical(request.body())
    keyed = request.client_key is not None and not wish.again
    row_key = f"key {request.client_key}" if keyed else f"once {secrets.token_hex(16)}"
    here = (request.interactive or wish.here) and decision.lane in LIVE
    ready = Ready(decided.job(request, body, row_key), request, decided, here)
    if keyed and lookup.by_key(router.store, row_key):
        return _known(router, ready)
    return ready


def _tell(router: "Router", ready: Ready, started: Started) -> None:
    job, decision = ready.job, ready.decided.decision
    kind = decision.class_, job.lane, job.tier, job.model, job.provider, decision.rule
    router.context().tell(JobAccepted(job.id, *kind, runs_here=started.claim is not None))


def shown(decision: Decision, facts: Facts) -> Decision:
    """The decision in words of its own: nobody asked for a lane."""
    tell = decision.tell
    return replace(decision, tell=lambda: tell()._replace(reason=reason.shown(facts)))


def _claims(router: "Router", ready: Sequence[Ready], now: datetime) -> list[Started | Exception]:
    """Jobs that are leased to this process: at once, or else one by one, so that each hears what stands in its way."""
    if not ready:
        return []
    context = router.context()
    starting = [Starting(one.job, new_id(now), row_of(one.decided)) for one in ready]
    try:
        claims = queue.start_all(router.store, starting, context.owner, context.until(), now, context.purse)
    except (OverBudget, KeyKnown):
        return each(lambda one: _run_here(router, *one, now), [*zip(ready, starting, strict=True)])
    return [one.started(claim) for one, claim in zip(ready, claims, strict=True)]


def _run_here(router: "Router", ready: Ready, starting: Starting, now: datetime) -> Started:
    """One that no budget has room for now is queued; it is refused where a person waits, or waiting is of no use."""
    context = router.context()
    try:
        claim = queue.start(router.store, *starting, context.owner, context.until(), now, context.purse)
    except OverBudget as over:
        if ready.job.interactive or over.no.until is None:
            raise refused(over.no) from None
        context.news.append(over.no.why)
        return _queue(router, ready, now)
    return ready.started(claim) if claim else _known(router, ready)


def _queued(router: "Router", ready: Ready, now: datetime) -> Started:
    Means(router, now).check(ready.request, ready.job.body, ready.decided)
    return _queue(router, ready, now)


def _queue(router: "Router", ready: Ready, now: datetime) -> Started:
    """Leave it to a worker."""
    submission = new_id(now)
    known = queue.add(router.store, submission, [row_of(ready.decided)], [ready.job], now, source="prompt")
    return _known(router, ready) if known else ready.started(None)


def _known(router: "Router", ready: Ready) -> Started:
    request, (row_key, body) = ready.request, (ready.job.row_key, ready.job.body)
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
    return Started(job_id, ready.decided.decision, None, known=True)
