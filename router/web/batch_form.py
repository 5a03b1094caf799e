"""A batch as OpenAI writes it: one of its eight statuses, its files, its times. No I/O."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from db.gateway_batches import Asked
from db.states import FINAL, JobState
from router.web.errors import HTTPError
from router.web.phrases import reworded

OUTPUT, ERRORS = "file-output-", "file-errors-"
OVER = ("completed", "cancelled", "expired")
LEAST_KEPT_S, MOST_KEPT_S = 3600, 2_592_000
_MOST_PAIRS, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512


def view(batch: Asked, counts: Mapping[str, int], ended: datetime | None) -> dict[str, Any]:
    """The batch, whose jobs stand so, the last of them since `ended`."""
    word = status(batch, counts)
    good = counts.get(JobState.SUCCEEDED, 0)
    bad = counts.get(JobState.FAILED, 0) + counts.get(JobState.CANCELLED, 0) + batch.rejected
    over, plain = word in OVER, batch.id.removeprefix("batch_")
    first = {"code": batch.error_code, "message": reworded(batch.error or ""), "line": None, "param": None}
    at = stamp(ended or batch.read_at)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": [first]} if batch.error_code else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": word,
        "output_file_id": f"{OUTPUT}{plain}" if over and good else None,
        "error_file_id": f"{ERRORS}{plain}" if over and bad else None,
        "created_at": stamp(batch.created_at),
        "in_progress_at": stamp(batch.read_at) if batch.submission_id else None,
        "expires_at": stamp(batch.expires_at),
        "finalizing_at": at if word == "completed" else None,
        "completed_at": at if word == "completed" else None,
        "failed_at": stamp(batch.read_at) if word == "failed" else None,
        "expired_at": stamp(batch.expired_at) if word == "expired" else None,
        "cancelling_at": stamp(batch.cancelled_at),
        "cancelled_at": at if word == "cancelled" else None,
        "request_counts": {"total": sum(counts.values()) + batch.rejected, "completed": good, "failed": bad},
        "metadata": batch.metadata,
    }


def status(batch: Asked, counts: Mapping[str, int]) -> str:
    """OpenAI's word for where it stands."""
    if batch.error_code is not None:
        return "failed"
    if batch.read_at is None:
        return "validating"
    if any(number for state, number in counts.items() if state not in FINAL):
        if batch.cancelled_at:
            return "cancelling"
        return "finalizing" if batch.expired_at else "in_progress"
    if batch.cancelled_at:
        return "cancelled"
    return "expired" if batch.expired_at else "completed"


def stamp(moment: datetime | None) -> int | None:
    """Seconds since 1970, as OpenAI writes times."""
    return int(moment.timestamp()) if moment else None


def wrong(said: str, param: str) -> HTTPError:
    """400 for one field."""
    return HTTPError(400, said, code="invalid_request", param=param)


def check_metadata(metadata: Any) -> None:
    """HTTPError unless it is what OpenAI takes."""
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > _MOST_PAIRS:
        raise wrong(f"metadata must be an object of at most {_MOST_PAIRS} names", "metadata")
    for name, value in metadata.items():
        if not isinstance(value, str) or len(name) > _LONGEST_NAME or len(value) > _LONGEST_VALUE or "\0" in value:
            raise wrong(f"metadata: {name[:80]!r} must be text, and not longer than OpenAI allows", "metadata")


def output_seconds(wish: Any) -> int | None:
    """How long the result files are wanted, from the end on; None: for ever. HTTPError for what is no such wish."""
    if wish is None:
        return None
    seconds = wish.get("seconds") if isinstance(wish, dict) and wish.get("anchor") == "created_at" else None
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not LEAST_KEPT_S <= seconds <= MOST_KEPT_S:
        said = f'must be {{"anchor": "created_at", "seconds": {LEAST_KEPT_S} to {MOST_KEPT_S}}}'
        raise wrong(f"output_expires_after {said}", "output_expires_after")
    return seconds
