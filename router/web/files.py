"""Files of the gateway: what clients upload, and what their batches came to."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from db import files
from db.engine import Store
from db.files import PART_BYTES, File
from db.ids import new_id
from jobs.sandbox.errors import ApiError
from jobs.sandbox.multipart import Multipart, boundary_of
from router.dispatch import Router
from router.web import bodies, results
from router.web.batch_form import stamp
from router.web.errors import HTTPError
from router.web.tokens import Caller

MOST_BYTES = 200 << 20
ABANDONED = timedelta(days=1)
_PURPOSES = ("batch", "user_data", "assistants", "fine-tune", "vision", "evals")


def routes() -> APIRouter:
    """What is under /v1/files."""
    router = APIRouter(prefix="/v1/files", tags=["openai"])
    router.add_api_route("", upload, methods=["POST"], openapi_extra=bodies.FILE)
    router.add_api_route("", listed, methods=["GET"])
    router.add_api_route("/{file}", retrieve, methods=["GET"])
    router.add_api_route("/{file}", remove, methods=["DELETE"])
    router.add_api_route("/{file}/content", content, methods=["GET"])
    return router


async def upload(request: Request) -> Any:
    """Keep a file, piece by piece as it comes."""
    router: Router = request.app.state.router
    context, now = router.context(), router.clock.now()
    for left in await context.db(files.left, now - ABANDONED):
        await context.db(files.remove, left)
    file = File(f"file-{new_id(now)}", request.state.caller.key_id, "", "", 0, now)
    await context.db(files.begin, file)
    try:
        form = await _take(request, router, file.id)
        known = _named(form)
        kept = await context.db(files.end, file.id, size=form.size, **known)
    except BaseException:
        await context.db(files.remove, file.id)
        raise
    return view(kept)


async def _take(request: Request, router: Router, file_id: str) -> Multipart:
    buffer, n = bytearray(), 0
    try:
        form = Multipart(boundary_of(request.headers.get("content-type", "")), MOST_BYTES, buffer.extend)
        async for piece in request.stream():
            form.feed(piece)
            while len(buffer) >= PART_BYTES:
                await router.context().db(files.add, file_id, n, bytes(buffer[:PART_BYTES]))
                del buffer[:PART_BYTES]
                n += 1
    except ApiError as error:
        raise HTTPError(error.status, str(error), code="invalid_form") from None
    if not form.finished:
        raise HTTPError(400, "the form ended before its last boundary", code="invalid_form")
    if buffer:
        await router.context().db(files.add, file_id, n, bytes(buffer))
    return form


def _named(form: Multipart) -> dict[str, str]:
    purpose = form.fields.get("purpose", "")
    if not form.has_file or purpose not in _PURPOSES:
        what = "file" if not form.has_file else "purpose"
        raise HTTPError(400, f"the form's {what} is missing or not known", code="invalid_request", param=what)
    return {"filename": (form.file_name or "upload").replace("\0", "")[:400], "purpose": purpose}


def view(file: File, expires_at: datetime | None = None) -> dict[str, Any]:
    """A file in OpenAI's form."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": stamp(expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def listed(request: Request, purpose: str | None = None, after: str | None = None, limit: int = 100) -> Any:
    """A page of the caller's uploads, newest first."""
    store: Store = request.app.state.router.store
    limit, owner = min(max(limit, 1), 10_000), request.state.caller.key_id
    after, purpose = (word.replace("\0", "") if word else None for word in (after, purpose))
    return paged([view(one) for one in files.page(store, owner=owner, purpose=purpose, after=after, limit=limit + 1)],
                 limit)  # fmt: skip


def paged(views: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """OpenAI's page of a list of which one more was looked for."""
    page = views[:limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"object": "list", "data": page, **ends, "has_more": len(views) > limit}


def retrieve(request: Request, file: str) -> Any:
    """What is known of a file."""
    found = _find(request, file)
    return view(found, results.expires_at(request.app.state.router.store, found.id))


def _find(request: Request, file_id: str) -> File:
    """The caller's file of this id; result files are given out for as long as they were wanted."""
    router: Router = request.app.state.router
    caller: Caller = request.state.caller
    store = router.store
    found = results.file(store, file_id, router.clock.now()) or files.find(store, file_id.replace("\0", ""))
    if found is None or not caller.may_see(found.owner):
        raise HTTPError(404, f"there is no file {file_id[:80]!r}", code="not_found", param="file_id")
    return found


def remove(request: Request, file: str) -> Any:
    """Forget an upload; what a batch came to is made of its jobs, and stays."""
    store: Store = request.app.state.router.store
    found = _find(request, file)
    files.remove(store, found.id)
    return {"id": found.id, "object": "file", "deleted": True}


def content(request: Request, file: str) -> Response:
    """The bytes of a file, as many at a time as the client takes."""
    store: Store = request.app.state.router.store
    found = _find(request, file)
    pieces: Iterator[bytes] = results.content(store, found.id) or files.parts(store, found.id)
    return StreamingResponse(pieces, media_type="application/octet-stream")


def uploaded(store: Store, file_id: Any, caller: Caller) -> File:
    """The upload that a batch is to be made of; HTTPError when there is none."""
    found = files.find(store, file_id.replace("\0", "")) if isinstance(file_id, str) else None
    if found is None or not caller.may_see(found.owner):
        raise HTTPError(400, f"there is no file {str(file_id)[:80]!r}", code="not_found", param="input_file_id")
    return found
