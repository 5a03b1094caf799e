"""Spans: one an attempt, under one for its job while that runs here; one a batch; one a request to the gateway."""

import time
from collections import OrderedDict
from contextvars import Token
from datetime import datetime
from threading import Lock
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from db.money import NANO
from db.settle import Failed
from db.states import BatchState, Lane
from db.tables import Batch
from jobs.observing import (
    AttemptEnded,
    AttemptSent,
    BatchMoved,
    JobAccepted,
    JobLeft,
    RequestBegan,
    RequestDone,
    RowsEnded,
)
from router.imported import Imported
from router.telemetry import words
from router.telemetry.telling import Teller

_MOST = 10_000  # spans that wait for their end: of those that never come to one the oldest are let go
_MS = 1_000_000  # nanoseconds


class Open:
    """What waits for its end, by its key. What never comes to one is let go at last, the oldest first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._turn = Lock()

    def put(self, key: Any, value: Any) -> None:
        """One more."""
        with self._turn:
            self._kept[key] = value
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)

    def get(self, key: Any) -> Any:
        """It, or None."""
        return self._kept.get(key)

    def take(self, key: Any) -> Any:
        """It, for good, or None."""
        with self._turn:
            return self._kept.pop(key, None)


class Spans(Teller):
    """Makes them of what happens. `content`: with what was asked and answered."""

    def __init__(self, tracer: Tracer, *, content: bool = False) -> None:
        self._tracer, self._content = tracer, content
        self._classes, self._jobs, self._attempts, self._imports = Open(), Open(), Open(), Open()
        super().__init__({
            JobAccepted: self._accepted,
            AttemptSent: self._sent,
            AttemptEnded: self._ended,
            JobLeft: self._left,
            RowsEnded: self._rows,
            BatchMoved: self._moved,
            RequestBegan: self._began,
            RequestDone: self._done,
        })  # fmt: skip

    # ---- jobs and their attempts ----

    def _accepted(self, job: JobAccepted) -> None:
        if job.runs_here:
            self._classes.put(job.job_id, job.class_)

    def _sent(self, sent: AttemptSent) -> None:
        claim, request, address = sent
        whose = words.job(claim)
        if kind := claim.class_ or self._classes.take(claim.job_id):
            whose["shunter.class"] = kind
        parent = self._jobs.get(claim.job_id)
        if parent is None:
            parent = self._tracer.start_span("shunter.job", kind=SpanKind.INTERNAL, attributes=whose)
            self._jobs.put(claim.job_id, parent)
        known = words.call(claim.provider, claim.model, address) | whose | words.asked(claim, request)
        if self._content:
            known |= words.prompt(request)
        span = self._tracer.start_span(
            f"chat {claim.model}", trace.set_span_in_context(parent), SpanKind.CLIENT,
            attributes=known | {"shunter.attempt": claim.n},
        )  # fmt: skip
        self._attempts.put((claim.job_id, claim.n), (span, time.time_ns()))

    def _ended(self, event: AttemptEnded) -> None:
        claim, charge, ending = event.claim, event.ended.charge, event.ended.ending
        result = getattr(ending, "result", None)
        span, began = self._attempts.take((claim.job_id, claim.n)) or (None, 0)
        if span is not None:
            span.set_attributes(words.answered(claim.model, charge, result))
            if charge.first_token_ms is not None and claim.lane == Lane.STREAM:
                span.set_attribute("gen_ai.response.time_to_first_chunk", charge.first_token_ms / 1000)
            if self._content:
                span.set_attributes(words.reply(result))
            _end(span, words.failure(charge), _until(began, charge.total_ms))
        if isinstance(ending, Failed) and (job := self._jobs.get(claim.job_id)):
            _fail(job, ending.code)
        if not event.kept:
            self._left(JobLeft(claim.job_id))

    def _left(self, event: JobLeft) -> None:
        self._classes.take(event.job_id)
        if span := self._jobs.take(event.job_id):
            span.end()

    # ---- batches ----

    def _rows(self, event: RowsEnded) -> None:
        so_far = self._imports.get(event.batch.id) or Imported()
        for one in event.settled:
            so_far.add(one.charge)
        self._imports.put(event.batch.id, so_far)
        if event.batch.lane == Lane.BACKGROUND:  # one row, and nobody tells of its moves
            self._batch(event.batch, "background", None)

    def _moved(self, event: BatchMoved) -> None:
        if event.after.state == BatchState.IMPORTED != event.before.state:
            self._batch(event.after, "batch", event.after.imported_at)

    def _batch(self, batch: Batch, operation: str, until: datetime | None) -> None:
        """One span for all of its rows, from its packing to its import."""
        came = self._imports.take(batch.id) or Imported()
        known = words.call(batch.provider, batch.model, batch.base_url, operation)
        own = {
            "shunter.batch.id": batch.id,
            "shunter.lane": batch.lane,
            "shunter.batch.rows": batch.rows,
            "shunter.batch.status": batch.status or "",
            **{f"shunter.batch.rows.{state}": count for state, count in came.states.items()},
            "gen_ai.usage.input_tokens": came.input_tokens,
            "gen_ai.usage.output_tokens": came.output_tokens,
            "shunter.cost_usd": came.cost_nano / NANO,
            "shunter.cost_known": sorted(came.sources),
            "shunter.batch.rows.unpriced": came.unknown,
        }
        span = self._tracer.start_span(
            f"{operation} {batch.model}", context.Context(), SpanKind.CLIENT, attributes=known | own,
            start_time=_nanos(batch.packed_at),
        )  # fmt: skip
        worst = came.codes.most_common(1)
        _end(span, worst[0][0] if worst and not came.states["ok"] else None, _nanos(until) if until else None)

    # ---- requests to the gateway ----

    def _began(self, event: RequestBegan) -> None:
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        caller = propagate.extract(carrier, context.Context())
        served = event.served
        span = self._tracer.start_span(served.method, caller, SpanKind.SERVER, attributes=words.served(served))
        served.notes["span"] = span, context.attach(trace.set_span_in_context(span, caller))

    def _done(self, event: RequestDone) -> None:
        served = event.served
        open_: tuple[Span, Token[Context]] | None = served.notes.pop("span", None)
        if open_ is None:
            return
        span, token = open_
        context.detach(token)
        if served.route:
            span.update_name(f"{served.method} {served.route}")
        if served.job_id:
            span.set_attribute("shunter.job.id", served.job_id)
        span.set_attributes(words.served(served))
        _end(span, str(served.status) if served.broke else None, None)


def _fail(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))


def _end(span: Span, error: str | None, at: int | None) -> None:
    if error is not None:
        _fail(span, error)
    span.end(at)


def _until(began: int, total_ms: float | None) -> int | None:
    """When a call ended: its own watch is the better one, since what follows it takes time as well."""
    return began + round(total_ms * _MS) if total_ms is not None else None


def _nanos(at: datetime) -> int:
    return round(at.timestamp() * 1e9)
