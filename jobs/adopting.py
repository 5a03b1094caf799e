"""Taking in a batch that is at a provider without one of ours: what it did is charged, what it brought is kept."""

from dataclasses import dataclass
from typing import Any

from db import batches, orphans, stuck
from db.orphans import Found
from db.states import Lane, Tier
from db.tables import Batch
from jobs import importing, outcome
from jobs.context import Context
from jobs.errors import CallError, UsageError
from jobs.importing import Keyed
from jobs.orphans import Kind, Orphan
from jobs.providers import Remote, Row

_ROWS_A_READ = 1000


@dataclass(slots=True)
class Adopted:
    """What became of the rows of a batch.

    `again` were billed although their try was answered elsewhere: each is an attempt of its own. `strangers` are of
    jobs that this database does not have: what they cost, `strange_nano`, is on no ledger.
    """

    batch_id: str | None = None
    rows: int = 0
    settled: int = 0
    again: int = 0
    strangers: int = 0
    strange_nano: int = 0
    spent_nano: int = 0  # all attempts of the batch, as far as their cost is known


async def adopt(context: Context, orphan: Orphan) -> Adopted:
    """Import the rows of an orphan that has ended; doing it again changes nothing. UsageError when it still runs."""
    provider = context.batch_provider(orphan.provider)
    remote = await provider.poll(orphan.remote.id)
    if orphan.kind is Kind.PENDING and orphan.batch_id:
        await claim(context, await _get(context, orphan.batch_id), remote.id, force=False)
        return Adopted(orphan.batch_id)
    if not remote.terminal:
        raise UsageError(f"{remote.id} is {remote.status}: cancel it, or adopt it when it has ended", code="running")
    done = Adopted()
    async for rows in importing.pages(provider.collect(remote)):
        done.rows += len(rows)
        await _page(context, orphan, remote, rows, done)
    if done.batch_id:
        if done.rows >= remote.done:
            await _never_ran(context, await _get(context, done.batch_id), remote)
        done.spent_nano = await context.db(orphans.spent, done.batch_id)
    return done


async def _page(context: Context, orphan: Orphan, remote: Remote, rows: list[Keyed], done: Adopted) -> None:
    ours = await context.db(orphans.known, sorted({job_id for job_id, _, _ in rows}))
    strange = [row for job_id, _, row in rows if job_id not in ours]
    done.strangers += len(strange)
    done.strange_nano += sum(_cost(context, orphan, row) for row in strange)
    rows = [keyed for keyed in rows if keyed[0] in ours]
    if not rows:
        return
    now = context.clock.now()
    if done.batch_id is None:
        found = _found(context, orphan.provider, remote)
        done.batch_id = await context.db(orphans.home, found, orphan.batch_id, rows[0][0], now)
    keys = [(job_id, n) for job_id, n, _ in rows]
    billed = {(job_id, n) for job_id, n, row in rows if row.answer is not None}
    places = await context.db(orphans.places, done.batch_id, keys, billed, now)
    placed = [(job_id, places[job_id, n], row) for job_id, n, row in rows if (job_id, n) in places]
    await importing.settle_rows(context, await _get(context, done.batch_id), placed)
    done.again += sum(places[key] != key[1] for key in places)
    done.settled += sum(places[key] == key[1] for key in places)


async def _never_ran(context: Context, batch: Batch, remote: Remote) -> None:
    """Rows that a batch whose answers are all here does not mention were never run, and cost nothing."""
    expired = remote.status == "expired"
    row = Row("", None, "not_run", f"{remote.id} ended as {remote.status} without this row",
              expired=expired, cancelled=not expired)  # fmt: skip
    while left := await context.db(orphans.unheard, batch.id, _ROWS_A_READ):
        await importing.settle_rows(context, batch, [(job_id, n, row) for job_id, n in left])


def _found(context: Context, name: str, remote: Remote) -> Found:
    where = name, context.endpoint(name).base_url, remote.id, remote.status
    counts = remote.rows or remote.done, remote.done
    if not context.batch_provider(name).has_files:
        return Found(*where, *counts, remote.created_at)
    return Found(*where, *counts, remote.created_at, remote.output_file_id, remote.error_file_id)


def _cost(context: Context, orphan: Orphan, row: Row) -> int:
    if row.answer is None:
        return 0
    at = orphan.remote.created_at or context.clock.now()
    endpoint, model = context.endpoint(orphan.provider), row.answer.model or ""
    return outcome.charge(row.answer, Lane.BATCH, Tier.DEFAULT, model, endpoint, at).cost_nano or 0


async def _get(context: Context, batch_id: str) -> Batch:
    found = await context.db(batches.get, batch_id)
    assert found is not None
    return found


# ---- a batch of ours whose create got no clear answer ----


async def claim(context: Context, batch: Batch, provider_batch_id: str, *, force: bool) -> Remote:
    """Tell a batch which one at the provider it is. UsageError when it is not that one, or cannot be told yet."""
    if batch.state not in stuck.UNBOUND:
        there = f" as {batch.provider_batch_id}" if batch.provider_batch_id else ""
        raise UsageError(f"batch {batch.id} is {batch.state}{there}: there is nothing to adopt", code="known")
    remote = await context.batch_provider(batch.provider).poll(provider_batch_id)
    if not force and (why := await _not_it(context, batch, remote)):
        raise UsageError(f"{provider_batch_id} is not adopted: {why}", code="not_ours")
    facts: dict[str, Any] = {"provider_batch_id": remote.id, "status": remote.status, "expires_at": remote.expires_at}
    now = context.clock.now()
    if await context.db(stuck.bind, batch.id, submitted_at=remote.created_at, now=now, **facts):
        return remote
    if other := await context.db(stuck.bound, batch.provider, batch.base_url, remote.id):
        raise UsageError(f"{provider_batch_id} is batch {other} already", code="known")
    raise UsageError(f"a worker moves batch {batch.id} right now; try again in a minute", code="busy")


async def _not_it(context: Context, batch: Batch, remote: Remote) -> str | None:
    """Why it is not the batch's, as far as its metadata, its file or its results show."""
    provider = context.batch_provider(batch.provider)
    if remote.batch_id == batch.id or (batch.file_id and remote.input_file_id == batch.file_id):
        return None
    if remote.batch_id:
        return f"its metadata names batch {remote.batch_id}"
    if not remote.terminal:
        return "nothing on it says whose it is before it has ended; --force adopts it on your word"
    try:
        ours = await importing.is_ours(context, provider, remote, batch)
    except CallError as error:
        return f"its results cannot be read: {error}"
    return None if ours else "its results are not of this batch's rows; --force adopts it on your word"
