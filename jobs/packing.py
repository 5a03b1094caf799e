"""The batch lane's first step: due jobs become batches, where the provider takes any."""

from dataclasses import replace

from db import facts, headroom, packing, plans
from db.engine import Store
from db.ids import new_id
from db.packing import Room, Waiting
from jobs.context import Context
from jobs.observing import BatchPacked, JobsStepped

_ROOM = 0.75  # of a provider's bytes, for bodies: the rest is for custom_ids, escapes and what wraps each row


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


async def pack(context: Context, *, window_open: bool = True) -> int:
    """Put due jobs of the batch lane into batches, or move them on where there is no Batch API; how many jobs.

    Jobs whose hour to leave the lane has come go on to their next step in any case. What finds the provider's queue
    full, or the window closed, stays queued.
    """
    if moved := await context.db(plans.leave_late, context.clock.now()):
        context.tell(JobsStepped(moved, "late"))
    for group in await context.db(packing.waiting, context.clock.now()) if window_open else ():
        if group.provider not in context.endpoints:
            continue
        if not await has_batch_api(context, group.provider):
            left = await context.db(plans.leave_batch_lane, group.provider, group.model)
            context.tell(JobsStepped(left, "no_batch_api"))
            moved += left
            continue
        async with context.whole_file:
            moved += await context.db(_pack, context, group)
    return moved


def _pack(store: Store, context: Context, group: Waiting) -> int:
    limits = context.batch_provider(group.provider).limits
    base_url, now = context.endpoint(group.provider).base_url, context.clock.now()
    room = Room(limits.rows, int(limits.bytes * _ROOM))
    if head := headroom.left(store, group.provider, base_url, group.model, now):
        room = replace(room, tokens=head.now, most=head.empty)
    packed = 0
    for cut in packing.cuts(store, group, room, now):
        batch_id = new_id(now)
        rows = packing.pack(store, batch_id, group, cut, base_url=base_url, now=now, purse=context.purse)
        if rows:
            context.tell(BatchPacked(batch_id, group.provider, group.model, rows))
        packed += rows
        del cut  # while the next one grows
    return packed
