"""whatif: recorded jobs decided anew under another policy, each as of the time it came in. Sends and keeps nothing."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from db import replay as past
from db import turnarounds
from db.replay import Answered, Recorded
from db.states import Lane, Tier
from jobs import pricing
from jobs.chat import Handling, Request, Usage
from jobs.errors import Refused, ShunterError, UsageError
from router import hindsight, rules, show
from router.answers import Answers
from router.curves import History
from router.decided import Wish
from router.decision import Decision, Facts, Step, iso
from router.dispatch import Router
from router.estimate import NO_BATCH
from router.finish import LOOK_S, Finish
from router.policy import routed
from router.tally import Tally
from router.vocabulary import Counted
from router.whatif import Replayed, Roads, Untold, left_out, replay, silent
from router.when import moment

BEFORE = timedelta(days=30)  # how far the history of turnarounds reaches back before the first job
LOOK = timedelta(seconds=LOOK_S)  # what was seen by then is looked up again after this, as it was then
LOOKS = 2000  # of one replay: over a long time they are further apart
_DECISIONS = 5000
_OF_EACH = {  # where the message has the job's own figures
    "over_cap": "above its cap",
    "unknown_price": "its price is unknown, so that no cap could be kept",
    "deadline": "its deadline had passed",
}


def run(policy: Path, since: str | None, until: str | None, *, json: bool) -> int:
    """Replay the jobs of this time under the policy of a file, and say what would have been otherwise."""
    router = Router()
    path = policy.expanduser()
    router.policy = rules.load(path)
    now = router.clock.now()
    start, end = (moment(words, now, past=True) if words else None for words in (since, until))
    try:
        with show.progress("replaying") as told:
            found = over(router, start, end, told)
    finally:
        asyncio.run(router.close())
    about = {"policy": router.policy.name, "file": str(path.absolute()), "since": iso(start), "until": iso(end)}
    show.data(about | found) if json else hindsight.tell(about | found)
    return 0


def over(
    router: Router, since: datetime | None, until: datetime | None, told: Callable[[int], None] = lambda jobs: None
) -> dict[str, Any]:
    """What the router's policy would have made of the jobs of this time, in its JSON form."""
    tally = Tally()
    for page in replayed(router, since, until):
        tally.add(page)
        told(tally.jobs)
    return tally.json()


def replayed(router: Router, since: datetime | None, until: datetime | None) -> Iterator[list[Replayed]]:
    """Each job that was submitted in this time, a page at a time."""
    look = max(LOOK, past.span(router.store, since, until) / LOOKS)
    again = _Again(router, History(past.stays(router.store, since and since - BEFORE)), look)
    for page in past.jobs(router.store, since, until):
        yield [again(job) for job in page]


class _Again:
    """Decides recorded jobs anew by what was known when they came in; equal facts of one moment once."""

    def __init__(self, router: Router, history: History, look: timedelta) -> None:
        self._router, self._look_again = router, look
        self._roads = Roads(history, self._leaving)
        router.answers = Answers(lambda: None)  # it keeps sums alone, which would tell of the future
        router.finish = Finish(router.policy.priors, router.settings.concurrency, lambda: None)
        self._looked: datetime | None = None
        self._known: dict[tuple[Facts, datetime], Decision | Untold] = {}

    def __call__(self, job: Recorded) -> Replayed:
        decided = silent(job) or self._decided(job)
        if isinstance(decided, Untold):
            return left_out(job, decided)
        return replay(job, decided.plan, self._roads, self._price)

    def _decided(self, job: Recorded) -> Decision | Untold:
        at = job.submitted_at
        self._look(at)
        try:
            _, facts = routed(_request(job), self._router.policy, at, partial(self._facts, job))
        except UsageError as error:
            return Untold("undecided", _words(error))
        if (facts.provider, facts.model) != (job.provider, job.model):
            return Untold("other_model", f"{facts.model} at {facts.provider}")
        if (found := self._known.get((facts, at))) is None:
            if len(self._known) >= _DECISIONS:
                self._known.clear()
            found = self._known[facts, at] = self._decide(facts, at)
        return found

    def _facts(self, job: Recorded, request: Request, provider: str | None) -> Facts:
        """What was known of a request when its job came in; no key of today and no later answer tells of it."""
        provider = provider or (job.provider if request.model == job.model else None)
        facts = self._router.facts(request, _wish(job), job.submitted_at, job.group, provider)
        return as_it_was(facts, job) if (facts.provider, facts.model) == (job.provider, job.model) else facts

    def _decide(self, facts: Facts, at: datetime) -> Decision | Untold:
        try:
            return self._router.decide(facts, at)
        except Refused as error:
            return Untold("refused", _words(error))
        except UsageError as error:
            return Untold("undecided", _words(error))

    def _look(self, now: datetime) -> None:
        if self._looked is None or now - self._looked >= self._look_again:
            self._looked = now
            store = self._router.store
            self._router.finish.learn(turnarounds.batches(store, now), turnarounds.calls(store, now))
            self._router.answers.learn(turnarounds.counted(store, now))

    def _price(self, job: Recorded, answer: Answered, lane: Lane, tier: str) -> int | None:
        usage = Usage(answer.input, answer.output, answer.cached, answer.cache_write)
        endpoint = self._router.settings.endpoints.get(job.provider)
        own = endpoint is None or endpoint.own
        where: dict[str, Any] = {"model": job.model, "provider": job.provider, "own": own, "at": answer.priced_at}
        return pricing.price(usage, lane=lane, tier=tier, table=self._router.settings.prices, **where).nano

    def _leaving(self, step: Step) -> float:
        """Seconds from the hour to leave until the next step begins: as long as the policy reckons with."""
        policy = self._router.policy
        return {Lane.BATCH: policy.cancel_s, Lane.BACKGROUND: policy.cancel_background_s}.get(step.lane, 0.0)


def as_it_was(facts: Facts, job: Recorded) -> Facts:
    """The facts with what the job's own decision says of them: its sizes, by what was known of its template then, and
    which lanes there were.
    """
    facts = facts._replace(
        input_tokens=job.input_tokens,
        counted=Counted(job.vocabulary, whole=True) if job.vocabulary else None,
        output_p50=job.output_p50,
        output_p90=job.output_p90,
    )
    if not job.options:
        return facts
    firsts = [option["plan"][0] | {"why_not": option["why_not"]} for option in job.options]
    return facts._replace(
        has_batch=not any(one["lane"] == Lane.BATCH and one["why_not"] == NO_BATCH for one in firsts),
        has_background=any(one["lane"] == Lane.BACKGROUND for one in firsts),
        has_flex=any(one["tier"] == Tier.FLEX for one in firsts),
    )


def _words(error: ShunterError) -> str:
    """Why a job would not have been taken, in words that are the same for all of its kind."""
    return _OF_EACH.get(error.code, str(error))


def _request(job: Recorded) -> Request:
    """The request of a recorded job."""
    assert job.body is not None
    request = Request.from_body(
        orjson.loads(job.body),
        interactive=job.interactive,
        deadline=job.deadline_at,
        post_process=job.post_process,
        tags=job.tags or {},
        priority=job.priority,
        handling=Handling.read(job.handling),
    )
    # `whole` is said beside the request and not stored: its class tells.
    whole = job.class_ == "structured-output" and not request.structured
    return request.model_copy(update={"whole": True}) if whole else request


def _wish(job: Recorded) -> Wish:
    """What was asked beside the request: the lane, where the sender named one, and the cap."""
    asked = Lane(job.plan[0]["lane"]) if job.rule == "asked" else None
    return Wish(asked, job.max_cost_nano)
