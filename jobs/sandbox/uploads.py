"""`/v1/files`: upload, show, list, download, delete."""

from jobs.sandbox import faults
from jobs.sandbox.blob import Blob
from jobs.sandbox.clock import Clock
from jobs.sandbox.errors import ApiError, invalid, missing
from jobs.sandbox.faults import Facts, Fault, Faults, only
from jobs.sandbox.http import Exchange, Request
from jobs.sandbox.ids import Ids
from jobs.sandbox.multipart import Multipart, boundary_of
from jobs.sandbox.paging import page
from jobs.sandbox.records import MONTH, FileRecord
from jobs.sandbox.settings import SandboxSettings
from jobs.sandbox.store import Store

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
PIECE = 256 * 1024


class Upload:
    """A file on its way in; its bytes are dropped again unless it is kept."""

    def __init__(self, request: Request, store: Store, ident: str, limit: int) -> None:
        self.store = store
        self.id = f"file-{ident}"
        self.kept = False
        self.form: Multipart | None = None
        self.request = request
        self.limit = limit

    @property
    def blob(self) -> Blob:
        return self.store.blob(self.id)

    def feed(self, data: bytes) -> None:
        if self.form is None:
            self.form = Multipart(boundary_of(self.request.header(b"content-type")), self.limit, self.blob.append)
        self.form.feed(data)

    def close(self) -> None:
        if not self.kept:
            self.store.drop_blob(self.id)


class Uploads:
    def __init__(self, settings: SandboxSettings, store: Store, clock: Clock, ids: Ids) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.ids = ids

    def sink(self, request: Request) -> Upload:
        return Upload(request, self.store, self.ids.next(), self.settings.max_file_bytes)

    def create(self, upload: Upload, drills: list[Fault]) -> FileRecord:
        """Checks the form and keeps the file; the lines in it are only looked at by a batch."""
        form = upload.form
        if form is None or not form.finished:
            raise invalid("The multipart body ended before its last boundary.")
        purpose = form.fields.get("purpose")
        if purpose is None:
            raise missing("purpose")
        if purpose not in PURPOSES:
            raise invalid(f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'", "purpose")
        if not form.has_file:
            raise missing("file")
        name = form.file_name or ""
        if purpose == "batch" and not name.endswith(".jsonl"):
            raise invalid("Invalid file format for Batch API. Must be .jsonl", "file")
        late = only(drills, "late_list")
        now = self.clock.now()
        record = FileRecord(
            upload.id,
            name or "upload",
            purpose,
            form.size,
            now,
            now + (late["seconds"] if late else self.settings.late_list_s),
            upload.id,
            self._expiry(form, now),
        )
        upload.kept = True
        self.store.save_file(record)
        return record

    def _expiry(self, form: Multipart, now: float) -> int | None:
        seconds = form.fields.get("expires_after[seconds]")
        if seconds is not None:
            if not seconds.isdigit() or not 3600 <= int(seconds) <= MONTH:
                raise invalid(
                    "Invalid 'expires_after.seconds': expected an integer from 3600 to 2592000.",
                    "expires_after.seconds",
                )
            return int(now) + int(seconds)
        return int(now) + MONTH if form.fields.get("purpose") == "batch" else None

    def get(self, ident: str) -> FileRecord:
        record = self.store.files.get(ident)
        if record is None or (record.expires_at is not None and record.expires_at <= self.clock.now()):
            raise ApiError(404, f"No such File object: {ident}", param="id")
        return record

    def listing(self, query: dict[str, str]) -> dict[str, object]:
        now = self.clock.now()
        wanted = query.get("purpose")
        shown = [
            record
            for record in self.store.files.values()
            if record.listed_at <= now
            and wanted in (None, record.purpose)
            and (record.expires_at is None or record.expires_at > now)
        ]
        if query.get("order", "desc") == "desc":
            shown.reverse()
        return page([record.view() for record in shown], query, 10_000, 10_000)

    def delete(self, ident: str) -> dict[str, object]:
        self.store.delete_file(self.get(ident))
        return {"id": ident, "object": "file", "deleted": True}

    async def content(self, exchange: Exchange, ident: str) -> None:
        """The bytes, sent in pieces while the reader keeps up."""
        await send_blob(exchange, self.store.blob(self.get(ident).content), b"application/octet-stream")


async def send_blob(exchange: Exchange, blob: Blob, kind: bytes) -> None:
    size = len(blob)
    exchange.begin(200, kind, size)
    for at in range(0, size, PIECE):
        exchange.send(blob.read(at, min(PIECE, size - at)))
        await exchange.drain()


def create_drills(drills: Faults, extra: Faults, facts: Facts) -> list[Fault]:
    """The drills that hit a create: those of files and batches, and how its answer is lost."""
    if not drills.items and not extra.items:
        return []
    kinds = faults.CREATE if facts.path == "/v1/files" else faults.CREATE + faults.BATCH
    return drills.take(kinds, facts) + extra.take(kinds, facts)
