"""Jobs with their answers: as JSONL, as CSV, or in the form of a Batch API's output file."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from csv import DictWriter
from datetime import datetime
from io import StringIO
from typing import Any, BinaryIO

from orjson import JSONDecodeError, dumps, loads

from db.engine import Store
from db.export import answers, export
from jobs.errors import UsageError
from router import show

Row = Mapping[str, Any]

FORMS = ("jsonl", "csv", "batch")
_COLUMNS = ("id", "client_key", "state", "class", "lane", "tier", "model", "provider", "submitted_at", "deadline_at",
            "finished_at", "cost_usd", "finish_reason", "truncated", "text", "tool_calls", "output", "tags",
            "error_code", "error")  # fmt: skip
_MARK = {"jsonl": "state", "batch": "response"}  # what a line has in this form alone
_TAIL = 1 << 16  # bytes of a file's end that are looked at together


def export_to(store: Store, state: str | None, since: datetime | None, path: str | None, form: str = "jsonl",
              after: str = "", *, resume: bool = False) -> int:  # fmt: skip
    """Write the lines to stdout, or to a file for its owner only, in the order in which the jobs came in; how many.

    `resume` goes on with a file where it ends, a line that was cut off anew. UsageError when it cannot be made.
    """
    if form not in FORMS:
        raise UsageError(f"--format {form!r} is not one of {', '.join(FORMS)}")
    if resume and (form == "csv" or not path):
        raise UsageError("--resume goes on with a file of lines: name it with -o, as jsonl or batch")
    out, count = sys.stdout.buffer, 0
    with ExitStack() as stack:
        if path:
            out = file = stack.enter_context(_opened(path, resume=resume))
            after = (_last(file, path, form) if resume else None) or after
        told = stack.enter_context(show.progress("exporting")) if path else None
        if form == "csv":
            out.write(",".join(_COLUMNS).encode() + b"\n")
        rows = (answers if form == "batch" else export)(store, state, since, after)
        for count, row in enumerate(rows, start=1):
            out.write(_LINES[form](row))
            if told:
                told(count)
        out.flush()
    return count


def _opened(path: str, *, resume: bool) -> BinaryIO:
    new = os.O_RDWR | os.O_CREAT | (0 if resume else os.O_EXCL)
    try:
        return os.fdopen(os.open(path, new, 0o600), "r+b")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _last(file: BinaryIO, path: str, form: str) -> str | None:
    """The job of a file's last whole line, where what is written next begins; UsageError for lines of another form."""
    size = file.seek(0, os.SEEK_END)
    tail, begin = b"", size
    while begin and tail.count(b"\n") < 2:
        begin = max(begin - _TAIL, 0)
        file.seek(begin)
        tail = file.read(size - begin)
    whole = tail[: tail.rfind(b"\n") + 1]
    try:
        line = loads(whole[:-1].rpartition(b"\n")[2]) if whole else {}
        last = str(line["id"]) if _MARK[form] in line else None
    except (JSONDecodeError, KeyError, TypeError):
        last = None
    if last is None and (whole or not b'{"id":'.startswith(tail[:6])):  # no line of ours, so it is not cut off
        raise UsageError(f"{path} does not end as an export of this form does; name a new file")
    file.truncate(begin + len(whole))
    file.seek(0, os.SEEK_END)
    return last


def _jsonl(row: Row) -> bytes:
    return dumps(row) + b"\n"


def _csv(row: Row) -> bytes:
    error = row["error"] or {"code": None, "message": None}
    flat = {**row, "error_code": error["code"], "error": error["message"]}
    flat |= {name: dumps(row[name]).decode() if row[name] else None for name in ("tags", "tool_calls")}
    line = StringIO()
    DictWriter(line, _COLUMNS, extrasaction="ignore", lineterminator="\n").writerow(flat)
    return line.getvalue().encode(errors="replace")


def _batch(row: Row) -> bytes:
    """As a line of a Batch API's output file; `id` is the job's, so that an export can be gone on with."""
    named = {"id": row["id"], "custom_id": row["client_key"] or row["id"]}
    if row["state"] != "succeeded":
        code, why = row["error_code"] or row["state"], row["error"] or f"the job was {row['state']}"
        return dumps({**named, "response": None, "error": {"code": code, "message": why}}) + b"\n"
    response = {"status_code": 200, "request_id": row["request_id"], "body": _completion(row)}
    return dumps({**named, "response": response, "error": None}) + b"\n"


def _completion(row: Row) -> Row:
    first = {"text": row["text"], "finish_reason": row["finish_reason"], "tool_calls": row["tool_calls"]}
    choices = [_choice(n, one, row["refusal"] if n == 0 else None) for n, one in enumerate(row["choices"] or [first])]
    finished = datetime.fromisoformat(row["finished_at"])
    return {"id": f"chatcmpl-{row['id']}", "object": "chat.completion", "created": int(finished.timestamp()),
            "model": row["model"], "choices": choices, "usage": _usage(row)}  # fmt: skip


def _choice(number: int, one: Row, refusal: str | None) -> Row:
    calls = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["raw"]}}
        for call in one["tool_calls"] or []
    ]
    message = {"role": "assistant", "content": one["text"] or None, "refusal": one.get("refusal") or refusal}
    if calls:
        message |= {"tool_calls": calls}
    return {"index": number, "message": message, "finish_reason": one["finish_reason"], "logprobs": one.get("logprobs")}


def _usage(row: Row) -> Row | None:
    if row["input_tokens"] is None:
        return None
    output = row["output_tokens"] or 0
    return {
        "prompt_tokens": row["input_tokens"],
        "completion_tokens": output,
        "total_tokens": row["input_tokens"] + output,
        "prompt_tokens_details": {"cached_tokens": row["cached_tokens"] or 0},
        "completion_tokens_details": {"reasoning_tokens": row["reasoning_tokens"] or 0},
    }


_LINES: Mapping[str, Callable[[Row], bytes]] = {"jsonl": _jsonl, "csv": _csv, "batch": _batch}
