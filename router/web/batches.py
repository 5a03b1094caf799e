"""The Batch API of the gateway, over every provider: each row of a file is a job, and the worker does the rest."""

import asyncio
import logging
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from db import files, gateway_batches, queue
from db.engine import Store
from db.files import PART_BYTES, File
from db.gateway_batches import Asked
from db.ids import new_id
from db.states import FINAL, JobState
from jobs.errors import ShunterError
from router import bulk
from router.decided import Wish
from router.dispatch import Router
from router.intake import Defaults, Kind, Reader, Reject, Rejects
from router.keyring import KEY_TAG
from router.web.errors import HTTPError
from router.web.files import paged, stamp, uploaded
from router.web.hints import json_of
from router.web.results import ERRORS, OUTPUT, reject_line
from router.web.tokens import Caller

ENDPOINT = "/v1/chat/completions"
WINDOW = timedelta(hours=24)
BROKEN_OFF = timedelta(minutes=10)  # a file that is not read by then is read by nobody any more
_MOST_PAIRS, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512

log = logging.getLogger(__name__)


def routes() -> APIRouter:
    """What is under /v1/batches."""
    router = APIRouter(prefix="/v1/batches", tags=["openai"])
    router.add_api_route("", create, methods=["POST"])
    router.add_api_route("", listed, methods=["GET"])
    router.add_api_route("/{batch}", retrieve, methods=["GET"])
    router.add_api_route("/{batch}/cancel", cancel, methods=["POST"])
    return router


async def create(request: Request) -> Any:
    """Keep a batch, and begin to read its file."""
    router: Router = request.app.state.router
    caller: Caller = request.state.caller
    body = json_of(await request.body())
    endpoint, window, metadata = body.get("endpoint"), body.get("completion_window"), body.get("metadata")
    if endpoint != ENDPOINT:
        raise _wrong(f"only {ENDPOINT} is served in batches", "endpoint")
    if window != "24h":
        raise _wrong("completion_window must be 24h", "completion_window")
    _check_metadata(metadata)
    context, now = router.context(), router.clock.now()
    file = await context.db(uploaded, body.get("input_file_id"), caller)
    batch = Asked(f"batch_{new_id(now)}", caller.key_id, file.id, endpoint, metadata, now, now + WINDOW)
    await context.db(gateway_batches.create, batch)
    reading = asyncio.ensure_future(_read(router, batch, caller))
    request.app.state.reading[batch.id] = reading
    reading.add_done_callback(lambda _: request.app.state.reading.pop(batch.id))
    return _view(batch, {}, None)


def _wrong(said: str, param: str) -> HTTPError:
    return HTTPError(400, said, code="invalid_request", param=param)


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > _MOST_PAIRS:
        raise _wrong(f"metadata must be an object of at most {_MOST_PAIRS} names", "metadata")
    for name, value in metadata.items():
        if not isinstance(value, str) or len(name) > _LONGEST_NAME or len(value) > _LONGEST_VALUE or "\0" in value:
            raise _wrong(f"metadata: {name[:80]!r} must be text, and not longer than OpenAI allows", "metadata")


# ---- reading the file ----


async def _read(router: Router, batch: Asked, caller: Caller) -> None:
    context = router.context()
    for provider in router.settings.endpoints:
        await router.learn(provider)
    try:
        await run_in_threadpool(_ingest, router, batch, caller)
    except ShunterError as error:
        await context.db(_failed, batch.id, error.code, str(error), router.clock.now())
    except Exception:
        log.exception("the file of %s could not be read", batch.id)
        said = "the gateway could not read the file; its log has the rest"
        await context.db(_failed, batch.id, "internal_error", said, router.clock.now())


def _ingest(router: Router, batch: Asked, caller: Caller) -> None:
    """Every row a job; those that cannot be sent go to the error file."""
    store = router.store
    tags = {KEY_TAG: caller.key_id} if caller.key_id else {}
    defaults = Defaults(model=router.model(None), deadline=batch.expires_at, tags=tags)
    wish = Wish(again=True, lanes=tuple(caller.lanes) if caller.lanes else None)
    rejected = _Rejected(store, batch)
    with tempfile.TemporaryFile(dir=router.context().folder) as copy:
        for part in files.parts(store, batch.input_file_id):
            copy.write(part)
        copy.seek(0)
        reader = Reader(cast("BinaryIO", copy), Kind.JSONL, defaults, name=batch.input_file_id)
        source = gateway_batches.source_of(batch.id)
        summary = bulk.submit(router, reader, wish, rejected, source, lambda so_far: None)
    if not summary.accepted:
        said = summary.first_reject or "the file has no requests"
        _failed(
            store, batch.id, "empty_file" if not summary.rejected else "invalid_json_line", said, router.clock.now()
        )
        return
    known = {"submission_id": summary.submission, "rejected": summary.rejected, "rejects_file_id": rejected.file_id}
    gateway_batches.change(store, batch.id, **known, read_at=router.clock.now())
    now = gateway_batches.find(store, batch.id)
    if now is not None and now.cancelled_at is not None:
        queue.cancel(store, gateway_batches.jobs_of(store, summary.submission), router.clock.now())


def _failed(store: Store, batch_id: str, code: str, said: str, now: datetime) -> None:
    gateway_batches.change(store, batch_id, error_code=code, error=said, read_at=now)


class _Rejected(Rejects):
    """Rows that cannot be sent, as lines of the batch's error file."""

    def __init__(self, store: Store, batch: Asked) -> None:
        super().__init__(None)
        self.file_id: str | None = None
        self._store, self._batch = store, batch
        self._buffer, self._n, self._size = bytearray(), 0, 0

    def add(self, reject: Reject) -> None:
        """One more."""
        if self.file_id is None:
            self.file_id = f"file-{new_id(self._batch.created_at)}"
            made = File(self.file_id, self._batch.owner, "", "", 0, self._batch.created_at)
            files.begin(self._store, made)
        self._buffer += reject_line(self._batch.id, reject.line, reject.custom_id, reject.reason)
        if len(self._buffer) >= PART_BYTES:
            self._flush()

    def _flush(self) -> None:
        assert self.file_id
        files.add(self._store, self.file_id, self._n, bytes(self._buffer))
        self._size, self._n = self._size + len(self._buffer), self._n + 1
        self._buffer.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file_id is not None and error is None:
            if self._buffer:
                self._flush()
            files.end(self._store, self.file_id, size=self._size, filename="rejected.jsonl", purpose="batch_output")


# ---- looking at it ----


def listed(request: Request, after: str | None = None, limit: int = 20) -> Any:
    """A page of the caller's batches, newest first."""
    store: Store = request.app.state.router.store
    limit, after = min(max(limit, 1), 100), after.replace("\0", "") if after else None
    page = gateway_batches.page(store, owner=request.state.caller.key_id, after=after, limit=limit + 1)
    return paged([_as_it_is(store, one) for one in page], limit)


def retrieve(request: Request, batch: str) -> Any:
    """A batch as it stands."""
    router: Router = request.app.state.router
    found = _find(router.store, batch, request.state.caller)
    now = router.clock.now()
    if found.read_at is None and now - found.created_at > BROKEN_OFF and found.id not in request.app.state.reading:
        _give_up(router.store, found, now)
        found = _find(router.store, batch, request.state.caller)
    return _as_it_is(router.store, found)


def _give_up(store: Store, batch: Asked, now: datetime) -> None:
    """A server that died while it read the file left jobs that belong to no whole batch."""
    if submission := gateway_batches.begun(store, batch.id):
        queue.cancel(store, gateway_batches.jobs_of(store, submission), now)
    _failed(store, batch.id, "interrupted", "the server stopped while it read the file: create the batch again", now)


def _find(store: Store, batch_id: str, caller: Caller) -> Asked:
    found = gateway_batches.find(store, batch_id.replace("\0", ""))
    if found is None or not caller.may_see(found.owner):
        raise HTTPError(404, f"there is no batch {batch_id[:80]!r}", code="not_found", param="batch_id")
    return found


def cancel(request: Request, batch: str) -> Any:
    """Take out what was not sent; what is under way comes to its end, and is paid."""
    router: Router = request.app.state.router
    store, now = router.store, router.clock.now()
    found = _find(store, batch, request.state.caller)
    state = _as_it_is(store, found)["status"]
    if state in ("completed", "failed", "cancelled"):
        raise HTTPError(400, f"the batch is {state} already", code="invalid_request")
    if found.cancelled_at is None:
        gateway_batches.change(store, found.id, cancelled_at=now)
    if found.submission_id is not None:
        queue.cancel(store, gateway_batches.jobs_of(store, found.submission_id), now)
    return _as_it_is(store, _find(store, batch, request.state.caller))


def _as_it_is(store: Store, batch: Asked) -> dict[str, Any]:
    counts, ended = gateway_batches.standing(store, batch.submission_id) if batch.submission_id else ({}, None)
    return _view(batch, counts, ended)


def _view(batch: Asked, counts: Mapping[str, int], ended: datetime | None) -> dict[str, Any]:
    """A batch in OpenAI's form, with one of its eight statuses."""
    status = _status(batch, counts)
    good = counts.get(JobState.SUCCEEDED, 0)
    bad = counts.get(JobState.FAILED, 0) + counts.get(JobState.CANCELLED, 0) + batch.rejected
    over, plain = status in ("completed", "cancelled"), batch.id.removeprefix("batch_")
    first = {"code": batch.error_code, "message": batch.error, "line": None, "param": None}
    at = stamp(ended or batch.read_at)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": [first]} if batch.error_code else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": status,
        "output_file_id": f"{OUTPUT}{plain}" if over and good else None,
        "error_file_id": f"{ERRORS}{plain}" if over and bad else None,
        "created_at": stamp(batch.created_at),
        "in_progress_at": stamp(batch.read_at) if batch.submission_id else None,
        "expires_at": stamp(batch.expires_at),
        "finalizing_at": at if status == "completed" else None,
        "completed_at": at if status == "completed" else None,
        "failed_at": stamp(batch.read_at) if status == "failed" else None,
        "expired_at": None,
        "cancelling_at": stamp(batch.cancelled_at),
        "cancelled_at": at if status == "cancelled" else None,
        "request_counts": {"total": sum(counts.values()) + batch.rejected, "completed": good, "failed": bad},
        "metadata": batch.metadata,
    }


def _status(batch: Asked, counts: Mapping[str, int]) -> str:
    if batch.error_code is not None:
        return "failed"
    if batch.read_at is None:
        return "validating"
    if any(number for state, number in counts.items() if state not in FINAL):
        return "cancelling" if batch.cancelled_at else "in_progress"
    return "cancelled" if batch.cancelled_at else "completed"
