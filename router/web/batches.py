"""The Batch API of the gateway, over every provider: each row of a file is a job, and the worker does the rest."""

import asyncio
import logging
import tempfile
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from db import expiring, files, gateway_batches, queue
from db.engine import Store
from db.files import PART_BYTES, File
from db.gateway_batches import Asked
from db.ids import new_id
from jobs.errors import ShunterError, UsageError
from router import bulk
from router.decided import Wish
from router.dispatch import Router
from router.intake import Defaults, Kind, Reader, Reject, Rejects
from router.keyring import KEY_TAG
from router.web import bodies
from router.web.batch_form import OVER, check_metadata, output_seconds, view, wrong
from router.web.errors import HTTPError
from router.web.files import paged, uploaded
from router.web.hints import json_of
from router.web.responses_body import chat_body
from router.web.results import reject_line
from router.web.tokens import Caller

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
WINDOW = timedelta(hours=24)
BROKEN_OFF = timedelta(minutes=10)  # a file that is not read by then is read by nobody any more

log = logging.getLogger(__name__)


def routes() -> APIRouter:
    """What is under /v1/batches."""
    router = APIRouter(prefix="/v1/batches", tags=["openai"])
    router.add_api_route("", create, methods=["POST"], openapi_extra=bodies.BATCH)
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
    if endpoint not in (CHAT, RESPONSES):
        raise wrong(f"only {CHAT} and {RESPONSES} are served in batches", "endpoint")
    if window != "24h":
        raise wrong("completion_window must be 24h", "completion_window")
    check_metadata(metadata)
    kept_s = output_seconds(body.get("output_expires_after"))
    context, now = router.context(), router.clock.now()
    file = await context.db(uploaded, body.get("input_file_id"), caller)
    batch = Asked(f"batch_{new_id(now)}", caller.key_id, file.id, endpoint, metadata, now, now + WINDOW,
                  output_seconds=kept_s)  # fmt: skip
    await context.db(gateway_batches.create, batch)
    reading = asyncio.ensure_future(_read(router, batch, caller))
    request.app.state.reading[batch.id] = reading
    reading.add_done_callback(lambda _: request.app.state.reading.pop(batch.id))
    return view(batch, {}, None)


def _chat(body: dict[str, Any]) -> dict[str, Any]:
    """The chat body of a line for /v1/responses."""
    if body.get("previous_response_id") is not None:
        raise UsageError("previous_response_id is not known in a batch: send the messages themselves")
    try:
        return chat_body(body, [])
    except HTTPError as error:
        raise UsageError(str(error)) from None


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
        how: dict[str, Any] = {"url": batch.endpoint, "worded": _chat if batch.endpoint == RESPONSES else None}
        reader = Reader(cast("BinaryIO", copy), Kind.JSONL, defaults, name=batch.input_file_id, **how)
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
    now = request.app.state.router.clock.now()
    return paged([_as_it_is(store, one, now) for one in page], limit)


def retrieve(request: Request, batch: str) -> Any:
    """A batch as it stands."""
    router: Router = request.app.state.router
    found = _find(router.store, batch, request.state.caller)
    now = router.clock.now()
    if found.read_at is None and now - found.created_at > BROKEN_OFF and found.id not in request.app.state.reading:
        _give_up(router.store, found, now)
        found = _find(router.store, batch, request.state.caller)
    return _as_it_is(router.store, found, now)


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
    state = _as_it_is(store, found, now)["status"]
    if state in (*OVER, "failed"):
        raise HTTPError(400, f"the batch is {state} already", code="invalid_request")
    if found.cancelled_at is None:
        gateway_batches.change(store, found.id, cancelled_at=now)
    if found.submission_id is not None:
        queue.cancel(store, gateway_batches.jobs_of(store, found.submission_id), now)
    return _as_it_is(store, _find(store, batch, request.state.caller), now)


def _as_it_is(store: Store, batch: Asked, now: datetime) -> dict[str, Any]:
    batch, counts, ended = expiring.look(store, batch, now)
    return view(batch, counts, ended)
