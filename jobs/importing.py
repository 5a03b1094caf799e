"""The end of a batch: every row is charged and answered, tried again or failed; then the batch is closed."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import orjson

from db import batch_rows, batches, plans, settle
from db.ids import parse_custom_id
from db.ledger import Charge
from db.settle import Again, Ending, Failed, Settlement
from db.states import AttemptState, Lane, Tier
from db.tables import Batch
from jobs import collector, outcome, postprocess
from jobs.chat import Answer, Outcome, Request
from jobs.context import Context
from jobs.errors import CallError, Permanent
from jobs.observing import RowsEnded
from jobs.providers import BatchProvider, Remote, Row
from jobs.retry import MAX_ATTEMPTS, counts, retry_row

_ROWS_A_WRITE = 150
_CHARS_A_WRITE = 2_000_000  # a thousand answers may be a thousand times as long as others
_LEARNED = 300  # answers of a batch that estimates learn from: more would tell them little
_HELD_S = 3600.0
FULL = "token_limit_exceeded"  # OpenAI's code for a queue without room; the batch was made, and ran nothing
_QUICK_ROUNDS, _MOST_ROUNDS = 5, 20  # in batches that never ran it
_LATE, _ROUNDS = "its deadline has passed", f"it was in {_MOST_ROUNDS} batches and never ran"

Keyed = tuple[str, int, Row]  # job, attempt, row
Unfit = tuple[str, int, Permanent]  # job, attempt, why it cannot be sent


async def import_rows(context: Context, batch: Batch) -> None:
    """Settle every row that the provider has an answer or an error for, then those that it does not mention.

    Doing it again changes nothing, so it may be cut off anywhere.
    """
    if batch.provider_batch_id is None:
        await _rest(context, batch, _unsent(batch))
        await _close(context, batch)
        return
    answered = await _import(context, batch, _remote(batch))
    # Rows that validation named are settled by now; the others were never looked at.
    spared = batch.status == "failed" and await context.db(batch_rows.some_settled, batch.id)
    await _rest(context, batch, _missing(batch, lost=batch.done > answered, spared=spared))
    await _close(context, batch)


async def _import(context: Context, batch: Batch, remote: Remote) -> int:
    """How many of its rows were answered; a file may also hold rows of somebody else, or a row twice.

    One page after the other, and by one thread where it can be: two hand the interpreter to and fro at each statement.
    """
    answered, last, learned = 0, ("", 0), 0
    judged = await context.db(batch_rows.any_judged, batch.id)
    with collector.seldom():
        async for rows in pages(context.batch_provider(batch.provider).collect(remote, context.folder)):
            settlements, now = await _settlements(context, batch, rows, judged=judged)
            ours = await context.promptly(settle.settle_rows, settlements, now, batch.id)
            await context.tidied()
            context.tell(RowsEnded(batch, ours))
            if learned < _LEARNED:
                learned += await _learn(context, batch, ours)
            told = [one[:2] for one in ours if one.charge.outcome is not None]
            answered += len(set(told) - {last})
            last = told[-1] if told else last  # the same row comes in a row, since they are in order
    return answered


async def _learn(context: Context, batch: Batch, rows: Sequence[Settlement]) -> int:
    """What the first answers of a batch say of the length of the next ones; how many."""
    whole = [one for one in rows if isinstance(one.ending, settle.Succeeded) and not one.ending.result.truncated]
    bodies = await context.db(batch_rows.bodies, [one.job_id for one in whole])
    for one in whole:
        if one.job_id in bodies and one.charge.output_tokens:
            context.lengths.add(batch.model, orjson.loads(bodies[one.job_id]), one.charge.output_tokens)
    return len(whole)


async def _rest(context: Context, batch: Batch, row: Row) -> None:
    """Settle every row that is still open in the same way."""
    while left := await context.db(batch_rows.open_rows, batch.id, _ROWS_A_WRITE):
        await settle_rows(context, batch, [(job_id, n, row) for job_id, n in left])


async def unfit(context: Context, batch: Batch, rows: Sequence[Unfit]) -> None:
    """Rows that the provider has no words for fail alone, before they are sent."""
    for first in range(0, len(rows), _ROWS_A_WRITE):
        page = rows[first : first + _ROWS_A_WRITE]
        failed = [(job_id, n, Row("", None, error.code, str(error), retry=False)) for job_id, n, error in page]
        await settle_rows(context, batch, failed)


async def forgotten(context: Context, batch: Batch, why: str) -> None:
    """The provider will never say how it ended: import what there is; the rest may have been billed and is tried again.

    Where such rows are to be held it is looked at once an hour until a person says what to do.
    """
    provider = context.batch_provider(batch.provider)
    if context.on_unknown == "hold":
        text = f"{why}; held: `shunter batches resubmit {batch.id}` sends its rows again, which may be paid twice"
        await context.db(batches.wait, batch, context.clock.now() + timedelta(seconds=_HELD_S), error=text)
        return
    with suppress(CallError):
        await provider.cancel(str(batch.provider_batch_id))
    with suppress(CallError):
        remote = await provider.poll(str(batch.provider_batch_id))
        if remote.output_file_id or remote.error_file_id:
            await _import(context, batch, remote)
    await given_up(context, batch, why)


async def given_up(context: Context, batch: Batch, why: str) -> None:
    """Its open rows may have been billed and nobody can tell: they are unknown, and are tried again while they may."""
    while left := await context.db(batch_rows.open_rows, batch.id, _ROWS_A_WRITE):
        now = context.clock.now()
        onto = await context.db(plans.next_steps, [job_id for job_id, _ in left], now)
        charge = Charge(AttemptState.UNKNOWN, error_code="batch_lost", error=why)
        settlements = []
        for job_id, n in left:
            again = Again(now, "batch_lost", why, onto=onto.get(job_id))
            ending = again if n < MAX_ATTEMPTS else Failed("batch_lost", why)
            settlements.append(Settlement(job_id, n, charge, ending))
        await context.db(settle.settle, settlements, now)
        context.tell(RowsEnded(batch, settlements))
    await _close(context, batch)


async def is_ours(context: Context, provider: BatchProvider, remote: Remote, batch: Batch) -> bool:
    """Whether the results of a finished batch name an attempt of this one."""
    async for row in provider.collect(remote):
        key = parse_custom_id(row.custom_id)
        return key is not None and await context.db(batch_rows.holds, batch.id, *key)
    return False


async def quarantine(
    context: Context, batch: Batch, lines: Sequence[tuple[int, str, str]], still: settle.Still | None = None
) -> None:
    """Fail the rows that the provider's validation names, so that the others can go without them."""
    where = await context.db(batch_rows.rows_at, batch.id, [line for line, _, _ in lines]) if lines else {}
    named = [(*where[line], _refused(line, code, text)) for line, code, text in lines if line in where]
    await settle_rows(context, batch, named, still)


def _refused(line: int, code: str, text: str) -> Row:
    return Row("", None, error_code=code, error=f"{text} (line {line} of its batch)", retry=False)


async def _close(context: Context, batch: Batch) -> None:
    """Done with it, here and at the provider, where input files would pile up."""
    if batch.file_id:
        with suppress(CallError):
            await context.batch_provider(batch.provider).delete_file(batch.file_id)
    await context.db(batches.imported, batch.id, context.clock.now())
    for path in context.folder.glob(f"{batch.id}.jsonl*"):  # those of dead workers among them
        path.unlink(missing_ok=True)


async def pages(rows: AsyncIterator[Row]) -> AsyncIterator[list[Keyed]]:
    """Rows with a mark like ours, so many together as are written at once; those before an error come before it."""
    page: list[Keyed] = []
    size, broke = 0, None
    try:
        async for row in rows:
            if key := parse_custom_id(row.custom_id):
                page.append((*key, row))
                size += sum(len(choice.text) for choice in row.answer.choices) if row.answer else 0
            if len(page) >= _ROWS_A_WRITE or size >= _CHARS_A_WRITE:
                yield page
                page, size = [], 0
    except CallError as error:
        broke = error
    if page:
        yield page
    if broke:
        raise broke


def _remote(batch: Batch) -> Remote:
    return Remote(
        str(batch.provider_batch_id),
        str(batch.status),
        terminal=True,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
    )


def _unsent(batch: Batch) -> Row:
    """What is said of the rows of a batch that never came to be at the provider: they have cost nothing."""
    code, _, error = (batch.error or "error: it was not sent").partition(": ")
    return Row("", None, code, error, retry=False, cancelled=batch.status == "cancelled")


def _missing(batch: Batch, *, lost: bool, spared: bool) -> Row:
    """What is said of a row that is in no file. `lost`: more rows were done than were answered."""
    code, _, error = (batch.error or f"batch_{batch.status}: the batch {batch.status}").partition(": ")
    if lost:
        return Row("", Answer((), Outcome.CUT), error_code=code, error="done, but its answer was not given")
    idle = spared or code == FULL or batch.status == "cancelled"
    never = batch.status == "failed" and _lasting(code)
    return Row("", None, code, error, retry=not never, expired=batch.status == "expired", cancelled=idle)


def _lasting(code: str) -> bool:
    from jobs.providers.failures import lasting

    return lasting(None, code)


async def settle_rows(context: Context, batch: Batch, rows: Sequence[Keyed], still: settle.Still | None = None) -> None:
    """One page: a second settlement of the same row changes nothing. `still`: as for `settle.settle_while`."""
    if not rows:
        return
    settlements, now = await _settlements(context, batch, rows)
    if still is None:
        await context.db(settle.settle, settlements, now)
    elif not await context.db(settle.settle_while, settlements, now, still):
        return
    context.tell(RowsEnded(batch, settlements))


async def _settlements(
    context: Context, batch: Batch, rows: Sequence[Keyed], *, judged: bool = True
) -> tuple[list[Settlement], datetime]:
    """How the rows end; `judged`: the answers of some must be looked at whole."""
    now = context.clock.now()
    ids = [job_id for job_id, _, _ in rows]
    bad = [job_id for job_id, _, row in rows if row.answer is None or not row.answer.usable]
    whole = await context.db(batch_rows.judged, ids) if judged else {}
    idle = await context.db(batch_rows.never_ran, bad) if bad else {}
    onto = await context.db(plans.next_steps, bad, now) if bad else {}
    late = await context.db(batch_rows.overdue, bad, now) if bad else set()
    charge = _charging(context, batch)
    settlements = []
    for job_id, n, row in rows:
        if row.answer is not None and row.answer.usable and job_id not in whole:  # nearly every one
            plain = settle.Succeeded(outcome.text_of(row.answer))
            settlements.append(Settlement(job_id, n, charge(row.answer), plain))
            continue
        rounds = idle.get(job_id, 0)
        end = await _ending(row, n - rounds, whole.get(job_id), now + timedelta(seconds=_rest_s(row, rounds)))
        if isinstance(end, Again) and job_id in onto:
            end = Again(now, end.code, end.error, end.result, onto[job_id])
        elif isinstance(end, Again) and not counts(row) and (job_id in late or n >= _MOST_ROUNDS):
            end = Failed(end.code, f"{end.error}; {_LATE if job_id in late else _ROUNDS}", end.result)
        settlements.append(Settlement(job_id, n, charge(row.answer) if row.answer else _free(row), end))
    return settlements, now


def _rest_s(row: Row, rounds: int) -> float:
    """Seconds before the row is packed again, which was in so many batches that never ran it."""
    if counts(row) or rounds < _QUICK_ROUNDS:
        return 0.0
    return min(60.0 * 2.0 ** (rounds - _QUICK_ROUNDS), 3600.0)


def _charging(context: Context, batch: Batch) -> Callable[[Answer], Charge]:
    """What says what an answer of the batch cost."""
    at, tier = batch.submitted_at or context.clock.now(), batch.completion_window or Tier.DEFAULT
    prices = outcome.tariff(batch.model, context.endpoint(batch.provider), Lane(batch.lane), at)
    return lambda answer: outcome.charge_by(prices, answer, tier)


def _free(row: Row) -> Charge:
    """What a row without an answer cost: nothing."""
    states = ((row.expired, AttemptState.EXPIRED), (row.cancelled, AttemptState.CANCELLED))
    state = next((state for is_so, state in states if is_so), AttemptState.FAILED)
    return Charge.free(state, code=row.error_code, error=row.error)


async def _ending(row: Row, tries: int, whole: tuple[str, str | None, int] | None, again_at: datetime) -> Ending:
    if row.answer is not None and row.answer.usable and whole is not None:
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
