"""The result files of a batch: made of its jobs whenever they are asked for, and kept nowhere else."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson

from db import files, gateway_batches
from db.engine import Store
from db.files import File
from db.gateway_batches import Answered, Asked
from db.settle import Text
from db.states import JobState
from router.web.batch_form import ERRORS, OUTPUT
from router.web.chat_form import Names, completion
from router.web.errors import HTTPError, of_code
from router.web.finals import Final, choices_of
from router.web.phrases import reworded
from router.web.responses_form import response

_CANCELLED = {"code": "batch_cancelled", "message": "the batch was cancelled before this request was run"}
_EXPIRED = {"code": "batch_expired", "message": "the batch's window was over before this request had its answer"}
_PIECE = 256 * 1024
_TOKENS = ("input", "cached", "cache_write", "output", "reasoning")


def file(store: Store, file_id: str, now: datetime) -> File | None:
    """The result file of this id, unless its time is over; its size is counted."""
    batch = _batch(store, file_id)
    if batch is None or _over(store, batch, now):
        return None
    size = sum(len(piece) for piece in _lines(store, batch, file_id))
    name = f"{batch.id}_{'output' if file_id.startswith(OUTPUT) else 'error'}.jsonl"
    return File(file_id, batch.owner, name, "batch_output", size, batch.created_at)


def content(store: Store, file_id: str) -> Iterator[bytes] | None:
    """Its bytes, a piece at a time; None when it is no result file."""
    batch = _batch(store, file_id)
    return None if batch is None else _pieces(_lines(store, batch, file_id))


def _batch(store: Store, file_id: str) -> Asked | None:
    for prefix in (OUTPUT, ERRORS):
        if file_id.startswith(prefix) and "\0" not in file_id:
            return gateway_batches.find(store, f"batch_{file_id.removeprefix(prefix)}")
    return None


def expires_at(store: Store, file_id: str) -> datetime | None:
    """Until when a result file is given out; None: for ever, or it is none."""
    batch = _batch(store, file_id)
    return _until(store, batch) if batch else None


def _until(store: Store, batch: Asked) -> datetime | None:
    if batch.output_seconds is None or batch.submission_id is None:
        return None
    _, ended = gateway_batches.standing(store, batch.submission_id)
    return ended and ended + timedelta(seconds=batch.output_seconds)


def _over(store: Store, batch: Asked, now: datetime) -> bool:
    until = _until(store, batch)
    return until is not None and until <= now


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _lines(store: Store, batch: Asked, file_id: str) -> Iterator[bytes]:
    if batch.submission_id is None:
        return
    if file_id.startswith(OUTPUT):
        for row in gateway_batches.answers(store, batch.submission_id, [JobState.SUCCEEDED]):
            yield _line(row.job_id, row.custom_id, 200, _answer(row, batch.endpoint))
        return
    if batch.rejects_file_id:
        yield from files.parts(store, batch.rejects_file_id)
    for row in gateway_batches.answers(store, batch.submission_id, [JobState.FAILED, JobState.CANCELLED]):
        if row.state == JobState.CANCELLED:
            expired = batch.expired_at is not None and row.finished_at >= batch.expired_at
            error = _EXPIRED if expired else _CANCELLED
            yield orjson.dumps({"id": f"batch_req_{row.job_id}", "custom_id": row.custom_id, "response": None,
                                "error": error}) + b"\n"  # fmt: skip
        else:
            told = of_code(row.error_code, row.error or "the job failed")
            yield _line(row.job_id, row.custom_id, told.status, {"error": told.error})


def _answer(row: Answered, endpoint: str) -> dict[str, Any]:
    result = Text(row.text or "", row.finish_reason, refusal=row.refusal, tool_calls=row.tool_calls,
                  choices=row.choices)  # fmt: skip
    known = dict(zip(_TOKENS, row.tokens, strict=True))
    tokens = {name: count or 0 for name, count in known.items()} if known["input"] is not None else None
    final = Final(JobState.SUCCEEDED, choices_of(result), tokens)
    if endpoint == "/v1/responses":
        return response(row.job_id, row.model, int(row.finished_at.timestamp()), final, {})
    return completion(Names(row.job_id, row.model, int(row.finished_at.timestamp()), frozenset()), final)


def _line(job_id: str, custom_id: str | None, status: int, body: Mapping[str, Any]) -> bytes:
    response = {"status_code": status, "request_id": job_id, "body": body}
    line = {"id": f"batch_req_{job_id}", "custom_id": custom_id, "response": response, "error": None}
    return orjson.dumps(line) + b"\n"


def reject_line(batch_id: str, line: int, custom_id: str | None, reason: str) -> bytes:
    """The row of the error file for a line that could not be sent."""
    error = HTTPError(400, f"line {line}: {reworded(reason)}", code="invalid_request").error
    return _line(f"{batch_id}_{line}", custom_id, 400, {"error": error})
