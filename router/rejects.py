"""What becomes of a row that cannot be sent: why, in one line, and the file that keeps it to be mended."""

import os
from base64 import b64encode
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobs.errors import UsageError


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot be sent; `raw` is the row as it stood in the file, without its line end."""

    line: int
    reason: str
    raw: bytes
    custom_id: str | None


class Rejects:
    """The rejects file of one submission, made at the first reject; `path` is None while there is none.

    NAME.rejects.jsonl beside the input NAME.*, or stdin.rejects.jsonl in the current folder without an input file;
    mode 0600, and never an earlier one. `jq -r .raw` gives the rows back.
    """

    def __init__(self, source: Path | None) -> None:
        self.path: Path | None = None
        self._stem = source.with_suffix("") if source else Path("stdin")
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._file:
                self._file.close()
        except OSError as failed:
            raise self._lost(failed) from failed

    def add(self, reject: Reject) -> None:
        """Keeps the row; UsageError when the folder or the disk does not take it, so that none is lost unsaid."""
        try:
            self._file = self._file or self._open()
            self._file.write(orjson.dumps(_record(reject), option=orjson.OPT_APPEND_NEWLINE))
            self._file.flush()  # at once: the row is counted as rejected next
        except OSError as failed:
            raise self._lost(failed) from failed

    def _open(self) -> BinaryIO:
        for number in count(1):
            path = Path(f"{self._stem}{'' if number == 1 else f'-{number}'}.rejects.jsonl")
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            self.path = path
            return os.fdopen(descriptor, "wb")
        raise AssertionError("count ends")

    def _lost(self, failed: OSError) -> UsageError:
        path = self.path or f"{self._stem}.rejects.jsonl"
        return UsageError(
            f"{path}: rejected rows cannot be kept there: {failed.strerror}; "
            "put the input file in a folder that can be written and submit it again: what was accepted is known"
        )


def _record(reject: Reject) -> dict[str, object]:
    """`raw` as text; bytes that are not UTF-8 stand in it as \\xNN, and whole in `raw_base64`."""
    record: dict[str, object] = {"line": reject.line, "reason": reject.reason, "custom_id": reject.custom_id}
    try:
        record["raw"] = reject.raw.decode()
    except UnicodeDecodeError:
        record["raw"] = reject.raw.decode(errors="backslashreplace")
        record["raw_base64"] = b64encode(reject.raw).decode()
    return record


def brief(value: Any) -> str:
    """What stands there, short enough for a reason."""
    if value is None:
        return "missing"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value)[:60]


_SAYS = {
    "missing": "is missing",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "string_type": "must be text",
    "list_type": "must be a list",
    "int_type": "must be a whole number",
    "string_too_short": "is empty",
    "too_short": "is empty",
}


def condense(error: ValidationError) -> str:
    """The first fault in one line, as `messages.0.role: must be one of …`; of a union, the arm that came furthest."""
    faults = [(_place(fault), fault) for fault in error.errors(include_url=False, include_input=False)]
    first = faults[0][0]
    near = [(place, fault) for place, fault in faults if place[: len(first)] == first]
    deepest, _ = max(near, key=lambda pair: len(pair[0]))
    says = dict.fromkeys(_say(fault) for place, fault in near if place == deepest)
    if near[0][1]["type"] == "value_error":  # a check of our own says it all
        return next(iter(says))
    return f"{'.'.join(deepest)}: {' or '.join(says)}"


def _place(fault: ErrorDetails) -> list[str]:
    """Where in the row, in the row's own words, without the names of a union's arms."""
    parts = [str(part) for part in fault["loc"] if part != "str" and "[" not in str(part)]
    return ["custom_id" if part == "client_key" else part for part in parts]


def _say(fault: ErrorDetails) -> str:
    match fault["type"], fault.get("ctx", {}):
        case "value_error", {"error": error}:
            return str(error)
        case "literal_error", {"expected": expected}:
            return "must be one of " + str(expected).replace("'", "").replace(" or ", ", ")
        case "string_too_long", {"max_length": most}:
            return f"must be at most {most} characters"
        case kind, _:
            return _SAYS.get(kind, fault["msg"]).replace("Input should be", "must be")
