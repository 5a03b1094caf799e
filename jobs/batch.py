"""The batch lane: pack, upload, create, poll; look before you post again, adopt what is there."""

import os
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import orjson

from db import batches, facts, plans
from db.engine import Store
from db.ids import custom_id, new_id
from db.states import BatchState
from db.tables import Batch
from jobs import importing, polling
from jobs.chat import Request
from jobs.context import Context
from jobs.errors import CallError, Permanent, Transient
from jobs.providers import BatchProvider, Remote, Ticket

_ROOM = 0.75  # of a provider's bytes, for bodies: the rest is for custom_ids, escapes and what wraps each row
_SOON_S = 5.0  # between two looks for something that a list may show late


async def has_batch_api(context: Context, provider: str) -> bool:
    """Whether the provider's address has a Batch API: the config says so, else it is asked once and remembered."""
    if provider in context.has_batch:
        return context.has_batch[provider]
    endpoint = context.endpoint(provider)
    if endpoint.own:
        return True
    key = f"batch_api {endpoint.base_url}"
    if (known := await context.db(facts.get, key)) is None:
        known = "yes" if await context.batch_provider(provider).has_batch_api() else "no"
        await context.db(facts.put, key, known)
    return known == "yes"


async def pack(context: Context) -> int:
    """Put every due job of the batch lane into a batch, or move it on where there is no Batch API; how many rows."""
    await context.db(plans.leave_late, context.clock.now())
    packed = 0
    for group in await context.db(batches.waiting, context.clock.now()):
        if group.provider not in context.endpoints:
            continue
        if not await has_batch_api(context, group.provider):
            await context.db(plans.leave_batch_lane, group.provider, group.model)
            continue
        limits = context.batch_provider(group.provider).limits
        base_url = context.endpoint(group.provider).base_url
        room = {"max_rows": limits.rows, "max_bytes": int(limits.bytes * _ROOM)}
        while True:
            now = context.clock.now()
            rows = await context.db(batches.pack, new_id(now), group, base_url=base_url, now=now, **room)
            packed += rows
            if not rows:
                break
    return packed


async def move(context: Context, batch: Batch) -> None:
    """Take a batch, whose lease is ours, as far as it goes now; CallError when it stands still, to be tried later."""
    steps: dict[str, Callable[[Context, Batch], Awaitable[None]]] = {
        BatchState.PACKED: _upload,
        BatchState.UPLOADED: _create,
        BatchState.UNSURE: _create,
        BatchState.SUBMITTED: polling.poll,
        BatchState.ENDED: polling.import_,
    }
    current: Batch | None = batch
    while current is not None and current.state in steps:
        before = current.state
        try:
            await steps[before](context, current)
        except CallError as error:
            await context.db(batches.wait, batch.id, polling.later(context, current, error), error=str(error))
            raise
        current = await context.db(batches.get, batch.id)
        if current is not None and current.state == before:
            return


# ---- upload ----


async def _upload(context: Context, batch: Batch) -> None:
    if batch.cancel_at:
        await importing.called_off(context, batch)
        return
    provider = context.batch_provider(batch.provider)
    ticket = await _ticket(context, batch)
    if not ticket.rows:  # every row was taken out before it was sent
        await context.db(batches.imported, batch.id, context.clock.now())
    elif not provider.has_files:
        await context.db(batches.uploaded, batch.id, None)
    elif batch.upload_intent_at and (file_id := await provider.find_file(ticket)):
        await context.db(batches.uploaded, batch.id, file_id)
    elif not await _too_early(context, batch, batch.upload_intent_at):
        if not await context.db(batches.intend_upload, batch, ticket.rows, context.clock.now()):
            return
        try:
            file_id = await provider.upload(ticket)
        except CallError as error:
            await _not_posted(context, batch, error)
            return
        await context.db(batches.uploaded, batch.id, file_id)


async def _ticket(context: Context, batch: Batch) -> Ticket:
    """The batch's file, written from the database: the same bytes each time."""
    path = context.folder / f"{batch.id}.jsonl"
    provider = context.batch_provider(batch.provider)
    rows = batch.rows
    if _needs_file(provider, batch):
        rows, unfit = await context.db(_write_file, provider, batch.id, str(path))
        await importing.unfit(context, batch, unfit)
    intents = [time for time in (batch.create_intent_at, batch.upload_intent_at) if time]
    since = min(intents, default=context.clock.now())
    return Ticket(batch.id, rows, path, path.name, batch.file_id, since, batch.create_tries, context.install)


def _needs_file(provider: BatchProvider, batch: Batch) -> bool:
    return batch.state == BatchState.PACKED or not provider.has_files


def _write_file(store: Store, provider: BatchProvider, batch_id: str, path: str) -> tuple[int, list[importing.Unfit]]:
    """Rows written, and those that this provider has no words for."""
    count, unfit = 0, []
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        for job_id, n, body in batches.rows_of(store, batch_id):
            try:
                file.write(provider.line(custom_id(job_id, n), Request.from_body(orjson.loads(body))))
                count += 1
            except Permanent as error:
                unfit.append((job_id, n, error))
    return count, unfit


# ---- create ----


async def _create(context: Context, batch: Batch) -> None:
    if batch.create_intent_at:
        await _create_again(context, batch)
    elif batch.cancel_at:
        await importing.called_off(context, batch)
    elif not context.batch_provider(batch.provider).has_files and await context.db(batches.unresolved_create, batch):
        await _look_again(context, batch, "another create is unclear; at most one at a time can be told apart")
    else:
        await _post(context, batch, await _ticket(context, batch))


async def _create_again(context: Context, batch: Batch) -> None:
    """An earlier create got no clear answer: adopt what it made; after the grace nothing was made."""
    provider = context.batch_provider(batch.provider)
    ticket = await _ticket(context, batch)
    if await _adopted(context, provider, batch, ticket) or await _too_early(context, batch, batch.create_intent_at):
        return
    if batch.cancel_at:
        await importing.called_off(context, batch)
    elif provider.has_files and batch.file_id:
        # A paused owner may still send its POST: let it name a dead file.
        await provider.delete_file(batch.file_id)
        await context.db(batches.upload_anew, batch)
    else:
        await _post(context, batch, ticket)


async def _post(context: Context, batch: Batch, ticket: Ticket) -> None:
    if not await context.db(batches.intend_create, batch, context.clock.now()):
        return
    provider = context.batch_provider(batch.provider)
    try:
        remote = await provider.submit(ticket)
    except CallError as error:
        await _not_posted(context, batch, error)
        return
    if not await _keep(context, batch, remote):
        await provider.cancel(remote.id)  # another worker was first: ours must not run beside it


async def _adopted(context: Context, provider: BatchProvider, batch: Batch, ticket: Ticket) -> bool:
    """Take over a batch that an earlier, unclear create has made; True also while that cannot be told yet."""
    mine: list[Remote] = []
    for remote in await provider.find(ticket):
        if remote.batch_id == batch.id or (batch.file_id and remote.input_file_id == batch.file_id):
            mine.append(remote)
        elif not provider.has_files:  # no mark on it: only its results can show whose it is
            if not remote.terminal:
                await _look_again(context, batch, f"waits for the end of {remote.id}, which may be this batch")
                return True
            if await importing.is_ours(context, provider, remote, batch):
                mine.append(remote)
    if not mine or not await _keep(context, batch, mine[0]):
        return False
    for extra in mine[1:]:
        await provider.cancel(extra.id)
    return True


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
    await context.db(batches.wait, batch.id, until, error=why, state=unsure)


async def _not_posted(context: Context, batch: Batch, error: CallError) -> None:
    """A POST without an answer: unclear ones keep their intent, clear refusals give it back."""
    now = context.clock.now()
    if error.maybe_billed:
        await context.db(batches.wait, batch.id, now + timedelta(seconds=_SOON_S), error=str(error))
        return
    await context.db(batches.forget_intent, batch)
    if isinstance(error, Transient):
        await context.db(batches.wait, batch.id, polling.later(context, batch, error), error=str(error))
    elif error.status in polling.KEY:  # nothing is lost, all waits
        raise error
    else:
        await importing.refused(context, batch, error)
