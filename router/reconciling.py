"""Where a bill comes from: a file, or the providers' own word for what each batch used."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from db import billed
from db.billed import Sent
from jobs.chat import Usage
from jobs.context import Context
from jobs.errors import CallError
from router.dispatch import Router
from router.opening import open_store
from router.reconcile import Reconciled, against, against_batches
from router.reconcile_read import read
from router.settings import load

AT_ONCE = 8  # questions to a provider


def of_file(path: Path) -> Reconciled:
    """The bill in a file against the ledger."""
    bill = read(path)
    with closing(open_store()) as store:
        return against(store, bill)


def of_batches(since: datetime | None, until: datetime | None) -> Reconciled:
    """Each batch that was submitted in this time against the usage that its provider shows for it.

    Those that the provider shows no usage for, or no longer knows, are named in `silent`.
    """
    router = Router(load())
    with closing(router.store) as store:
        sent = billed.batches(store, since, until)
        usages = asyncio.run(_ask(router, sent))
    found = against_batches(sent, usages)
    found.silent = tuple(name for name, usage in usages.items() if usage is None)
    return found


async def _ask(router: Router, sent: Sequence[Sent]) -> dict[str, Usage | None]:
    context, gate = router.context(), asyncio.Semaphore(AT_ONCE)

    async def one(batch: Sent) -> Usage | None:
        async with gate:
            return await _usage(context, batch)

    try:
        usages = await asyncio.gather(*map(one, sent))
        return dict(zip((batch.provider_batch_id for batch in sent), usages, strict=True))
    finally:
        await context.close()


async def _usage(context: Context, batch: Sent) -> Usage | None:
    try:
        return (await context.batch_provider(batch.provider).poll(batch.provider_batch_id)).usage
    except CallError:
        return None
