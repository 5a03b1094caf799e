"""One row of a batch: checked when the batch is validated, answered when its turn comes (pure)."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from jobs.sandbox import answers, faults
from jobs.sandbox.bill import Usage
from jobs.sandbox.drills import unfinished
from jobs.sandbox.errors import ApiError, by_status
from jobs.sandbox.faults import Facts, Faults, only
from jobs.sandbox.models import OPENAI
from jobs.sandbox.settings import SandboxSettings
from jobs.sandbox.voices import ENDPOINTS, VOICES, Made

MAX_ROWS = 50_000
MAX_ERRORS = 100
UNRUN = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}


@dataclass(slots=True)
class Checked:
    """What validation learned: where the rows are, their model, and why the batch must fail, if it must."""

    endpoint: str
    rows: list[tuple[int, int]] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    model: str | None = None
    input_tokens: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append({"code": code, "message": message, "line": line, "param": param})

    def line(self, number: int, data: bytes, start: int, end: int) -> None:
        """Checks one line of the input file; blank lines are passed over."""
        text = data.strip()
        if not text:
            return
        try:
            row = orjson.loads(text)
        except orjson.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            self.fail("invalid_json_line", "This line is not parseable as valid JSON.", number)
            return
        self.rows.append((start, end))
        self.input_tokens += len(text) // 4
        fields = (("custom_id", str), ("method", str), ("url", str), ("body", dict))
        lacking = next((name for name, kind in fields if not isinstance(row.get(name), kind)), None)
        if lacking is None and not isinstance(row["body"].get("model"), str):
            lacking = "body.model"
        if lacking is not None:
            self.fail("missing_required_parameter", f"Missing required parameter: '{lacking}'.", number, lacking)
            return
        self._row(number, row)

    def _row(self, number: int, row: dict[str, Any]) -> None:
        custom_id, body = row["custom_id"], row["body"]
        if custom_id in self.ids:
            self.fail(
                "duplicate_custom_id",
                f"The custom_id '{custom_id}' for this request is a duplicate of another request. The "
                "custom_id parameter must be unique for each request in a batch.",
                number,
                "custom_id",
            )
        self.ids.add(custom_id)
        if row["method"] != "POST":
            self.fail(
                "invalid_method", f"The method '{row['method']}' is not supported. Only POST is.", number, "method"
            )
        if row["url"] != self.endpoint:
            self.fail(
                "url_mismatch",
                f"The URL '{row['url']}' for this request does not match the batch endpoint '{self.endpoint}'.",
                number,
                "url",
            )
        model = body["model"]
        if not OPENAI.match(model):
            self.fail(
                "model_not_found",
                f"The provided model '{model}' is not supported by the Batch API.",
                number,
                "body.model",
            )
        if self.model not in (None, model):
            self.fail(
                "model_mismatch",
                f"The model '{model}' for this request does not match the rest of the batch.",
                number,
                "body.model",
            )
        self.model = self.model or model
        if body.get("stream"):
            self.fail("streaming_unsupported", "Streaming is not supported in the Batch API.", number, "body.stream")

    def finish(self, api: str) -> None:
        if api == "messages":
            return
        if not self.rows and not self.errors:
            self.fail(
                "empty_file", "The input file is empty. Please ensure that the batch contains at least one request."
            )
        if len(self.rows) > MAX_ROWS:
            self.fail("too_many_tasks", f"The batch has {len(self.rows)} requests; the limit is {MAX_ROWS}.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row's end: its line, whether that is a success, and what it costs if it is."""

    custom_id: str
    line: bytes
    good: bool
    model: str = ""
    ident: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was sent, with what its answer needs beside it."""

    custom_id: str
    body: dict[str, Any]
    raw: bytes
    ident: str
    now: int


def read(api: str, raw: bytes, ident: str, now: int) -> Row:
    row = orjson.loads(raw)
    return Row(row["custom_id"], row["params"] if api == "messages" else row["body"], raw, ident, now)


def answered(api: str, row: Row, settings: SandboxSettings, drills: Faults) -> Outcome:
    """The row run as a plain request; a request that the provider refuses ends in the error file."""
    voice = VOICES[api]
    try:
        ask = voice.read(row.body, "2026-10-21")
        if api == "messages" and ask.stream:
            return refused(api, row, ApiError(400, "stream: Extra inputs are not permitted"))
        said = [answers.answer(ask, settings, choice) for choice in range(ask.choices)]
    except ApiError as error:
        return refused(api, row, error)
    path = "/v1/messages/batches" if api == "messages" else "/v1/batches"
    facts = Facts(path, "POST", ask.model, "batch", row.raw, row.custom_id)
    hit = drills.take(faults.ROW, facts) if drills.items else []
    for fault in hit:
        said = [answers.bent(one, fault.kind) for one in said]
    usage = answers.usage(ask, said)
    shown = None if only(hit, "no_usage") else usage
    body = voice.whole(Made(ask, row.body, said, shown, row.ident, row.now, "batch"))
    if only(hit, "no_finish"):
        body = unfinished(body)
    if api == "messages":
        line = _line({"custom_id": row.custom_id, "result": {"type": "succeeded", "message": body}})
    else:
        line = _response(row, 200, body)
    return Outcome(row.custom_id, line, True, ask.model, row.ident, usage)


def refused(api: str, row: Row, error: ApiError) -> Outcome:
    if api == "messages":
        line = _line(
            {"custom_id": row.custom_id, "result": {"type": "errored", "error": error.anthropic(f"req_{row.ident}")}}
        )
    else:
        line = _response(row, error.status, error.openai())
    return Outcome(row.custom_id, line, False)


def failed(api: str, row: Row, drill: dict[str, Any]) -> Outcome | None:
    """A row under the drill fail_rows, in the wanted variant; None is a row that is in neither file."""
    error = by_status(drill["status_code"], drill["message"], drill["code"])
    match drill["variant"]:
        case "missing":
            return None
        case "zero" if api != "messages":
            return Outcome(row.custom_id, _response(row, 0, None), False)
        case "null_response" if api != "messages":
            return unrun(api, row, drill["code"] or "server_error", error.message)
    return refused(api, row, error)


def unrun(api: str, row: Row, code: str, message: str) -> Outcome:
    """A row that never ran."""
    if api == "messages":
        kind = "canceled" if code == "batch_cancelled" else "expired"
        return Outcome(row.custom_id, _line({"custom_id": row.custom_id, "result": {"type": kind}}), False)
    line = {
        "id": f"batch_req_{row.ident}",
        "custom_id": row.custom_id,
        "response": None,
        "error": {"code": code, "message": message},
    }
    return Outcome(row.custom_id, _line(line), False)


def reread(line: bytes) -> tuple[str, bool, bool]:
    """Of a line that was written before a restart: its custom_id, whether it is a success, and whether the row ran."""
    found = orjson.loads(line)
    if "result" in found:
        kind = found["result"]["type"]
        return found["custom_id"], kind == "succeeded", kind in ("succeeded", "errored")
    unrun_codes = [code for code, _ in UNRUN.values()]
    status = found["response"]["status_code"] if found["response"] else 0
    return found["custom_id"], status == 200, found["error"] is None or found["error"]["code"] not in unrun_codes


def _response(row: Row, status: int, body: Any) -> bytes:
    response = {"status_code": status, "request_id": f"req_{row.ident}", "body": body}
    return _line({"id": f"batch_req_{row.ident}", "custom_id": row.custom_id, "response": response, "error": None})


def _line(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def supported(endpoint: Any) -> str:
    if endpoint not in ENDPOINTS:
        known = ", ".join(map(repr, ENDPOINTS))
        raise ApiError(
            400,
            f"Invalid value: '{endpoint}'. Supported values are: {known} (the sandbox has no others).",
            param="endpoint",
            code="invalid_value",
        )
    return str(endpoint)
