"""How independent Batch API servers behave, as data: what tests/quirky.py plays."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

Raw = dict[str, Any]


def same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Personality:
    """The manners of one server; the defaults are what OpenAI documents."""

    name: str
    statuses: tuple[str, ...] = ("validating", "in_progress", "finalizing", "completed")  # one step a poll
    bare_ids: bool = False
    file_status: str = "processed"
    wants_jsonl: bool = True  # an upload under another name is a 400
    string_bodies: bool = False
    row_keys: tuple[str, ...] = ("id", "custom_id", "response", "error")
    failing: str = "response"  # or "no_code" (type and message, no response), "inference_failed", "never"
    empty_error_file: bool = False  # an id of a 0-byte file when nothing failed
    last_newline: bool = True
    early_counts: bool = True  # else null until it runs
    usage: bool = False
    bad_line: str = "line"  # or "ignored", "text", "upload"
    knows_models: bool = True  # a line with another model fails the batch
    unknown_batch: int = 404
    cancels_at_once: bool = False
    cancel_again: int = 400
    cancel_ended: int = 400  # a cancel of a batch that has completed
    shows_cancelled: bool = True  # the files of a cancelled batch
    restart: str = "resumes"  # or "forgets", "stands"
    error: Callable[[str], Raw] = lambda text: {"error": {"message": text, "type": "invalid_request_error"}}
    window_refused: int = 400


OPENAI = Personality("OpenAI")
AIMOCK = Personality(
    "aimock",
    statuses=("validating", "in_progress", "completed"),
    wants_jsonl=False,
    failing="never",
    bad_line="ignored",
    knows_models=False,
    restart="forgets",
)
OGX = Personality(
    "OGX",
    statuses=("validating", "in_progress", "completed"),
    wants_jsonl=False,
    string_bodies=True,
    row_keys=("id", "custom_id", "response"),
    failing="no_code",
    empty_error_file=True,
    last_newline=False,
    early_counts=False,
    cancel_again=200,
    cancel_ended=409,
    shows_cancelled=False,
    restart="stands",
    error=lambda text: {"error": {"message": text}},
)
AIBRIX = Personality(
    "AIBrix",
    statuses=("scheduling", "in_progress", "finalizing", "completed"),
    bare_ids=True,
    file_status="uploaded",
    failing="inference_failed",
    early_counts=False,
    usage=True,
    bad_line="text",
    knows_models=False,
    cancels_at_once=True,
    cancel_again=409,
    cancel_ended=409,
    error=lambda text: {"detail": text},
)
LITELLM = replace(
    OGX,
    name="LiteLLM over OGX",
    wants_jsonl=True,
    bad_line="upload",
    unknown_batch=500,
    cancel_ended=500,
    window_refused=500,
    error=lambda text: {"error": {"message": text, "type": "None", "param": "None", "code": "500"}},
)
SERVERS = (AIMOCK, OGX, AIBRIX, LITELLM)


@dataclass(frozen=True, slots=True)
class Play:
    """What becomes of one batch. The functions change what is sent of it: the object, the rows, the output file."""

    end: str = "completed"  # any word; "" stays in progress until it is cancelled
    runs: int | None = None  # rows that run before that; None: all
    files: bool = True  # whether there is an output and an error file at the end
    error_rows: bool = True  # whether the error file names the rows that did not run
    batch: Callable[[Raw], Raw] = same
    output: Callable[[list[Raw]], list[Raw]] = same
    data: Callable[[bytes], bytes] = same


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer to the next request of this method and path pattern in place of the server's own."""

    method: str
    path: str
    status: int = 0  # 0: hang up
    body: bytes = b'{"error": {"message": "fault"}}'
    done: bool = False  # what was asked is done, and only the answer is lost
