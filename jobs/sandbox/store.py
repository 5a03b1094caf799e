"""What the sandbox remembers: files, batches, responses and the bill, in memory or in a folder that survives a kill."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from jobs.sandbox.bill import Bill, BillRow, Usage
from jobs.sandbox.blob import Blob
from jobs.sandbox.records import Batch, FileRecord, Stored
from jobs.sandbox.settings import SandboxError


class Journal:
    """JSON lines, each written through before `add` returns; a half-written last line is dropped when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            Blob(path).trim()
        self._file: BinaryIO = open(path, "ab", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115

    def read(self) -> Iterator[Any]:
        with self.path.open("rb") as file:
            for line in file:
                yield orjson.loads(line)

    def add(self, values: list[Any]) -> None:
        self._file.write(b"".join(orjson.dumps(value) + b"\n" for value in values))

    def clear(self) -> None:
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()


class Store:
    """Every change is journalled before it is answered for."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.files: dict[str, FileRecord] = {}
        self.batches: dict[str, Batch] = {}
        self.responses: dict[str, Stored] = {}
        self.clock_offset = 0.0
        self._blobs: dict[str, Blob] = {}
        self._journal: Journal | None = None
        self._bill_journal: Journal | None = None
        self.bill = Bill()
        if folder is not None:
            self._open(folder)

    def _open(self, folder: Path) -> None:
        try:
            (folder / "blobs").mkdir(parents=True, exist_ok=True)
            self._journal = Journal(folder / "state.jsonl")
            self._bill_journal = journal = Journal(folder / "bill.jsonl")
        except OSError as error:
            self.close()
            raise SandboxError(f"cannot keep the sandbox's state in {folder}: {error.strerror}") from error
        for entry in self._journal.read():
            self._replay(entry)
        rows = [BillRow(**{**row, "usage": Usage(**row["usage"])}) for row in journal.read()]
        self.bill = Bill(journal.add, rows)

    def _replay(self, entry: dict[str, Any]) -> None:
        for kind, value in entry.items():
            match kind:
                case "file":
                    self.files[value["id"]] = FileRecord(**value)
                case "gone":
                    self.files.pop(value, None)
                    self.batches.pop(value, None)
                case "batch":
                    self.batches[value["id"]] = Batch(**value)
                case "response":
                    self.responses[value["id"]] = Stored(**value)
                case "clock":
                    self.clock_offset = value

    def _note(self, entry: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.add([entry])

    def blob(self, name: str) -> Blob:
        if name not in self._blobs:
            self._blobs[name] = Blob(self.folder / "blobs" / name if self.folder is not None else None)
        return self._blobs[name]

    def drop_blob(self, name: str) -> None:
        self.blob(name).drop()
        del self._blobs[name]

    def save_file(self, record: FileRecord) -> None:
        self._note({"file": asdict(record)})
        self.files[record.id] = record

    def delete_file(self, record: FileRecord) -> None:
        """The record goes at once; its bytes go too, unless a batch that is not over still reads them."""
        self._note({"gone": record.id})
        del self.files[record.id]
        if not any(batch.input == record.content and not batch.final for batch in self.batches.values()):
            self.drop_blob(record.content)

    def save_batch(self, batch: Batch) -> None:
        self._note({"batch": asdict(batch)})
        self.batches[batch.id] = batch

    def save_response(self, response: Stored) -> None:
        self._note({"response": asdict(response)})
        self.responses[response.id] = response

    def delete_batch(self, batch: Batch) -> None:
        self._note({"gone": batch.id})
        del self.batches[batch.id]
        for name in (batch.input, batch.outputs):
            self.drop_blob(name)

    def save_clock(self, offset: float) -> None:
        self._note({"clock": offset})
        self.clock_offset = offset

    def reset(self) -> None:
        for name in list(self._blobs):
            self.drop_blob(name)
        if self.folder is not None:
            for path in (self.folder / "blobs").iterdir():
                path.unlink()
        for journal in (self._journal, self._bill_journal):
            if journal is not None:
                journal.clear()
        self.files.clear()
        self.batches.clear()
        self.responses.clear()
        self.bill.rows.clear()
        self.clock_offset = 0.0

    def close(self) -> None:
        for journal in (self._journal, self._bill_journal):
            if journal is not None:
                journal.close()
