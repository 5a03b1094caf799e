"""Run one job now in its lane, and settle what it cost whatever happens."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import orjson

from db import queue, settle
from db.ledger import Charge
from db.queue import Claim
from db.settle import Again, Cancelled, Ending, Settlement
from db.states import AttemptState, Lane
from jobs import outcome, postprocess
from jobs.chat import Answer, Choice, Delta, Outcome, Request
from jobs.clock import Stopwatch
from jobs.context import Context
from jobs.errors import CallError


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: what it cost and what became of its job."""

    n: int
    charge: Charge
    ending: Ending


Event = Delta | Ended


@dataclass(slots=True)
class _Try:
    """One attempt while it runs."""

    context: Context
    claim: Claim
    request: Request
    keep: bool  # its owner tries again by itself
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    heard: list[str] = field(default_factory=list)
    answer: Answer | None = None
    error: CallError | None = None


def request_of(claim: Claim) -> Request:
    """The request of a job, read back from its stored body."""
    return Request.from_body(orjson.loads(claim.body), post_process=claim.post_process, interactive=claim.interactive)


async def run(context: Context, claim: Claim) -> Ended:
    """One attempt at a claimed job, for a worker; a retry is left to the queue."""
    ended: Ended | None = None
    async for event in _attempt(_Try(context, claim, request_of(claim), keep=False)):
        if isinstance(event, Ended):
            ended = event
    assert ended is not None  # every attempt ends
    return ended


async def watch(context: Context, claim: Claim) -> AsyncGenerator[Event, None]:
    """The deltas of a job that its submitter runs, then how it ended; tries again by itself before the first delta.

    Closing it early cancels the job: the connection is closed and the attempt settled before `aclose()` returns.
    """
    request, held = request_of(claim), None
    try:
        following: Claim | None = claim
        while following is not None:
            claim, following, held = following, None, None
            async with aclosing(_attempt(_Try(context, claim, request, keep=True))) as events:
                async for event in events:
                    held = event if isinstance(event, Ended) and isinstance(event.ending, Again) else None
                    yield event
            if held is not None and isinstance(held.ending, Again):
                following = await _next(context, claim, held.ending)
    except (asyncio.CancelledError, GeneratorExit):
        if held is not None:  # its attempt is settled and stays as it is: only the job, which is still ours, moves
            await asyncio.shield(_save(context, claim, replace(held, ending=Cancelled())))
        raise


async def leave(context: Context, claim: Claim) -> None:
    """Cancel a job that was claimed to be watched and never was: nothing was sent."""
    free = Charge.free(AttemptState.CANCELLED, code="cancelled", error="its reader left before it was sent")
    await asyncio.shield(_save(context, claim, Ended(claim.n, free, Cancelled())))


async def _next(context: Context, claim: Claim, again: Again) -> Claim | None:
    """Wait, then open the next attempt."""
    await asyncio.sleep(max((again.run_after - context.clock.now()).total_seconds(), 0))
    return await context.db(queue.again, claim, context.clock.now())


async def _attempt(this: _Try) -> AsyncGenerator[Event, None]:
    try:
        this.context.provider(this.claim.provider)  # loading an SDK is not the provider's time
        this.stopwatch = Stopwatch()
        async with aclosing(_call(this)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    this.answer = piece
                    continue
                this.stopwatch.token()
                this.heard.append(piece.text)
                yield piece
    except CallError as error:
        this.error = error
    finally:
        # Shielded: the settlement happens even when the reader has left or the process was asked to stop.
        ended = await asyncio.shield(asyncio.ensure_future(_settle(this)))
    yield ended


async def _call(this: _Try) -> AsyncGenerator[Delta | Answer, None]:
    context, claim = this.context, this.claim
    provider = context.provider(claim.provider)
    if claim.lane == Lane.STREAM:
        async for piece in provider.stream(this.request, tier=claim.tier, timeouts=context.timeouts):
            yield piece
    else:
        yield await provider.complete(this.request, tier=claim.tier, timeouts=context.timeouts)


async def _settle(this: _Try) -> Ended:
    context, claim, now = this.context, this.claim, this.context.clock.now()
    if this.error is not None:
        charge = outcome.failed_charge(this.error, this.stopwatch)
        ended = Ended(claim.n, charge, outcome.ending_of(this.error, claim.n, now))
    else:
        answer = this.answer or _broken_off(this)
        endpoint = context.endpoint(claim.provider)
        charge = outcome.charge(answer, Lane(claim.lane), claim.tier, claim.model, endpoint, now, this.stopwatch)
        ended = Ended(claim.n, charge, outcome.ending(answer, this.request, claim.n, now, claim.answered))
        if isinstance(ended.ending, Cancelled) and not this.keep:
            ended = replace(ended, ending=outcome.stopped(ended.ending.result, claim.n, now))
    ended = replace(ended, ending=await postprocess.apply(ended.ending, this.request.post_process))
    await _save(context, claim, ended if not this.keep else replace(ended, ending=outcome.held(ended.ending)))
    return ended


def _broken_off(this: _Try) -> Answer:
    """What had come when the reader left, or the worker was stopped."""
    heard = (Choice(text="".join(this.heard)),)
    if this.keep:
        return Answer(heard, Outcome.CANCELLED)
    return Answer(heard, Outcome.CANCELLED, error_code="stopped", error=outcome.STOPPED)


async def _save(context: Context, claim: Claim, ended: Ended) -> None:
    settlement = Settlement(claim.job_id, ended.n, ended.charge, ended.ending)
    await context.db(settle.settle, [settlement], context.clock.now())
