"""Run one attempt at a job in its lane, and settle what it cost whatever happens."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from db import settle
from db.engine import StoreError
from db.ledger import Charge
from db.queue import Claim
from db.settle import Again, Cancelled, Ending, Failed, Settlement, Succeeded
from db.states import Lane
from jobs import bounds, outcome, postprocess, risk
from jobs.chat import Answer, Delta, Handling, Outcome, Request
from jobs.clock import Stopwatch
from jobs.context import Context
from jobs.errors import CallError, Permanent
from jobs.finishing import finished
from jobs.heard import Heard
from jobs.observing import AttemptEnded, AttemptSent
from jobs.providers import Timeouts
from jobs.together import each

_UNMADE = "the worker was stopped while --post-process ran; the answer is kept"


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: what it cost and what became of its job."""

    n: int
    charge: Charge
    ending: Ending
    headers: Mapping[str, str] = field(default_factory=dict)  # that rate limits are learned from
    error: CallError | None = None


Event = Delta | Ended
Save = Callable[[Settlement, Ended], Awaitable[None]]


@dataclass(slots=True)
class _Try:
    """One attempt while it runs."""

    context: Context
    claim: Claim
    request: Request
    keep: bool  # its owner tries again by itself
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    heard: Heard = field(default_factory=Heard)
    answer: Answer | None = None
    error: CallError | None = None

    @property
    def tries(self) -> int:
        """Which try this is: to be turned away is none, unless somebody waits, nor is a batch that never ran it."""
        ran = self.claim.n - self.claim.never_ran
        return ran if self.keep else ran - self.claim.turned_away


def request_of(claim: Claim) -> Request:
    """The request of a job, read back from its stored body, with the cap that its reservation rests on."""
    sender = {"post_process": claim.post_process, "interactive": claim.interactive}
    body = orjson.loads(bounds.capped(claim.body, claim.output_cap))
    return Request.from_body(body, handling=Handling.read(claim.handling), **sender)


async def run(context: Context, claim: Claim, save: Save | None = None) -> Ended:
    """One attempt at a claimed job, for a worker; a retry is left to the queue. `save` settles it in its own way."""
    ended: Ended | None = None
    async for event in attempt(context, claim, request_of(claim), keep=False, save=save):
        if isinstance(event, Ended):
            ended = event
    assert ended is not None  # every attempt ends
    return ended


async def attempt(
    context: Context, claim: Claim, request: Request, *, keep: bool, save: Save | None = None
) -> AsyncGenerator[Event, None]:
    """The deltas of one attempt, then how it ended; `keep`: its owner keeps the job and tries again by itself.

    It is settled in every case, before the generator ends: also when it is closed early, or its task is cancelled.
    """
    this = _Try(context, claim, request, keep)
    log = context.log.open(claim.job_id, claim.n)
    if claim.lane == Lane.STREAM:
        context.log.ready()
    ended: Ended | None = None
    try:
        try:
            await context.load(claim.provider)
            context.tell(AttemptSent(claim, request, context.endpoint(claim.provider).base_url))
            async with aclosing(_call(this)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Answer):
                        this.answer = piece
                        continue
                    this.stopwatch.token()
                    this.heard.add(piece)
                    log.add(piece)
                    yield piece
        except CallError as error:
            this.error = error
        except Exception as error:  # a mistake of ours must not end the worker, nor leave the job to nobody
            this.error = Permanent(f"{type(error).__name__}: {error}", code="internal_error", maybe_billed=True)
        came = _ended(this)
        ended = replace(came, ending=await postprocess.apply(came.ending, request.post_process))
        _learn(this, ended)
    finally:
        log.close()
        ended = ended or _broken_off(this)
        context.tell(AttemptEnded(claim, ended, kept=keep))
        await _settled(context, claim, ended, keep=keep, own=save)
    yield ended


def _learn(this: _Try, ended: Ended) -> None:
    """What a whole answer says of the length of the next ones."""
    whole = isinstance(ended.ending, Succeeded) and not ended.ending.result.truncated
    if whole and ended.charge.output_tokens:
        this.context.lengths.add(this.claim.model, this.request.body(), ended.charge.output_tokens)


async def _settled(context: Context, claim: Claim, ended: Ended, *, keep: bool, own: Save | None) -> None:
    """Settle, or owe it: while this process lives it renews the lease, so that nobody else would ever do it."""
    work = own(_settlement(claim, ended, keep=keep), ended) if own else save(context, claim, ended, keep=keep)
    saving = asyncio.ensure_future(work)
    try:
        await finished(saving)
    except (StoreError, asyncio.CancelledError):
        if not saving.cancelled() and isinstance(saving.exception(), StoreError):
            if keep and isinstance(ended.ending, Again):  # its owner is about to give up
                ended = replace(ended, ending=Failed(ended.ending.code, ended.ending.error, ended.ending.result))
            context.owed.append(_settlement(claim, ended, keep=keep))
        raise


def save(context: Context, claim: Claim, ended: Ended, *, keep: bool) -> "asyncio.Future[None]":
    """Settle an attempt, with what becomes of its job: in one transaction with all that end meanwhile."""
    return context.together(_settle_all)(_settlement(claim, ended, keep=keep))


def _settle_all(context: Context, settlements: Sequence[Settlement]) -> Sequence[Exception | None]:
    """Settle them at once; one by one where that cannot be."""
    now = context.clock.now()
    try:
        settle.settle(context.store, settlements, now)
    except StoreError as error:
        return [error] * len(settlements)
    except Exception:
        return each(lambda one: settle.settle(context.store, [one], now), settlements)
    return [None] * len(settlements)


def _settlement(claim: Claim, ended: Ended, *, keep: bool) -> Settlement:
    ending = outcome.held(ended.ending) if keep else ended.ending
    return Settlement(claim.job_id, ended.n, ended.charge, ending, logged=claim.lane == Lane.STREAM)


def _call(this: _Try) -> AsyncGenerator[Delta | Answer, None]:
    provider = this.context.provider(this.claim.provider)
    how: dict[str, Any] = {"tier": this.claim.tier, "timeouts": _timeouts(this), "watch": this.stopwatch}
    if this.claim.lane == Lane.STREAM:
        return provider.stream(this.request, **how)
    return _once(provider.complete(this.request, **how))


async def _once(answer: Awaitable[Answer]) -> AsyncGenerator[Delta | Answer, None]:
    yield await answer


def _timeouts(this: _Try) -> Timeouts:
    """The policy's, but for what the request says itself."""
    own = this.request.handling.model_dump(include={"first_token", "idle", "total"}, exclude_none=True)
    return replace(this.context.timeouts, **own)


def _ended(this: _Try) -> Ended:
    """What the attempt cost and what becomes of its job, by its answer or its error."""
    context, claim, now = this.context, this.claim, this.context.clock.now()
    timing, endpoint = this.stopwatch.read(), context.endpoint(claim.provider)
    most = risk.at_risk(claim, this.request, this.answer, timing, endpoint, now)
    if this.error is not None:
        charge = outcome.failed_charge(this.error, timing, most)
        ending = outcome.ending_of(this.error, this.tries, now, None if this.keep else claim)
        headers = this.error.headers
    else:
        assert this.answer is not None  # a stream ends in its answer or in an error
        lane = Lane(claim.lane)
        charge = outcome.charge(this.answer, lane, claim.tier, claim.model, endpoint, now, timing, most)
        ending = outcome.ending(this.answer, this.request, this.tries, now, claim.answered)
        headers = this.answer.headers
    if context.on_unknown == "hold" and not (this.answer and this.answer.usable):
        ending = outcome.unless_billed(ending, charge)
    return Ended(claim.n, charge, ending, headers, this.error)


def _broken_off(this: _Try) -> Ended:
    """How it ends when its reader has left, or the worker was stopped; an answer that is there stays."""
    wanted = this.context.running.stopped(this.claim.job_id)
    for_good = this.keep or wanted
    if this.error is None and this.answer is None:
        code, why = (None, outcome.WANTED if wanted else None) if for_good else ("stopped", outcome.STOPPED)
        this.answer = Answer(this.heard.choices(), Outcome.CANCELLED, error_code=code, error=why)
    ended = _ended(this)
    if isinstance(ended.ending, Succeeded):  # during its post-processing
        result = ended.ending.result
        return replace(ended, ending=Cancelled(result) if for_good else Failed("post_process", _UNMADE, result))
    if isinstance(ended.ending, Cancelled) and not for_good:
        ending = outcome.stopped(ended.ending.result, this.tries, this.context.clock.now())
        if this.context.on_unknown == "hold":
            ending = outcome.unless_billed(ending, ended.charge)
        return replace(ended, ending=ending)
    return ended
