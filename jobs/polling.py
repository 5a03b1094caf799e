"""The batch lane once a batch is at the provider: poll, cancel, wait out what does not answer, import."""

from datetime import datetime, timedelta

from db import batches
from db.tables import Batch
from jobs import importing
from jobs.context import Context
from jobs.errors import CallError, Permanent

KEY = (401, 403)  # statuses that speak of the key, not of the batch
_KEY_S = 60.0  # before the same key is tried again
_FIRST_POLL_S = 0.5
_CANCELLING = ("cancelling", "canceling")
_LOST_S = 3600.0  # past its end, after which a provider that shows no end has forgotten the batch


async def poll(context: Context, batch: Batch) -> None:
    """See how the batch stands; ask to stop it where a person said so or its hour to leave has come."""
    provider, now = context.batch_provider(batch.provider), context.clock.now()
    assert batch.provider_batch_id is not None
    try:
        if batch.cancel_at or (batch.leave_by and now >= batch.leave_by):
            await _cancel(context, batch)
        remote = await provider.poll(batch.provider_batch_id)
    except CallError as error:
        await _not_seen(context, batch, error)
        return
    if remote.terminal:
        if remote.error_line:
            named = remote.error_code or "invalid", remote.error or "refused by the provider's validation"
            await importing.quarantine(context, batch, remote.error_line, *named)
        why = f"{remote.error_code}: {remote.error}" if remote.error_code or remote.error else None
        files = {"output_file_id": remote.output_file_id, "error_file_id": remote.error_file_id}
        await context.db(batches.ended, batch.id, status=remote.status, done=remote.done, error=why, now=now, **files)
        return
    age = (now - (batch.cancel_at or batch.submitted_at or now)).total_seconds()
    after = now + timedelta(seconds=poll_pause(age))
    if batch.leave_by and not batch.cancel_at:
        after = min(after, max(batch.leave_by, now))
    seen = {"status": remote.status, "done": remote.done + remote.failed, "expires_at": remote.expires_at}
    await context.db(batches.polled, batch.id, next_poll_at=after, **seen)
    if _lost(context, batch):
        await importing.forgotten(context, batch, "the provider shows no end of the batch an hour after its last")


async def _cancel(context: Context, batch: Batch) -> None:
    """Ask the provider to stop it, once it is sure to have heard; a batch that is over by now says so in the poll."""
    if batch.status in _CANCELLING:
        return
    if not batch.cancel_at:
        await context.db(batches.cancelling, batch.id, context.clock.now())
    try:
        await context.batch_provider(batch.provider).cancel(str(batch.provider_batch_id))
    except Permanent as error:
        if error.status in KEY:
            raise


async def _not_seen(context: Context, batch: Batch, error: CallError) -> None:
    if isinstance(error, Permanent) and error.status == 404 and _lost(context, batch):
        await importing.forgotten(context, batch, str(error))
        return
    if error.status in KEY:
        raise error
    await context.db(batches.wait, batch.id, later(context, batch, error), error=str(error))


def later(context: Context, batch: Batch, error: CallError) -> datetime:
    """When to try again what a provider did not do: the longer the batch has waited, the later."""
    now = context.clock.now()
    wait = max(poll_pause((now - (batch.submitted_at or batch.packed_at)).total_seconds()),
               getattr(error, "retry_after", None) or 0, _KEY_S if error.status in KEY else 0)  # fmt: skip
    return now + timedelta(seconds=wait)


async def import_(context: Context, batch: Batch) -> None:
    """Import its rows; what cannot be read now is read later, and what is gone for good counts as forgotten."""
    try:
        await importing.import_rows(context, batch)
    except CallError as error:
        await _not_seen(context, batch, error)


def _lost(context: Context, batch: Batch) -> bool:
    end = batch.expires_at or (batch.submitted_at or batch.packed_at) + timedelta(days=1)
    return context.clock.now() > end + timedelta(seconds=_LOST_S)


def poll_pause(age_s: float) -> float:
    """Seconds to the next look at a batch: a young one may be done at once, an old one takes its time."""
    return min(max(age_s / 2, _FIRST_POLL_S), 300.0)
