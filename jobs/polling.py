"""The batch lane once a batch is at the provider: poll, cancel, wait out what does not answer, import."""

import re
from datetime import datetime, timedelta

from db import batches, headroom, plans
from db.states import BatchState
from db.tables import Batch
from jobs import importing
from jobs.context import Context
from jobs.errors import CUT, CallError, Permanent
from jobs.importing import FULL
from jobs.providers import Remote

KEY = (401, 403)  # statuses that speak of the key, not of the batch
_KEY_S = 60.0  # before the same key is tried again
_FIRST_POLL_S, _LAST_POLL_S = 0.5, 300.0
_NEXT_POLL_S = 0.1  # at the earliest, to a young batch whose rows get done
_CANCELLING = ("cancelling", "canceling")
_LOST_S = 3600.0  # past its end or its cancel, after which a provider that shows no end has forgotten the batch
FULL_S, LONGEST_FULL_S = 60.0, 1800.0  # before the same file is sent again: doubled each time
FULL_TRIES = 5  # of the same file before it is cut into smaller ones
_LIMIT = re.compile(r"[Ll]imit:?\s*([\d,]*[1-9][\d,]*)\s*(?:enqueued )?tokens")


async def poll(context: Context, batch: Batch) -> None:
    """See how the batch stands; ask to stop it where a person said so or its hour to leave has come."""
    assert batch.provider_batch_id is not None
    try:
        if to_leave(context, batch):
            await leave(context, batch)
        remote = await context.batch_provider(batch.provider).poll(batch.provider_batch_id)
    except CallError as error:
        await _not_seen(context, batch, error)
        return
    if remote.error_code == FULL:
        await _full(context, batch, remote)
    elif remote.terminal:
        await importing.quarantine(context, batch, remote.error_lines)
        await _ended(context, batch, remote)
    elif _lost(context, batch) and batch.cancel_at:
        await importing.forgotten(context, batch, "the provider shows no end of the batch an hour after its cancel")
    else:
        if _lost(context, batch):
            await leave(context, batch)
        await _seen(context, batch, remote)


def to_leave(context: Context, batch: Batch) -> bool:
    """Whether a person cancelled it, or the hour has come at which the first of its rows leaves the lane."""
    return bool(batch.cancel_at or (batch.leave_by and context.clock.now() >= batch.leave_by))


async def _ended(context: Context, batch: Batch, remote: Remote) -> None:
    why = f"{remote.error_code}: {remote.error}" if remote.error_code or remote.error else None
    files = {"output_file_id": remote.output_file_id, "error_file_id": remote.error_file_id}
    counted = remote.rows is not None or remote.done or remote.failed
    done = remote.done if counted or remote.status != "completed" else batch.rows  # all of them may have run
    end = {"status": remote.status, "done": done, "error": why, "now": context.clock.now()}
    await context.db(batches.ended, batch, **end, **files)


async def _seen(context: Context, batch: Batch, remote: Remote) -> None:
    now = context.clock.now()
    age_s = (now - (batch.cancel_at or batch.submitted_at or now)).total_seconds()
    done = 0.0 if batch.cancel_at else min((remote.done + remote.failed) / (remote.rows or batch.rows), 1.0)
    after = now + timedelta(seconds=poll_pause(age_s, done))
    if batch.leave_by and not batch.cancel_at:
        after = min(after, max(batch.leave_by, now))
    seen = {"status": remote.status, "done": remote.done + remote.failed, "expires_at": remote.expires_at}
    await context.db(batches.polled, batch, next_poll_at=after, **seen)


async def _full(context: Context, batch: Batch, remote: Remote) -> None:
    """The provider's queue had no room, so it ran nothing: learn how much it takes, and send the file again later.

    A batch that is larger than the queue seems to be goes back to its rows, to be cut anew.
    """
    now, where = context.clock.now(), (batch.provider, batch.base_url, batch.model)
    if limit := _LIMIT.search(remote.error or ""):
        await context.db(headroom.learn, *where, int(limit[1].replace(",", "")), now)
    if batch.create_tries >= FULL_TRIES:  # others fill the queue, or our count of tokens is too low
        await context.db(headroom.learn, *where, batch.input_tokens // 2, now, headroom.BELIEVED)
    head = await context.db(headroom.left, *where, now)
    if not batch.file_id or (head and batch.rows > 1 and batch.input_tokens > head.empty):
        await _ended(context, batch, remote)
    else:
        wait = min(FULL_S * 2 ** max(batch.create_tries - 1, 0), LONGEST_FULL_S)
        await context.db(batches.held_up, batch, now + timedelta(seconds=wait), f"{FULL}: {remote.error}")


async def leave(context: Context, batch: Batch) -> None:
    """Ask the provider to stop it, once it is sure to have heard; a batch that is over by now says so in the poll."""
    if batch.status not in _CANCELLING:
        if not batch.cancel_at:
            batch.cancel_at = context.clock.now()
            await context.db(batches.cancelling, batch.id, batch.cancel_at)
        try:
            await context.batch_provider(batch.provider, batch.lane).cancel(str(batch.provider_batch_id))
        except Permanent as error:
            if error.status in KEY:
                raise
    if context.on_rescue == "pay_twice":
        await context.db(plans.leave_open_batch, batch.id, context.clock.now())


async def _not_seen(context: Context, batch: Batch, error: CallError) -> None:
    if isinstance(error, Permanent) and error.status == 404 and _lost(context, batch):
        await importing.forgotten(context, batch, str(error))
        return
    if error.status in KEY:
        raise error
    await put_off(context, batch, error)


async def put_off(context: Context, batch: Batch, error: CallError) -> None:
    """Try again later what a provider did not do; of one that has ended, why it did is kept: its rows are told that."""
    why = batch.error if batch.state == BatchState.ENDED else str(error)
    await context.db(batches.wait, batch, later(context, batch, error), error=why)


def later(context: Context, batch: Batch, error: CallError) -> datetime:
    """When to try again what a provider did not do: the longer the batch has waited, the later."""
    now = context.clock.now()
    wait = max(poll_pause((now - (batch.submitted_at or batch.packed_at)).total_seconds()),
               getattr(error, "retry_after", None) or 0, _KEY_S if error.status in KEY else 0)  # fmt: skip
    return now + timedelta(seconds=wait)


async def import_(context: Context, batch: Batch) -> None:
    """Import its rows; what cannot be read now is read later, and what is gone for good counts as forgotten."""
    try:
        async with context.whole_file:
            await importing.import_rows(context, batch)
    except CallError as error:
        if error.code == CUT and batch.ended_at and context.clock.now() > batch.ended_at + timedelta(seconds=_LOST_S):
            await importing.forgotten(context, batch, f"{error}, still an hour after its end")
        else:
            await _not_seen(context, batch, error)


def _lost(context: Context, batch: Batch) -> bool:
    """Whether it should have ended an hour ago: by itself, or after its cancel."""
    begun = batch.submitted_at or batch.packed_at
    expires = batch.expires_at if batch.expires_at and batch.expires_at > begun else begun + timedelta(days=1)
    end = batch.cancel_at or expires
    return context.clock.now() > end + timedelta(seconds=_LOST_S)


def poll_pause(age_s: float, done: float = 0.0) -> float:
    """Seconds to the next look at a batch: a young one may be done at once, an old one takes its time.

    One whose rows are `done` to this share is seen again when the others should be; its end may still be long to come.
    """
    rest = age_s * (1 - done) / done if done else age_s / 2
    return min(max(min(rest, age_s / 2), age_s / 20, _NEXT_POLL_S if done else _FIRST_POLL_S), _LAST_POLL_S)
