"""Anthropic's Message Batches through the anthropic SDK: no files, no names, no metadata."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.chat import Request
from jobs.errors import CallError, Permanent
from jobs.providers import BatchLimits, Endpoint, Remote, RemoteFile, Row, Ticket
from jobs.providers.answers import count, decode, encode, error_of
from jobs.providers.anthropic import PATH, client
from jobs.providers.anthropic_params import params_of
from jobs.providers.anthropic_wire import answer_from
from jobs.providers.connection import Connection
from jobs.providers.failures import lasting
from jobs.providers.rows import CLOCK_SLACK, POST_SECONDS, asks_batches, moment, pages, rows, too_old

BATCHES = PATH + "/batches"
HEAD, TAIL = b'{"requests":[', b"]}"
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


class AnthropicBatches:
    """A BatchProvider. `post_seconds` bounds a create; keep it below the batch lane's grace."""

    limits = BatchLimits(rows=100_000, bytes=240_000_000, one_model=False)  # 256 MB, less some head-room
    has_files = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.post_seconds = POST_SECONDS
        self._connection = Connection(endpoint, client)

    async def has_batch_api(self) -> bool:
        """Whether the server has one."""
        return await asks_batches(self._connection, BATCHES)

    def line(self, custom_id: str, body: str) -> bytes:
        """One row of the file that `submit` sends; Permanent when the request cannot be said there."""
        return encode({"custom_id": custom_id, "params": params_of(Request.from_body(decode(body)))}) + b"\n"

    async def find_file(self, ticket: Ticket) -> str | None:
        """There are no files."""
        return None

    async def upload(self, ticket: Ticket) -> str:
        """There are no files."""
        raise Permanent("Anthropic's batches take no files: submit them", code="no_files")

    async def delete_file(self, file_id: str) -> None:
        """There are no files."""

    async def find(self, ticket: Ticket) -> Sequence[Remote]:
        """The batches made since the ticket with as many rows: candidates, since nothing names them."""

        found: list[Remote] = []
        async for page in pages(self._page):
            found += [remote for remote in map(remote_of, page) if _can_be(remote, ticket)]
            if too_old(page, ticket):
                break
        return sorted(found, key=lambda remote: remote.created_at or datetime.min.replace(tzinfo=UTC))

    async def submit(self, ticket: Ticket) -> Remote:
        """POST the rows, streamed from the file."""
        size = ticket.file.stat().st_size
        length = len(HEAD) + max(size - 1, 0) + len(TAIL)  # the last newline goes, the others become commas
        answer = await self._connection.ask(
            "post",
            BATCHES,
            content=_body(ticket, size),
            headers={"Content-Length": str(length), "Content-Type": "application/json"},
            seconds=self.post_seconds,
            creates=True,
        )
        self._connection.id_of(answer, "a batch")
        return remote_of(answer)

    async def poll(self, provider_batch_id: str) -> Remote:
        """How it stands."""
        return remote_of(await self._connection.ask("get", _path(provider_batch_id)))

    async def collect(self, remote: Remote, folder: Path | None = None) -> AsyncGenerator[Row]:
        """The rows, by our own path: a results_url of another host must not get the key."""
        async with aclosing(rows(self._connection, f"{_path(remote.id)}/results", row_of, folder)) as found:
            async for row in found:
                yield row

    async def cancel(self, provider_batch_id: str) -> Remote:
        """Ask to stop it."""
        try:
            return remote_of(await self._connection.ask("post", f"{_path(provider_batch_id)}/cancel"))
        except CallError as error:
            if error.status in (400, 409, 422):
                return await self.poll(provider_batch_id)
            raise

    async def listed(self) -> AsyncGenerator[Remote]:
        """Every batch of the workspace."""
        async for page in pages(self._page):
            for raw in page:
                if raw.get("id"):
                    yield remote_of(raw)

    async def files(self) -> AsyncGenerator[RemoteFile]:
        """There are no files."""
        return
        yield

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def _page(self, after: str | None) -> dict[str, Any]:
        params = {"limit": 100, **({"after_id": after} if after else {})}
        return await self._connection.ask("get", BATCHES, params=params)


def _path(provider_batch_id: str) -> str:
    return f"{BATCHES}/{quote(provider_batch_id, safe='')}"


def _can_be(remote: Remote, ticket: Ticket) -> bool:
    made = remote.created_at
    return remote.rows == ticket.rows and (made is None or made >= ticket.since - CLOCK_SLACK)


async def _body(ticket: Ticket, size: int) -> AsyncIterator[bytes]:
    for piece in _pieces(ticket, size):
        yield piece


def _pieces(ticket: Ticket, size: int) -> Iterator[bytes]:
    """The file's lines as one JSON array; a line of JSON holds no raw newline, so that each one ends a row."""
    yield HEAD
    with ticket.file.open("rb") as file:
        left = size - 1
        while left > 0 and (piece := file.read(min(left, 1 << 18))):
            left -= len(piece)
            yield piece.replace(b"\n", b",")
    yield TAIL


def remote_of(raw: Mapping[str, Any]) -> Remote:
    """A batch object as a Remote; its counts stay 0 until it ends."""
    given = raw.get("request_counts")
    counts = {name: count(given.get(name)) for name in COUNTS} if isinstance(given, Mapping) else {}
    status = str(raw.get("processing_status") or "unknown")
    return Remote(
        id=str(raw.get("id") or ""),
        status=status,
        terminal=status == "ended",
        rows=sum(counts.values()) or None,
        done=counts.get("succeeded", 0),
        failed=counts.get("errored", 0),
        output_file_id=raw.get("results_url") or None,
        created_at=moment(raw.get("created_at")),
        expires_at=moment(raw.get("expires_at")),
    )


def row_of(raw: Mapping[str, Any]) -> Row:
    """A line of the results; errored, canceled and expired rows are not billed."""
    custom_id, result = str(raw.get("custom_id") or ""), raw.get("result")
    result = result if isinstance(result, Mapping) else {}
    match result.get("type"):
        case "succeeded":
            answer = answer_from(result.get("message"), tier="batch")
            return Row(custom_id, answer, answer.error_code, answer.error)
        case "expired":
            return Row(custom_id, None, "batch_expired", "the batch expired before this row ran", expired=True)
        case "canceled":
            return Row(custom_id, None, "batch_cancelled", "cancelled before this row ran", cancelled=True)
        case "errored":
            error = result.get("error")
            code, kind, text = error_of(error if isinstance(error, dict) else {}) or ("", "error", "no reason given")
            return Row(custom_id, None, code or kind, text, retry=not lasting(None, code, kind, text))
    return Row(custom_id, None, "no_result", "the row has no result")
