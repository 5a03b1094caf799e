"""The batch lane from a packed batch on: upload, create, poll; look before you post again, adopt what is there."""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from secrets import token_hex

from db import batch_rows, batches, stuck
from db.engine import Store
from db.ids import custom_id
from db.states import BatchState, Lane
from db.tables import Batch
from jobs import background, bounds, importing, polling
from jobs.context import LATEST_START, Context
from jobs.errors import CallError, Permanent, Transient
from jobs.observing import BatchMoved
from jobs.providers import BatchProvider, Remote, Ticket, named_line

_FILE_TRIES = 3  # with a file that cannot be found: it may be new, or was deleted by a worker that died after that
_ONE_AT_A_TIME = "another create is unclear; at most one at a time can be told apart"
_NAMED = 20  # lines of a file that refused uploads may name, one each, before all its rows count as refused
_SOON_S = 5.0  # between two looks for something that a list may show late


async def move(context: Context, batch: Batch) -> None:
    """Take a batch, whose lease is ours, as far as it goes now; CallError when it stands still, to be tried later."""
    if batch.lane == Lane.BACKGROUND:
        await background.move(context, batch)
        return
    steps: dict[str, Callable[[Context, Batch], Awaitable[None]]] = {
        BatchState.PACKED: _upload,
        BatchState.UPLOADED: _create,
        BatchState.UNSURE: _create,
        BatchState.SUBMITTED: polling.poll,
        BatchState.ENDED: polling.import_,
    }
    current = batch
    while current.state in steps:
        before = current.state
        try:
            if current.provider_batch_id and before in stuck.UNBOUND:
                await context.db(batches.known, current)
            else:
                await steps[before](context, current)
        except CallError as error:
            await polling.put_off(context, current, error)
            raise
        except FileNotFoundError:
            if await _over(context, batch):
                return
            raise
        moved = await context.db(batches.get, batch.id)
        if moved is not None:
            context.tell(BatchMoved(current, moved))
        if moved is None or moved.state == before or moved.next_poll_at > context.clock.now():
            return
        current = moved


async def _over(context: Context, batch: Batch) -> bool:
    """Whether another worker has brought it to its end, and removed its file, while this one was paused."""
    return (now := await context.db(batches.get, batch.id)) is None or now.state == BatchState.IMPORTED


# ---- upload ----


async def _upload(context: Context, batch: Batch) -> None:
    if polling.to_leave(context, batch):
        await _called_off(context, batch)
        return
    provider = context.batch_provider(batch.provider)
    ticket = await _ticket(context, batch)
    if not ticket.rows:
        await _called_off(context, batch, "every row of it was taken out before it was sent")
    elif not provider.has_files:
        await context.db(batches.uploaded, batch.id, None)
    elif batch.upload_intent_at and (file_id := await provider.find_file(ticket)):
        await context.db(batches.uploaded, batch.id, file_id)
    elif not await _too_early(context, batch, batch.upload_intent_at):
        now = context.clock.now()
        if not await context.db(batches.intend_upload, batch, ticket.rows, now):
            return
        batch.upload_intent_at = now
        if not await _in_time(context, batch, now):
            return
        try:
            file_id = await provider.upload(ticket)
        except CallError as error:
            if not await _without_line(context, batch, ticket, error, now):
                await _not_posted(context, batch, error, now)
            return
        await context.db(batches.uploaded, batch.id, file_id)


async def _without_line(context: Context, batch: Batch, ticket: Ticket, error: CallError, intent_at: datetime) -> bool:
    """Whether the refusal of an upload names a line, as servers do that check files at once: the others go again.

    Its row fails in the transaction that gives the intent back: it may be in another worker's file by now.
    """
    line = named_line(str(error))
    if (
        not line
        or not isinstance(error, Permanent)
        or error.status in polling.KEY
        or ticket.rows <= batch.rows - _NAMED
    ):
        return False
    if not await context.db(batch_rows.rows_at, batch.id, [line]):
        return False
    still_ours = partial(batches.forgotten, batch=batch, intent_at=intent_at)
    await importing.quarantine(context, batch, [(line, error.code, str(error))], still_ours)
    return True


async def _ticket(context: Context, batch: Batch) -> Ticket:
    """The batch's file, written from the database: the same bytes each time."""
    path = context.folder / f"{batch.id}.jsonl"
    provider = context.batch_provider(batch.provider)
    rows = batch.rows
    if _needs_file(provider, batch):
        async with context.whole_file:
            rows, unfit = await context.db(_write_file, provider, batch.id, str(path))
        await importing.unfit(context, batch, unfit)
    intents = [time for time in (batch.create_intent_at, batch.upload_intent_at) if time]
    since = min(intents, default=context.clock.now())
    return Ticket(batch.id, rows, path, path.name, batch.file_id, since, batch.create_tries, context.install)


def _needs_file(provider: BatchProvider, batch: Batch) -> bool:
    return batch.state == BatchState.PACKED or not provider.has_files


def _write_file(store: Store, provider: BatchProvider, batch_id: str, path: str) -> tuple[int, list[importing.Unfit]]:
    """Rows written, and those that this provider has no words for.

    The file is replaced as a whole: a worker that has lost its lease may be reading it.
    """
    count, unfit = 0, []
    new = f"{path}.{token_hex(4)}"
    with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        for job_id, n, body, cap in batch_rows.rows_of(store, batch_id):
            try:
                file.write(provider.line(custom_id(job_id, n), bounds.capped(body, cap)))
                count += 1
            except Permanent as error:
                unfit.append((job_id, n, error))
    os.replace(new, path)
    return count, unfit


# ---- create ----


async def _create(context: Context, batch: Batch) -> None:
    if batch.create_intent_at:
        await _create_again(context, batch)
    elif polling.to_leave(context, batch):
        await _called_off(context, batch)
    elif not context.batch_provider(batch.provider).has_files and await context.db(batches.unresolved_create, batch):
        await _look_again(context, batch, _ONE_AT_A_TIME)
    else:
        await _post(context, batch, await _ticket(context, batch))


async def _create_again(context: Context, batch: Batch) -> None:
    """An earlier create got no clear answer: adopt what it made; after the grace nothing was made."""
    provider = context.batch_provider(batch.provider)
    ticket = await _ticket(context, batch)
    if await _adopted(context, provider, batch, ticket) or await _too_early(context, batch, batch.create_intent_at):
        return
    if polling.to_leave(context, batch):
        await _called_off(context, batch)
    elif provider.has_files and batch.file_id:
        # A paused owner may still send its POST: let it name a dead file.
        await provider.delete_file(batch.file_id)
        await context.db(batches.upload_anew, batch)
    else:
        await _post(context, batch, ticket)


async def _post(context: Context, batch: Batch, ticket: Ticket) -> None:
    now, provider = context.clock.now(), context.batch_provider(batch.provider)
    won = await context.db(batches.intend_create, batch, now, only=not provider.has_files)
    if not won and not provider.has_files:
        await _look_again(context, batch, _ONE_AT_A_TIME)
    if not won:
        return
    batch.create_intent_at = now
    if not await _in_time(context, batch, now):
        return
    try:
        remote = await provider.submit(replace(ticket, tries=batch.create_tries + 1))
    except CallError as error:
        await _not_posted(context, batch, error, now)
        return
    await _keep(context, batch, remote)
    await _cancel_others(context, batch, [remote])


async def _adopted(context: Context, provider: BatchProvider, batch: Batch, ticket: Ticket) -> bool:
    """Take over a batch that an earlier, unclear create has made; True also while that cannot be told yet."""
    mine: list[Remote] = []
    for remote in await provider.find(ticket):
        if remote.error_code == importing.FULL:  # an earlier create of the same file, which ran nothing
            continue
        if remote.batch_id == batch.id or (batch.file_id and remote.input_file_id == batch.file_id):
            mine.append(remote)
        elif not provider.has_files:  # no mark on it: only its results can show whose it is
            if not remote.terminal:
                await _look_again(context, batch, f"waits for the end of {remote.id}, which may be this batch")
                return True
            if await importing.is_ours(context, provider, remote, batch):
                mine.append(remote)
    if not mine:
        return False
    await _keep(context, batch, mine[0])
    await _cancel_others(context, batch, mine)
    return True


async def _cancel_others(context: Context, batch: Batch, made: Sequence[Remote]) -> None:
    """Stop what was made of the batch, but for the one that counts: that may be one of these or another worker's."""
    kept = await context.db(batches.get, batch.id)
    for remote in [one for one in made if kept is None or one.id != kept.provider_batch_id]:
        await context.batch_provider(batch.provider).cancel(remote.id)


async def _keep(context: Context, batch: Batch, remote: Remote) -> bool:
    now = context.clock.now()
    return await context.db(
        batches.created,
        batch.id,
        provider_batch_id=remote.id,
        status=remote.status,
        expires_at=remote.expires_at,
        next_poll_at=now + timedelta(seconds=polling.poll_pause(0)),
        now=now,
    )


async def _too_early(context: Context, batch: Batch, intent_at: datetime | None) -> bool:
    """Whether an unclear POST may still show up in a list, so that it must not be sent again yet."""
    if intent_at is None:
        return False
    age = (context.clock.now() - intent_at).total_seconds()
    if age >= context.grace_s:
        return False
    why = "an earlier POST got no clear answer; looking for what it made"
    await _look_again(context, batch, why, min(max(age, _SOON_S), context.grace_s - age))
    return True


async def _look_again(context: Context, batch: Batch, why: str, seconds: float | None = None) -> None:
    unsure = BatchState.UNSURE if batch.create_intent_at else None
    until = context.clock.now() + timedelta(seconds=max(_SOON_S if seconds is None else seconds, 0.2))
    await context.db(batches.wait, batch, until, error=why, state=unsure)


async def _in_time(context: Context, batch: Batch, intent_at: datetime) -> bool:
    """Whether the POST of this intent can still be over before anybody else trusts that it made nothing.

    A worker that was paused between its intent and its POST gives up: the intent may be another's by now.
    """
    if (context.clock.now() - intent_at).total_seconds() <= context.grace_s * LATEST_START:
        return True
    await context.db(batches.forget_intent, batch, intent_at)
    return False


async def _not_posted(context: Context, batch: Batch, error: CallError, intent_at: datetime) -> None:
    """A POST without an answer: unclear ones keep their intent, clear refusals give it back.

    A refusal counts only while the intent is still ours: it may be due to what another worker did since.
    """
    now = context.clock.now()
    if error.maybe_billed:
        await context.db(batches.wait, batch, now + timedelta(seconds=_SOON_S), error=str(error))
    elif isinstance(error, Transient):
        await polling.put_off(context, batch, error)
        if batch.file_id and error.status == 400 and batch.create_tries >= _FILE_TRIES:
            await context.db(batches.upload_anew, batch)
        else:
            await context.db(batches.forget_intent, batch, intent_at)
    elif error.status not in polling.KEY:
        await context.db(batches.unsent, batch, status="failed", error=f"{error.code}: {error}", now=now)
    elif await context.db(batches.forget_intent, batch, intent_at):
        raise error  # nothing is lost, all waits


async def _called_off(context: Context, batch: Batch, why: str = "its batch was cancelled before it was sent") -> None:
    """Nothing was created at the provider and nothing will be."""
    await context.db(batches.unsent, batch, status="cancelled", error=f"cancelled: {why}", now=context.clock.now())
