"""Batches moved along by the clock: validated, run row by row, finished as their drills want."""

import asyncio
import logging
import time
from collections.abc import Iterable
from itertools import pairwise
from mmap import mmap

import orjson

from jobs.sandbox import rows
from jobs.sandbox.bill import BillRow, cost_nano_usd
from jobs.sandbox.clock import Clock
from jobs.sandbox.faults import Faults
from jobs.sandbox.ids import Ids
from jobs.sandbox.plan import Run, begin_of, planned, seconds_of
from jobs.sandbox.records import MONTH, Batch, FileRecord
from jobs.sandbox.rows import Checked, Outcome
from jobs.sandbox.settings import SandboxSettings
from jobs.sandbox.store import Store

log = logging.getLogger(__name__)
SLICE_S = 0.008


class Runs:
    """A task for each batch that is not over; they are taken up again after a restart."""

    def __init__(self, settings: SandboxSettings, store: Store, clock: Clock, ids: Ids, drills: Faults) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.ids = ids
        self.drills = drills
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def resume(self) -> None:
        for batch in list(self.store.batches.values()):
            if not batch.final:
                self.start(batch)

    def start(self, batch: Batch) -> None:
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self.tasks[batch.id] = task
        task.add_done_callback(lambda _: self.tasks.pop(batch.id, None))

    async def quiet(self) -> None:
        """Back when every batch is as far as the clock lets it be."""
        while len(self.tasks) > self.clock.asleep():  # noqa: ASYNC110 - the batches' own turns are waited for
            await asyncio.sleep(0)

    async def stop(self) -> None:
        tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, batch: Batch) -> None:
        try:
            await self._live(batch)
        except Exception:
            log.exception("batch %s broke", batch.id)
            batch.errors = [
                {
                    "code": "server_error",
                    "message": "The sandbox broke on this batch; see its log.",
                    "line": None,
                    "param": None,
                }
            ]
            self._move(batch, "failed", self.clock.now())

    async def _live(self, batch: Batch) -> None:
        checked = await self._checked(batch)
        begin = begin_of(batch, self.settings)
        await self.clock.until(begin, lambda: batch.cancel_at is not None)
        if batch.status == "validating":
            self._token_limit(batch, checked)
            if checked.errors:
                batch.errors = checked.errors
                self._move(batch, "failed", begin)
                return
        batch.counts["total"] = len(checked.rows)
        run = planned(batch, checked.rows, self.settings)
        self._catch_up(run)
        if batch.status == "validating":
            self._move(batch, "in_progress", begin)
        await self._rows(run)
        await self._finish(run)

    async def _checked(self, batch: Batch) -> Checked:
        """Reads the input in slices; the rows of an Anthropic batch were checked when it was created."""
        checked = Checked(batch.endpoint)
        blob = self.store.blob(batch.input)
        starts = blob.line_starts()
        data = blob.view()
        began = time.monotonic()
        for number, (start, end) in enumerate(pairwise(starts), 1):
            if batch.api == "messages":
                checked.rows.append((start, end))
            else:
                checked.line(number, bytes(data[start:end]), start, end)
            if time.monotonic() - began > SLICE_S:
                await asyncio.sleep(0)
                began = time.monotonic()
        checked.finish(batch.api)
        batch.model = checked.model
        if (drill := batch.drill("batch_failed")) is not None:
            checked.fail(drill["code"], drill["message"] or "The sandbox was told to fail this batch.", drill["line"])
        return checked

    def _token_limit(self, batch: Batch, checked: Checked) -> None:
        """A batch counts against its model's limit from the end of its validation to its own end."""
        limit = self.settings.queued_token_limit
        ahead = [one for one in self.store.batches.values() if one.model == batch.model and not one.final]
        queued = sum(one.input_tokens for one in ahead) + checked.input_tokens
        if batch.drill("token_limit") or (limit is not None and queued > limit):
            checked.fail(
                "token_limit_exceeded",
                f"Enqueued token limit reached for {batch.model} in organization org-sandbox. "
                f"Limit: {limit or 0:,} enqueued tokens. Please try again once some in_progress batches have been "
                "completed.",
            )
        else:
            batch.input_tokens = checked.input_tokens

    def _catch_up(self, run: Run) -> None:
        """After a restart: a row with its line on disk is done; one that was only billed runs again, unbilled."""
        batch = run.batch
        outputs, failures = self.store.blob(batch.outputs), self.store.blob(batch.failures)
        old = [row for row in self.store.bill.rows if row.batch_id == batch.id]
        if not old and not len(outputs) and not len(failures):
            return
        outputs.trim()
        failures.trim()
        run.billed = {row.custom_id for row in old}
        done: set[str] = set()
        batch.counts |= {"completed": 0, "failed": 0}
        for line in (outputs.read() + failures.read()).splitlines():
            custom_id, good, ran = rows.reread(line)
            done.add(custom_id)
            batch.counts["completed" if good else "failed"] += ran
        batch.usage = dict.fromkeys(batch.usage, 0)
        for row in old:
            if row.custom_id in done:
                self._count_usage(batch, row)
        data = self.store.blob(batch.input).view()
        left = [at for at in run.order if orjson.loads(bytes(data[slice(*run.spans[at])]))["custom_id"] not in done]
        run.position = len(run.order) - len(left)
        run.order = [*sorted(set(run.order) - set(left)), *left]

    async def _rows(self, run: Run) -> None:
        batch = run.batch
        data = self.store.blob(batch.input).view()
        while run.position < run.limit and batch.cancel_at is None:
            due = run.due(self.clock.now())
            if due > run.position:
                self._slice(run, data, due)
                await asyncio.sleep(0)
            else:
                await self.clock.until(run.time_of(run.position + 1), lambda: batch.cancel_at is not None)

    def _slice(self, run: Run, data: mmap | memoryview, due: int) -> None:
        """Some milliseconds' worth of rows: billed first, then written, so that no line is without its charge."""
        batch = run.batch
        until = time.monotonic() + SLICE_S
        outcomes: list[Outcome] = []
        now = int(self.clock.now())
        while run.position < due and time.monotonic() < until:
            at = run.order[run.position]
            run.position += 1
            row = rows.read(batch.api, bytes(data[slice(*run.spans[at])]), self.ids.next(), now)
            drill = batch.drill("fail_rows")
            if drill is not None and (at in run.failing or row.custom_id in (drill["custom_ids"] or ())):
                outcome = rows.failed(batch.api, row, drill)
            else:
                outcome = rows.answered(batch.api, row, self.settings, self.drills)
            if outcome is not None:
                outcomes.append(outcome)
        charged = [self._charge(batch, one) for one in outcomes if one.good]
        self.store.bill.add([row for row in charged if row.custom_id not in run.billed])
        for charge in charged:
            self._count_usage(batch, charge)
        self._write(batch, outcomes)
        batch.counts["completed"] += sum(one.good for one in outcomes)
        batch.counts["failed"] += sum(not one.good for one in outcomes)

    def _charge(self, batch: Batch, one: Outcome) -> BillRow:
        assert one.usage is not None
        return BillRow(
            one.ident,
            self.clock.now(),
            batch.api,
            "batch",
            one.model,
            one.custom_id,
            batch.id,
            f"req_{one.ident}",
            "batch",
            200,
            one.usage,
            cost_nano_usd(one.usage, one.model, "batch"),
        )

    def _count_usage(self, batch: Batch, row: BillRow) -> None:
        for name in batch.usage:
            batch.usage[name] += getattr(row.usage, name)

    def _write(self, batch: Batch, outcomes: Iterable[Outcome]) -> None:
        """Anthropic has one file of results; OpenAI keeps the failures apart."""
        outcomes = list(outcomes)
        for name, wanted in ((batch.outputs, True), (batch.failures, False)):
            lines = [one.line for one in outcomes if (one.good or batch.api == "messages") is wanted]
            if lines:
                self.store.blob(name).append(b"".join(lines))

    async def _finish(self, run: Run) -> None:
        """To the run's own ending, unless it is cancelled before."""
        batch = run.batch
        at = run.time_of(run.limit)
        if batch.cancel_at is None and run.ending == "completed":
            self._move(batch, "finalizing", at)
            at = max(at, batch.created + seconds_of(batch, self.settings))
        elif run.ending == "stalled":
            at = float("inf")
        elif run.ending == "expired" and not batch.drill("expire"):
            at = batch.expires
        await self.clock.until(at, lambda: batch.cancel_at is not None)
        if batch.cancel_at is None:
            await self._close(run, run.ending, at)
        else:
            at = batch.cancel_at + self.settings.cancel_seconds
            await self.clock.until(at)
            await self._close(run, "cancelled", at)

    async def _close(self, run: Run, status: str, at: float) -> None:
        """Lines for the rows that never ran, the files, the last status."""
        batch = run.batch
        drill = batch.drill("expire")
        if status in rows.UNRUN and not (status == "expired" and drill is not None and not drill["error_rows"]):
            code, message = rows.UNRUN[status]
            data = self.store.blob(batch.input).view()
            left = run.order[run.position :]
            for first in range(0, len(left), 1000):
                spans = [run.spans[row] for row in left[first : first + 1000]]
                read = [rows.read(batch.api, bytes(data[slice(*span)]), self.ids.next(), int(at)) for span in spans]
                self._write(batch, [rows.unrun(batch.api, row, code, message) for row in read])
                await asyncio.sleep(0)
        if batch.api != "messages":
            batch.output_file_id = self._publish(batch, batch.outputs, "output", at)
            batch.error_file_id = self._publish(batch, batch.failures, "error", at)
        self._move(batch, status, at)

    def _publish(self, batch: Batch, blob: str, what: str, at: float) -> str | None:
        size = len(self.store.blob(blob))
        if size == 0:
            return None
        record = FileRecord(
            f"file-{self.ids.next()}",
            f"{batch.id}_{what}.jsonl",
            "batch_output",
            size,
            at,
            at,
            blob,
            int(at) + (batch.output_expires or MONTH),
        )
        self.store.save_file(record)
        return record.id

    def _move(self, batch: Batch, status: str, at: float) -> None:
        """The new status with its time, kept before anyone sees it."""
        batch.status = status
        batch.stamps[f"{status}_at"] = at
        self.store.save_batch(batch)
