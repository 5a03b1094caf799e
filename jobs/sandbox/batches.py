"""`/v1/batches` and `/v1/messages/batches`: create, show, list, cancel."""

import re
from typing import Any

import orjson

from jobs.sandbox.checks import metadata, options
from jobs.sandbox.clock import Clock
from jobs.sandbox.errors import ApiError, invalid, missing
from jobs.sandbox.faults import CREATE, Fault, only
from jobs.sandbox.ids import Ids
from jobs.sandbox.messages import refused
from jobs.sandbox.paging import message_page, page
from jobs.sandbox.records import MONTH, Batch
from jobs.sandbox.rows import supported
from jobs.sandbox.runs import Runs
from jobs.sandbox.settings import SandboxSettings
from jobs.sandbox.store import Store
from jobs.sandbox.voices import ENDPOINTS

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
MAX_MESSAGES = 100_000


class Batches:
    def __init__(self, settings: SandboxSettings, store: Store, clock: Clock, ids: Ids, runs: Runs) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.ids = ids
        self.runs = runs

    def _begun(self, batch: Batch, drills: list[Fault]) -> Batch:
        late = only(drills, "late_list")
        batch.listed_at = batch.created + (late["seconds"] if late else self.settings.late_list_s)
        batch.drills = [{"kind": fault.kind, **fault.params} for fault in drills if fault.kind not in CREATE]
        self.store.save_batch(batch)
        self.runs.start(batch)
        return batch

    def create(self, body: dict[str, Any], drills: list[Fault]) -> dict[str, Any]:
        """An OpenAI batch over a file that is there; its lines are checked later."""
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                raise missing(name)
        endpoint = supported(body["endpoint"])
        if body["completion_window"] != "24h":
            raise invalid(
                f"Invalid value: '{body['completion_window']}'. Value must be '24h'.",
                "completion_window",
                "invalid_value",
            )
        pairs = metadata(body.get("metadata"))
        seconds = options(body, "output_expires_after").get("seconds")
        if seconds is not None and (not isinstance(seconds, int) or not 3600 <= seconds <= MONTH):
            raise invalid(
                "Invalid 'output_expires_after.seconds': expected an integer from 3600 to 2592000.",
                "output_expires_after.seconds",
            )
        file = self.store.files.get(body["input_file_id"])
        if file is None:
            raise invalid(
                f"Cannot find file {body['input_file_id']}, or project proj_sandbox does not have access to it.",
                "input_file_id",
            )
        if file.purpose != "batch":
            raise invalid(f"Invalid purpose '{file.purpose}' of file {file.id}: expected 'batch'.", "input_file_id")
        now = self.clock.now()
        batch = Batch(
            f"batch_{self.ids.next()}", ENDPOINTS[endpoint], endpoint, file.content, file.id, now, now, pairs, seconds
        )
        return self._begun(batch, drills).view()

    def _found(self, ident: str, *, messages: bool) -> Batch:
        batch = self.store.batches.get(ident)
        if batch is None or (batch.api == "messages") is not messages or self._forgotten(batch):
            raise ApiError(
                404, f"No such Batch object: {ident}" if not messages else f"Batch {ident} was not found", param="id"
            )
        return batch

    def _forgotten(self, batch: Batch) -> bool:
        drill = batch.drill("forget")
        return drill is not None and self.clock.now() >= batch.created + drill["seconds"]

    def _listed(self, *, messages: bool) -> list[Batch]:
        now = self.clock.now()
        found = [
            one
            for one in self.store.batches.values()
            if (one.api == "messages") is messages and one.listed_at <= now and not self._forgotten(one)
        ]
        return found[::-1]

    def get(self, ident: str) -> dict[str, Any]:
        return self._found(ident, messages=False).view()

    def listing(self, query: dict[str, str]) -> dict[str, Any]:
        return page([batch.view() for batch in self._listed(messages=False)], query)

    def cancel(self, ident: str) -> dict[str, Any]:
        batch = self._found(ident, messages=False)
        if batch.final:
            raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.", code="invalid_batch_status")
        self._cancel(batch)
        return batch.view()

    def _cancel(self, batch: Batch) -> None:
        if batch.cancel_at is None:
            batch.cancel_at = batch.stamps["cancelling_at"] = self.clock.now()
            batch.status = "cancelling"
            self.store.save_batch(batch)
            self.clock.ring()

    def create_messages(self, body: dict[str, Any], drills: list[Fault], base: str) -> dict[str, Any]:
        """An Anthropic batch: only the custom_ids are checked now, the params when their turn comes."""
        requests = body.get("requests")
        if not isinstance(requests, list) or not requests:
            raise refused("requests: List should have at least 1 item")
        if len(requests) > MAX_MESSAGES:
            raise refused(
                f"requests: List should have at most {MAX_MESSAGES} items after validation, not {len(requests)}"
            )
        seen: set[str] = set()
        for at, request in enumerate(requests):
            custom_id = request.get("custom_id") if isinstance(request, dict) else None
            if not isinstance(custom_id, str) or not isinstance(request.get("params"), dict):
                raise refused(f"requests.{at}: custom_id and params: Field required")
            if len(custom_id) > 64:
                raise refused(f"requests.{at}.custom_id: String should have at most 64 characters")
            if not CUSTOM_ID.match(custom_id):
                raise refused(f"requests.{at}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
            if custom_id in seen:
                raise refused(f"requests: custom_id '{custom_id}' is not unique")
            seen.add(custom_id)
        now = self.clock.now()
        ident = f"msgbatch_{self.ids.next()}"
        batch = Batch(ident, "messages", "/v1/messages", f"{ident}.in", "", now, now, status="in_progress")
        blob = self.store.blob(batch.input)
        for first in range(0, len(requests), 1000):
            blob.append(
                b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in requests[first : first + 1000])
            )
        batch.counts["total"] = len(requests)
        return self._begun(batch, drills).message_view(base)

    def get_messages(self, ident: str, base: str) -> dict[str, Any]:
        return self._found(ident, messages=True).message_view(base)

    def list_messages(self, query: dict[str, str], base: str) -> dict[str, Any]:
        return message_page([batch.message_view(base) for batch in self._listed(messages=True)], query)

    def cancel_messages(self, ident: str, base: str) -> dict[str, Any]:
        batch = self._found(ident, messages=True)
        if not batch.final:
            self._cancel(batch)
        return batch.message_view(base)

    def delete_messages(self, ident: str) -> dict[str, Any]:
        batch = self._found(ident, messages=True)
        if not batch.final:
            raise refused(f"Batch {ident} cannot be deleted while it is processing; cancel it first")
        self.store.delete_batch(batch)
        return {"id": ident, "type": "message_batch_deleted"}

    def results(self, ident: str) -> str:
        """The name of the blob with the results; refused before the end."""
        batch = self._found(ident, messages=True)
        if not batch.final:
            raise refused(f"Batch {ident} has no results until its processing has ended")
        return batch.outputs
