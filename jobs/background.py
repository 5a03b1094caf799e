"""The background lane: each job is a response of its own at the provider, posted once and looked at until its end.

No list shows responses, so an unclear create is like an unclear call: its attempt is unknown, and the job is tried
again or held.
"""

import asyncio
import random
import re
from collections.abc import Callable
from datetime import datetime, timedelta

from db import background, batches, plans, rates, settle
from db.background import OneRow
from db.ids import custom_id
from db.ledger import Charge
from db.rates import Gates
from db.settle import Again, Ending, Failed, Settlement
from db.states import AttemptState, BatchState, Lane
from db.tables import Batch
from jobs import bounds, importing, limits, outcome, polling
from jobs.context import LATEST_START, Context
from jobs.errors import CallError, Permanent, Transient
from jobs.observing import RowsEnded
from jobs.providers import BACKGROUND_PROVIDERS, BatchProvider, Row, Ticket
from jobs.retry import MAX_ATTEMPTS, retry

_A_PACK = 500
_PACK_S = 5.0  # between two packs while responses are moved
_NO_API = (404, 405, 501)  # statuses of a server without responses in the background
_LONGEST_S = 25 * 3600.0  # after which a response is cancelled: a window is a target, no promise
_LOST_S = 3600.0  # after its cancel, after which a response that shows no end is given up
_OF_THE_LANE = re.compile(r"background|completion.?window", re.IGNORECASE)


async def drain(context: Context, trouble: Callable[[str], None], stop: asyncio.Event) -> int:
    """Pack and move what is due, `context.concurrency` at a time, until nothing is or `stop` is set; how many."""
    running: set[asyncio.Task[None]] = set()
    moves, packed_at = 0, float("-inf")
    said: set[str] = set()
    busy: set[str] = set()  # what this process moves now: to take it again renews its lease

    async def one(batch: Batch) -> None:
        try:
            await move(context, batch)
        except CallError as error:
            if str(error) not in said:  # one key that is not taken is one trouble, not thousands
                trouble(f"responses in the background: {error}")
            said.add(str(error))
        finally:
            busy.discard(batch.id)

    try:
        while not stop.is_set():
            if asyncio.get_running_loop().time() - packed_at > _PACK_S:
                await pack(context)
                packed_at = asyncio.get_running_loop().time()
            if len(running) <= context.concurrency // 2:
                taken = await _take(context, context.concurrency - len(running))
                taken = [batch for batch in taken if batch.id not in busy]
                busy |= {batch.id for batch in taken}
                running |= {asyncio.create_task(one(batch)) for batch in taken}
                moves += len(taken)
            if not running:
                break
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await context.thread(background.release, context.owner)
    return moves


async def pack(context: Context) -> int:
    """Put every due job of the lane into a batch of its own; how many."""
    packed = 0
    while rows := await context.db(background.pack, _here(context), _A_PACK, context.clock.now(), context.purse):
        packed += rows
    return packed


async def next_due(context: Context) -> datetime | None:
    """When something is to be done in this lane; None when nothing waits."""
    return await context.db(background.next_due, _here(context), context.clock.now())


def _here(context: Context) -> dict[str, str]:
    """The base URL of each provider that has such a lane."""
    known = context.endpoints.items()
    return {name: endpoint.base_url for name, endpoint in known if name in BACKGROUND_PROVIDERS}


async def _take(context: Context, limit: int) -> list[Batch]:
    now = context.clock.now()
    return await context.db(background.take, _here(context), context.owner, context.until(), limit, now)


async def move(context: Context, batch: Batch) -> None:
    """Take a response, whose lease is ours, as far as it goes now; CallError when the key is not taken."""
    await (_create if batch.state == BatchState.PACKED else _look)(context, batch)


def _provider(context: Context, batch: Batch) -> BatchProvider:
    return context.batch_provider(batch.provider, Lane.BACKGROUND)


# ---- create ----


async def _create(context: Context, batch: Batch) -> None:
    row = await context.db(background.row_of, batch.id)
    if not row.sent:  # taken out before it was sent
        await context.db(background.close, batch.id, context.clock.now())
    elif batch.create_intent_at:
        await _unanswered(context, batch, row, batch.create_intent_at)
    elif polling.to_leave(context, batch):
        why = "it was called off before it was sent"
        await _settled(context, batch, row, Row("", None, "cancelled", why, cancelled=True))
    else:
        await _post(context, batch, row)


async def _unanswered(context: Context, batch: Batch, row: OneRow, intent_at: datetime) -> None:
    """Another owner was about to post it: once that can be under way no more, nobody will ever know."""
    provider = _provider(context, batch)
    over = intent_at + timedelta(seconds=provider.post_seconds * (1 + LATEST_START))
    if context.clock.now() < over:
        why = "an earlier POST got no answer; it may still be under way"
        await context.db(background.wait, batch.id, over, error=why)
    else:
        await _give_up(context, batch, row, "owner_died", "its process ended before the answer to its POST")


async def _post(context: Context, batch: Batch, row: OneRow) -> None:
    provider, now = _provider(context, batch), context.clock.now()
    try:
        line = provider.line(custom_id(row.job_id, row.n), bounds.capped(row.body, row.output_cap))
    except Permanent as error:
        await _leave_lane(context, batch, row, error)
        return
    if not await context.db(background.intend, batch, now, Gates({batch.provider: batch.base_url})):
        return
    late = (context.clock.now() - now).total_seconds() > provider.post_seconds * LATEST_START
    if late:  # paused: it may be another's by now
        await context.db(background.take_back, batch.id, now, "its POST could not begin in time")
        return
    ticket = Ticket(batch.id, 1, context.folder, "", None, now, 1, context.install, line, batch.completion_window)
    try:
        remote = await provider.submit(ticket)
    except CallError as error:
        await _not_posted(context, batch, row, error, now)
        return
    now = context.clock.now()
    first = now + timedelta(seconds=polling.poll_pause(0))
    if not await context.db(background.created, batch.id, remote.id, remote.status, first, now):
        await context.db(background.came_late, batch.id, remote.id, remote.status, now)


async def _not_posted(context: Context, batch: Batch, row: OneRow, error: CallError, sent_at: datetime) -> None:
    if error.maybe_billed:
        when = retry(error, row.n, context.clock.now(), random.random())  # noqa: S311 - jitter is no secret
        await _give_up(context, batch, row, error.code, str(error), when)
    elif isinstance(error, Transient) or error.status in polling.KEY:
        if isinstance(error, Transient) and error.turned_away:
            heard = context.clock.now()
            await context.db(rates.learn, [limits.refusal(batch, error, sent_at, heard)], heard)
        await context.db(background.take_back, batch.id, polling.later(context, batch, error), str(error))
        if error.status in polling.KEY:
            raise error
    elif _refuses_the_lane(error):
        await _leave_lane(context, batch, row, error)
    else:
        await _settled(context, batch, row, Row("", None, error.code, str(error), retry=False))


def _refuses_the_lane(error: CallError) -> bool:
    """Whether a plain call of the same request may do: the server, or the model, has no responses in the background."""
    absent = error.status in _NO_API and "model" not in error.code
    return absent or bool(_OF_THE_LANE.search(str(error)))


async def _leave_lane(context: Context, batch: Batch, row: OneRow, error: CallError) -> None:
    onto = await context.db(background.next_step, row.job_id)
    charge = Charge.free(AttemptState.FAILED, code=error.code, error=str(error))
    await _end(context, batch, row, charge, Again(context.clock.now(), error.code, str(error), onto=onto))


# ---- look ----


async def _look(context: Context, batch: Batch) -> None:
    """See how it stands; have it stopped where a person said so or its hour to leave has come."""
    provider, response_id = _provider(context, batch), str(batch.provider_batch_id)
    try:
        if polling.to_leave(context, batch):
            await polling.leave(context, batch)
        remote = await provider.poll(response_id)
        rows = [row async for row in provider.collect(remote)] if remote.terminal else []
    except CallError as error:
        await _not_seen(context, batch, error)
        return
    row = await context.db(background.row_of, batch.id)
    if rows:  # a cancel that nobody asked for is a try that failed
        [found] = rows
        found = found._replace(cancelled=found.cancelled and batch.cancel_at is not None)
        await _settled(context, batch, row, found, remote.status, remote.done)
    elif batch.cancel_at and _age(context, batch) > _LOST_S:
        await _give_up(context, batch, row, "batch_lost", "the provider shows no end of the response after its cancel")
    else:
        if not batch.cancel_at and _age(context, batch) > _LONGEST_S:
            await context.db(batches.cancelling, batch.id, context.clock.now())
        await context.db(background.wait, batch.id, _next_look(context, batch), status=remote.status)


def _next_look(context: Context, batch: Batch) -> datetime:
    now = context.clock.now()
    after = now + timedelta(seconds=polling.poll_pause(_age(context, batch)))
    return min(after, max(batch.leave_by, now)) if batch.leave_by and not batch.cancel_at else after


def _age(context: Context, batch: Batch) -> float:
    return (context.clock.now() - (batch.cancel_at or batch.submitted_at or batch.packed_at)).total_seconds()


async def _not_seen(context: Context, batch: Batch, error: CallError) -> None:
    submitted = batch.submitted_at or batch.packed_at
    if error.status == 404 and (context.clock.now() - submitted).total_seconds() > context.grace_s:
        row = await context.db(background.row_of, batch.id)
        await _give_up(context, batch, row, "batch_lost", f"the provider does not know it any more: {error}")
        return
    await context.db(background.wait, batch.id, polling.later(context, batch, error), error=str(error))
    if error.status in polling.KEY:
        raise error


# ---- end ----


async def _settled(
    context: Context, batch: Batch, row: OneRow, found: Row, status: str | None = None, done: int = 0
) -> None:
    """Settle its one row, by the attempt that it was made for: servers may not give our marks back."""
    await importing.settle_rows(context, batch, [(row.job_id, row.n, found)])
    await context.db(background.close, batch.id, context.clock.now(), status=status, done=done, error=found.error)


async def _give_up(
    context: Context, batch: Batch, row: OneRow, code: str, why: str, when: datetime | None = None
) -> None:
    """It may have been billed and nobody can tell: as after an unclear call it is tried again while it may, or held."""
    now = context.clock.now()
    onto = await context.db(plans.next_steps, [row.job_id], now)
    charge = Charge(AttemptState.UNKNOWN, error_code=code, error=why)
    ending: Ending = Again(when or now, code, why, onto=onto.get(row.job_id))
    if row.n >= MAX_ATTEMPTS:
        ending = Failed(code, f"{why} (tried {row.n} times)")
    elif context.on_unknown == "hold":
        ending = outcome.unless_billed(ending, charge)
    await _end(context, batch, row, charge, ending)


async def _end(context: Context, batch: Batch, row: OneRow, charge: Charge, ending: Ending) -> None:
    now = context.clock.now()
    ends = [Settlement(row.job_id, row.n, charge, ending)]
    await context.db(settle.settle, ends, now)
    context.tell(RowsEnded(batch, ends))
    await context.db(background.close, batch.id, now, error=charge.error)
