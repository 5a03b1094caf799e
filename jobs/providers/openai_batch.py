"""OpenAI's Batch API, and every compatible one, through the openai SDK."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.chat import Outcome
from jobs.errors import CallError, Permanent
from jobs.providers import BatchLimits, Endpoint, Remote, RemoteFile, Row, Ticket, named_line
from jobs.providers.answers import Head, count, decode, encode, error_of
from jobs.providers.connection import Connection
from jobs.providers.failures import lasting
from jobs.providers.openai import PATH, client
from jobs.providers.openai_params import worded
from jobs.providers.openai_wire import answer_from, usage_of
from jobs.providers.rows import POST_SECONDS, asks_batches, moment, pages, rows, too_old

URL = "/v1" + PATH
EXPIRED = frozenset({"batch_expired", "expired"})
CANCELLED = frozenset({"batch_cancelled", "batch_canceled", "cancelled", "canceled"})
TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})  # any other word will change


class OpenAIBatches:
    """A BatchProvider. `post_seconds` bounds an upload and a create; keep it below the batch lane's grace."""

    limits = BatchLimits(rows=50_000, bytes=190_000_000, one_model=True)  # 200 MB, less some head-room
    has_files = True

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.post_seconds = POST_SECONDS
        self._connection = Connection(endpoint, client)

    async def has_batch_api(self) -> bool:
        """Whether the server has one."""
        return await asks_batches(self._connection, "/batches")

    def line(self, custom_id: str, body: str) -> bytes:
        """One row of the input file."""
        said = worded(decode(body), own=self.endpoint.own)
        return encode({"custom_id": custom_id, "method": "POST", "url": URL, "body": said}) + b"\n"

    async def find_file(self, ticket: Ticket) -> str | None:
        """The newest file of the ticket's name; None too where no list is shown: a second file costs nothing."""

        async def fetch(after: str | None) -> dict[str, Any]:
            params = {"purpose": "batch", "limit": 100, "order": "desc", **({"after": after} if after else {})}
            try:
                return await self._connection.ask("get", "/files", params=params)
            except CallError as error:
                if error.status in (None, 401, 403):
                    raise
                return {}

        found: list[tuple[float, str]] = []
        async for page in pages(fetch):
            for entry in page:
                if entry.get("filename") == _name(ticket) and entry.get("id"):
                    found.append((count(entry.get("created_at")), str(entry["id"])))
            if too_old(page, ticket):
                break
        return max(found)[1] if found else None

    async def upload(self, ticket: Ticket) -> str:
        """POST the file under a name that ends in .jsonl, which servers insist on."""
        with closing(ticket.file.open("rb")) as file:
            answer = await self._connection.ask(
                "post",
                "/files",
                files=[("file", (_name(ticket), file, "application/jsonl"))],
                form={"purpose": "batch"},
                seconds=self.post_seconds,
                creates=True,
            )
        return self._connection.id_of(answer, "a file")

    async def delete_file(self, file_id: str) -> None:
        """Delete an input file, on servers that can."""
        try:
            await self._connection.ask("delete", f"/files/{_part(file_id)}")
        except CallError as error:
            if error.status not in (404, 405, 501):
                raise

    async def find(self, ticket: Ticket) -> Sequence[Remote]:
        """The batches with our metadata or of our file."""

        found: list[Remote] = []
        async for page in pages(self._batch_page):
            for remote in map(self._remote, page):
                ours = remote.batch_id == ticket.batch_id
                if ours or (ticket.file_id and remote.input_file_id == ticket.file_id):
                    found.append(remote)
            if too_old(page, ticket):
                break
        return sorted(found, key=lambda remote: remote.created_at or datetime.min.replace(tzinfo=UTC))

    async def submit(self, ticket: Ticket) -> Remote:
        """POST the batch; our id goes into its metadata."""
        if not ticket.file_id:
            raise Permanent("the batch has no uploaded file: upload it first", code="no_file")
        body = {
            "input_file_id": ticket.file_id,
            "endpoint": URL,
            "completion_window": "24h",
            "metadata": {
                "shunter_batch": ticket.batch_id,
                "shunter_try": str(ticket.tries),
                "shunter_install": ticket.install,
            },
        }
        answer = await self._connection.ask("post", "/batches", body=body, seconds=self.post_seconds, creates=True)
        self._connection.id_of(answer, "a batch")
        return self._remote(answer)

    async def poll(self, provider_batch_id: str) -> Remote:
        """How it stands. A gateway says 500 of a batch that nobody knows: then the list has the last word."""
        try:
            return self._remote(await self._connection.ask("get", f"/batches/{_part(provider_batch_id)}"))
        except CallError as error:
            if error.status != 500:
                raise
            async for remote in self.listed():
                if remote.id == provider_batch_id:
                    return remote
            raise Permanent(f"{error}; and its list of batches lacks it", code=error.code, status=404) from None

    async def collect(self, remote: Remote, folder: Path | None = None) -> AsyncGenerator[Row]:
        """The rows of the output file, then those of the error file, also where the first of them breaks off."""
        broke: CallError | None = None
        for file_id in filter(None, (remote.output_file_id, remote.error_file_id)):
            path = f"/files/{_part(file_id)}/content"
            try:
                async with aclosing(rows(self._connection, path, row_of, folder)) as found:
                    async for row in found:
                        yield row
            except CallError as error:
                broke = broke or error
        if broke is not None:
            raise broke

    async def cancel(self, provider_batch_id: str) -> Remote:
        """Ask to stop it; servers refuse that for a batch that has ended, gateways with a 500."""
        try:
            answer = await self._connection.ask("post", f"/batches/{_part(provider_batch_id)}/cancel")
        except CallError as error:
            if error.status not in (400, 409, 422, 500):
                raise
            remote = await self.poll(provider_batch_id)
            if error.status == 500 and not remote.terminal:
                raise
            return remote
        return self._remote(answer)

    async def listed(self) -> AsyncGenerator[Remote]:
        """Every batch; one without an id, which nothing could be done with, is left out."""
        async for page in pages(self._batch_page):
            for raw in page:
                if raw.get("id"):
                    yield self._remote(raw)

    async def files(self) -> AsyncGenerator[RemoteFile]:
        """Every file, whatever it is for; servers without files say 404 or 405."""

        async def fetch(after: str | None) -> dict[str, Any]:
            params = {"limit": 100, "order": "desc", **({"after": after} if after else {})}
            try:
                return await self._connection.ask("get", "/files", params=params)
            except CallError as error:
                if error.status in (404, 405, 501):
                    return {}
                raise

        async for page in pages(fetch):
            for raw in page:
                if raw.get("id"):
                    yield file_of(raw)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def _batch_page(self, after: str | None) -> dict[str, Any]:
        params = {"limit": 100, **({"after": after} if after else {})}
        return await self._connection.ask("get", "/batches", params=params)

    def _remote(self, raw: Mapping[str, Any]) -> Remote:
        return remote_of(raw, self._connection)


def _name(ticket: Ticket) -> str:
    return ticket.file_name.removesuffix(".jsonl") + ".jsonl"


def _part(identity: str) -> str:
    return quote(identity, safe="")


def remote_of(raw: Mapping[str, Any], connection: Connection) -> Remote:
    """A batch object as a Remote, whatever a server leaves out."""
    counts, metadata, errors = _mapping(raw, "request_counts"), _mapping(raw, "metadata"), _mapping(raw, "errors")
    listed = errors.get("data")
    named = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    first = named[0] if named else {}
    status = str(raw.get("status") or "unknown")
    return Remote(
        id=str(raw.get("id") or ""),
        status=status,
        terminal=status in TERMINAL,
        rows=count(counts.get("total")) or None,
        done=count(counts.get("completed")),
        failed=count(counts.get("failed")),
        output_file_id=raw.get("output_file_id") or None,
        error_file_id=raw.get("error_file_id") or None,
        created_at=moment(raw.get("created_at")),
        expires_at=moment(raw.get("expires_at")),
        batch_id=metadata.get("shunter_batch"),
        install=metadata.get("shunter_install"),
        input_file_id=raw.get("input_file_id") or None,
        error_code=first.get("code") or None,
        error=connection.clean(first.get("message")) or None,
        error_lines=tuple(line for line in (_line(one, connection) for one in named) if line),
        usage=usage_of(raw.get("usage")),
    )


def _line(error: Mapping[str, Any], connection: Connection) -> tuple[int, str, str] | None:
    """The line that a validation error speaks of, in its own field or only in its words."""
    text = connection.clean(str(error.get("message") or "")) or "refused by the provider's validation"
    line = error.get("line")
    if not isinstance(line, int):
        line = named_line(text)
    return (line, str(error.get("code") or "invalid"), text) if isinstance(line, int) and line > 0 else None


def file_of(raw: Mapping[str, Any]) -> RemoteFile:
    """A file object as a RemoteFile, whatever a server leaves out."""
    return RemoteFile(
        id=str(raw.get("id") or ""),
        name=str(raw.get("filename") or ""),
        purpose=str(raw.get("purpose") or ""),
        bytes=count(raw.get("bytes")),
        created_at=moment(raw.get("created_at")),
    )


def _mapping(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def row_of(raw: Mapping[str, Any]) -> Row:
    """A line of an output or an error file; only a 200 with choices is an answer."""
    custom_id = str(raw.get("custom_id") or "")
    if raw.get("error") and (told := error_of({"error": raw["error"]})):
        return _failed(custom_id, None, told)
    response = _mapping(raw, "response")
    status, body = count(response.get("status_code")), _body(response.get("body"))
    told = error_of(body)
    if not 200 <= status < 300 or (told and not body.get("choices")):
        known = told or ("", "", f"the row ended with status {status}" if response else "the row has no response")
        return _failed(custom_id, status or None, known)
    answer = answer_from(body, Head(response.get("request_id") or None), tier="batch")
    if answer.outcome is Outcome.MALFORMED:
        return Row(custom_id, answer, "malformed", answer.error)
    return Row(custom_id, answer)


def _body(value: Any) -> Any:
    """Some servers send the body as a string of JSON."""
    try:
        return decode(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _failed(custom_id: str, status: int | None, told: tuple[str, str, str]) -> Row:
    code, kind, text = told
    word = code or kind or (f"http_{status}" if status else "no_response")
    expired, cancelled = word in EXPIRED, word in CANCELLED
    again = expired or cancelled or not lasting(status if status and status >= 300 else None, code, kind, text)
    return Row(custom_id, None, word, text, again, expired, cancelled)
