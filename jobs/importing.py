"""The end of a batch: every row is charged and answered, tried again or failed; then the batch is closed."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import orjson

from db import batches, plans, settle
from db.ids import parse_custom_id
from db.ledger import Charge
from db.settle import Again, Ending, Failed, Settlement
from db.states import AttemptState, Lane, Tier
from db.tables import Batch
from jobs import outcome, postprocess
from jobs.chat import Answer, Outcome, Request
from jobs.context import Context
from jobs.errors import CallError, Permanent
from jobs.providers import BatchProvider, Remote, Row
from jobs.retry import MAX_ATTEMPTS, retry_row

_ROWS_A_WRITE = 1000
_FULL_S = 60.0  # before a batch that found the provider's queue full is packed again

Keyed = tuple[str, int, Row]  # job, attempt, row
Unfit = tuple[str, int, Permanent]  # job, attempt, why it cannot be sent


async def import_rows(context: Context, batch: Batch) -> None:
    """Settle every row that the provider has an answer or an error for, then those that it does not mention.

    Doing it again changes nothing, so it may be cut off anywhere.
    """
    seen = 0
    async for rows in _pages(context.batch_provider(batch.provider).collect(_remote(batch))):
        seen += len(rows)
        await _settle(context, batch, rows)
    while left := await context.db(batches.open_rows, batch.id, _ROWS_A_WRITE):
        row = _missing(batch, lost=batch.done > seen)
        await _settle(context, batch, [(job_id, n, row) for job_id, n in left])
    await _close(context, batch)


async def refused(context: Context, batch: Batch, error: CallError) -> None:
    """The provider took neither the file nor the batch: its rows fail, and have cost nothing."""
    while left := await context.db(batches.open_rows, batch.id, _ROWS_A_WRITE):
        row = Row("", None, error_code=error.code, error=str(error), retry=False)
        await _settle(context, batch, [(job_id, n, row) for job_id, n in left])
    await _close(context, batch)


async def called_off(context: Context, batch: Batch) -> None:
    """Nothing was created at the provider and nothing will be: its rows have cost nothing."""
    while left := await context.db(batches.open_rows, batch.id, _ROWS_A_WRITE):
        row = Row("", None, error_code="cancelled", error="its batch was cancelled before it was sent", cancelled=True)
        await _settle(context, batch, [(job_id, n, row) for job_id, n in left])
    await _close(context, batch)


async def unfit(context: Context, batch: Batch, rows: Sequence[Unfit]) -> None:
    """Rows that the provider has no words for fail alone, before they are sent."""
    for first in range(0, len(rows), _ROWS_A_WRITE):
        page = rows[first : first + _ROWS_A_WRITE]
        failed = [(job_id, n, Row("", None, error.code, str(error), retry=False)) for job_id, n, error in page]
        await _settle(context, batch, failed)


async def forgotten(context: Context, batch: Batch, why: str) -> None:
    """The provider will never say how it ended: its rows may have been billed, and are tried again."""
    with suppress(CallError):
        await context.batch_provider(batch.provider).cancel(str(batch.provider_batch_id))
    while left := await context.db(batches.open_rows, batch.id, _ROWS_A_WRITE):
        now = context.clock.now()
        charge = Charge(AttemptState.UNKNOWN, error_code="batch_lost", error=why)
        again, failed = Again(now, "batch_lost", why), Failed("batch_lost", why)
        endings = [(job_id, n, again if n < MAX_ATTEMPTS else failed) for job_id, n in left]
        await context.db(settle.settle, [Settlement(job_id, n, charge, end) for job_id, n, end in endings], now)
    await _close(context, batch)


async def is_ours(context: Context, provider: BatchProvider, remote: Remote, batch: Batch) -> bool:
    """Whether the results of a finished batch name an attempt of this one."""
    async for row in provider.collect(remote):
        key = parse_custom_id(row.custom_id)
        return key is not None and await context.db(batches.holds, batch.id, *key)
    return False


async def quarantine(context: Context, batch: Batch, line: int, code: str, error: str) -> None:
    """Fail the one row that the provider's validation names, so that the others can go without it."""
    if key := await context.db(batches.row_at, batch.id, line):
        row = Row("", None, error_code=code, error=f"{error} (line {line} of its batch)", retry=False)
        await _settle(context, batch, [(*key, row)])


async def _close(context: Context, batch: Batch) -> None:
    await context.db(batches.imported, batch.id, context.clock.now())
    (context.folder / f"{batch.id}.jsonl").unlink(missing_ok=True)


async def _pages(rows: AsyncIterator[Row]) -> AsyncIterator[list[Keyed]]:
    page: list[Keyed] = []
    async for row in rows:
        if key := parse_custom_id(row.custom_id):
            page.append((*key, row))
        if len(page) >= _ROWS_A_WRITE:
            yield page
            page = []
    if page:
        yield page


def _remote(batch: Batch) -> Remote:
    return Remote(
        str(batch.provider_batch_id),
        str(batch.status),
        terminal=True,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
    )


def _missing(batch: Batch, *, lost: bool) -> Row:
    """What is said of a row that is in no file. `lost`: more rows were done than were given back."""
    code, _, error = (batch.error or f"batch_{batch.status}: the batch {batch.status}").partition(": ")
    if lost:
        return Row("", Answer((), Outcome.CUT), error_code=code, error="done, but its answer was not given")
    full = code == "token_limit_exceeded"
    return Row("", None, code, error, expired=batch.status == "expired", cancelled=full or batch.status == "cancelled")


async def _settle(context: Context, batch: Batch, rows: Sequence[Keyed]) -> None:
    """One page: a second settlement of the same row changes nothing."""
    now = context.clock.now()
    ids = [job_id for job_id, _, _ in rows]
    bad = [job_id for job_id, _, row in rows if row.answer is None or not row.answer.usable]
    whole = await context.db(batches.judged, ids)
    idle = await context.db(batches.never_ran, bad) if bad else {}
    onto = await context.db(plans.next_steps, bad, now) if bad else {}
    settlements = []
    for job_id, n, row in rows:
        end = await _ending(row, n - idle.get(job_id, 0), whole.get(job_id), _next_try(batch, row, now))
        if isinstance(end, Again) and job_id in onto:
            end = Again(now, end.code, end.error, end.result, onto[job_id])
        settlements.append(Settlement(job_id, n, _charge(context, batch, row), end))
    await context.db(settle.settle, settlements, now)


def _next_try(batch: Batch, row: Row, now: datetime) -> datetime:
    return now + timedelta(seconds=_FULL_S) if row.error_code == "token_limit_exceeded" else now


def _charge(context: Context, batch: Batch, row: Row) -> Charge:
    if row.answer is None:
        states = ((row.expired, AttemptState.EXPIRED), (row.cancelled, AttemptState.CANCELLED))
        state = next((state for is_so, state in states if is_so), AttemptState.FAILED)
        return Charge.free(state, code=row.error_code, error=row.error)
    endpoint = context.endpoint(batch.provider)
    at = batch.submitted_at or context.clock.now()
    return outcome.charge(row.answer, Lane.BATCH, Tier.DEFAULT, batch.model, endpoint, at)


async def _ending(row: Row, tries: int, whole: tuple[str, str | None, int] | None, again_at: datetime) -> Ending:
    if row.answer is not None and row.answer.usable:
        if whole is None:
            return settle.Succeeded(outcome.text_of(row.answer))
        body, command, answered = whole
        request = Request.from_body(orjson.loads(body))
        return await postprocess.apply(outcome.ending(row.answer, request, tries, again_at, answered), command)
    code, why = row.error_code or "error", row.error or "the provider gave no reason"
    result = None
    if row.answer is not None:
        result = outcome.text_of(row.answer)
        code = row.answer.error_code or row.error_code or row.answer.outcome.value
        why = row.answer.error or row.error or outcome.WHY[row.answer.outcome]
        if row.answer.outcome in (Outcome.REFUSED, Outcome.FILTERED):
            return Failed(code, why, result)
    if retry_row(row, tries, again_at) is None:
        return Failed(code, why, result)
    return Again(again_at, code, why, result)
