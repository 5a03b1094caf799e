"""A Batch API server on loopback that plays a personality, with a bill of its own: which row ran, and how often.

A prompt with `!400` is refused by the model behind the batch; a line with `!json` counts as no JSON.
"""

import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.personalities import Fault, Personality, Play, Raw

FINAL = ("completed", "failed", "expired", "cancelled")
MODEL = "gpt-6-luna"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def answer_to(prompt: str) -> str:
    """The text that this server answers a prompt with."""
    return f"answer to: {prompt}"


class Refused(Exception):
    """An answer with this status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Held:
    """A batch as the server keeps it."""

    id: str
    raw: Raw
    play: Play
    lines: list[bytes]
    status: str
    step: int = 0
    stands: bool = False
    ran: list[Raw] = field(default_factory=list)
    failed: list[Raw] = field(default_factory=list)
    errors: list[Raw] = field(default_factory=list)
    files: dict[str, str | None] = field(default_factory=dict)


class Quirky:
    """The server's state. Each new batch takes the next of the plays; after them every batch is a plain one."""

    def __init__(self, who: Personality, *plays: Play) -> None:
        self.who, self.plays = who, list(plays)
        self.url = ""
        self.bill: Counter[str] = Counter()
        self.asked: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, Held] = {}
        self.lock = threading.Lock()
        self.clock: Callable[[], float] = time.time
        self._dice = random.Random(7)

    def restart(self) -> None:
        """Kill the server and start it again."""
        if self.who.restart == "forgets":
            self.files.clear()
            self.batches.clear()
        for held in self.batches.values():
            held.stands = self.who.restart == "stands"

    def made(self, path: str) -> int:
        """How many POSTs to this path it has seen."""
        return self.asked.count(("POST", path))

    # ---- files ----

    def upload(self, name: str, data: bytes) -> Raw:
        if self.who.wants_jsonl and not name.endswith(".jsonl"):
            raise Refused(400, "Invalid file format for Batch API. Must be .jsonl")
        bad = [number for number, line in enumerate(data.split(b"\n"), 1) if b"!json" in line]
        if bad and self.who.bad_line == "upload":
            raise Refused(400, f"Invalid JSON at line {bad[0]} of the uploaded file")
        return self._file(self._keep(data, name))

    def content(self, file_id: str) -> bytes:
        if file_id not in self.files:
            raise Refused(404, f"No such File object: {file_id}")
        return self.files[file_id][1]

    def delete(self, file_id: str) -> Raw:
        self.content(file_id)
        del self.files[file_id]
        return {"id": file_id, "object": "file", "deleted": True}

    def list_files(self) -> Raw:
        return _list([self._file(file_id) for file_id in reversed(self.files)])

    def _file(self, file_id: str) -> Raw:
        name, data = self.files[file_id]
        times = {"created_at": int(self.clock()), "bytes": len(data)}
        return {"id": file_id, "object": "file", "filename": name, "status": self.who.file_status, **times}

    def _keep(self, data: bytes, name: str = "out") -> str:
        file_id = self._id("file-")
        self.files[file_id] = name, data
        return file_id

    def _id(self, prefix: str) -> str:
        return str(uuid.uuid4()) if self.who.bare_ids else prefix + uuid.uuid4().hex

    # ---- batches ----

    def create(self, asked: Raw) -> Raw:
        if asked["completion_window"] != "24h":
            raise Refused(self.who.window_refused, "completion_window must be 24h")
        lines = [line for line in self.content(asked["input_file_id"]).split(b"\n") if line.strip()]
        now = int(self.clock())
        raw = {**asked, "object": "batch", "created_at": now, "expires_at": now + 86400}
        play = self.plays.pop(0) if self.plays else Play()
        held = Held(self._id("batch_"), raw, play, lines, self.who.statuses[0])
        self.batches[held.id] = held
        return self._show(held)

    def poll(self, batch_id: str) -> Raw:
        held = self._held(batch_id)
        if not held.stands and held.status not in (*FINAL, held.play.end):
            self._step(held)
        return self._show(held)

    def list_batches(self) -> Raw:
        return _list([self._show(held) for held in reversed(self.batches.values())])

    def cancel(self, batch_id: str) -> Raw:
        held = self._held(batch_id)
        again = self.who.cancel_again if held.status.startswith("cancel") else self.who.cancel_ended
        if held.status in (*FINAL, "cancelling") and again != 200:
            raise Refused(again, f"cannot cancel a batch that is {held.status}")
        if held.status not in FINAL:
            held.status = "cancelling"
            if self.who.cancels_at_once and not held.stands:
                self._finish(held, "cancelled")
        return self._show(held)

    def _held(self, batch_id: str) -> Held:
        if batch_id not in self.batches:
            raise Refused(self.who.unknown_batch, f"No batch found with id '{batch_id}'")
        return self.batches[batch_id]

    def _step(self, held: Held) -> None:
        if held.status == "cancelling":
            self._finish(held, "cancelled")
            return
        if held.status == "in_progress" and not held.play.end:
            return
        held.step += 1
        held.status = self.who.statuses[held.step]
        if held.status == "in_progress":
            held.errors = self._invalid(held)
            if held.errors:
                held.status = "failed"
                return
            for line in held.lines[: held.play.runs]:
                self._run(held, line)
        elif held.step == len(self.who.statuses) - 1:
            self._finish(held, held.play.end)

    def _invalid(self, held: Held) -> list[Raw]:
        found = []
        for number, line in enumerate(held.lines, 1):
            if b"!json" in line and self.who.bad_line in ("line", "text"):
                text = "This line is not parseable as valid JSON."
                named = {"code": "invalid_json_line", "line": number, "message": text}
                told = {"code": "validation_error", "line": None, "message": f"Invalid JSON at line {number}: {text}"}
                found.append(named if self.who.bad_line == "line" else told)
            elif self.who.knows_models and json.loads(line)["body"]["model"] != MODEL:
                text = "The model does not exist or is not supported"
                found.append({"code": "model_not_found", "line": number, "message": text, "param": "body.model"})
        return found[:1] if self.who.bad_line == "text" else found

    # ---- rows ----

    def _run(self, held: Held, line: bytes) -> None:
        if b"!json" in line:
            return
        row = json.loads(line)
        prompt = row["body"]["messages"][-1]["content"]
        if "!400" in prompt and self.who.failing != "never":
            held.failed.append(self._failing(row["custom_id"]))
            return
        self.bill[row["custom_id"]] += 1
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer_to(prompt)}}
        body = {"id": "chatcmpl-1", "object": "chat.completion", "model": row["body"]["model"], "choices": [choice],
                "usage": USAGE}  # fmt: skip
        sent = json.dumps(body) if self.who.string_bodies else body
        whole = {"id": f"batch_req_{len(held.ran)}", "custom_id": row["custom_id"], "error": None,
                 "response": {"status_code": 200, "request_id": "req", "body": sent}}  # fmt: skip
        held.ran.append({key: whole[key] for key in self.who.row_keys})

    def _failing(self, custom_id: str) -> Raw:
        row: Raw = {"id": "batch_req_x", "custom_id": custom_id}
        text = "Error code: 400 - the prompt is refused"
        if self.who.failing == "no_code":
            return row | {"error": {"type": "request_failed", "message": text}}
        if self.who.failing == "inference_failed":
            return row | {"response": None, "error": {"code": "inference_failed", "message": text}}
        told = {"error": {"message": text, "type": "invalid_request_error", "code": "bad_prompt", "param": None}}
        return row | {"response": {"status_code": 400, "request_id": "req", "body": told}, "error": None}

    def _finish(self, held: Held, status: str) -> None:
        held.status = status
        if not held.play.files or (status == "cancelled" and not self.who.shows_cancelled):
            return
        self._dice.shuffle(held.ran)
        idle = held.lines[held.play.runs :] if held.play.runs is not None and held.play.error_rows else []
        code = {"code": f"batch_{status}", "message": f"This request was not executed: the batch {status}."}
        unrun = [{"custom_id": json.loads(line)["custom_id"], "response": None, "error": code} for line in idle]
        output, errors = held.play.output(held.ran), held.failed + unrun
        held.files["output_file_id"] = self._keep(held.play.data(self._jsonl(output))) if output else None
        empty = self.who.empty_error_file
        held.files["error_file_id"] = self._keep(self._jsonl(errors)) if errors or empty else None

    def _jsonl(self, rows: list[Raw]) -> bytes:
        data = b"\n".join(json.dumps(row).encode() for row in rows)
        return data + b"\n" if rows and self.who.last_newline else data

    def _show(self, held: Held) -> Raw:
        total = {"total": len(held.lines), "completed": len(held.ran), "failed": len(held.failed)}
        counts = total if held.step or self.who.early_counts else None
        usage = {"usage": {"input_tokens": 11 * len(held.ran), "output_tokens": 7 * len(held.ran)}}
        files = {"output_file_id": None, "error_file_id": None, **held.files}
        errors = {"object": "list", "data": held.errors} if held.errors else None
        raw = {"id": held.id, "status": held.status, "request_counts": counts, "errors": errors}
        return held.play.batch({**held.raw, **raw, **files, **(usage if self.who.usage else {})})


def _list(entries: list[Raw]) -> Raw:
    return {"object": "list", "data": entries, "has_more": False}
