"""What both Batch APIs share: limits, paging, and result files read line by line in constant memory."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from jobs.errors import CUT, CallError, Transient
from jobs.providers import Row, Ticket
from jobs.providers.answers import decode
from jobs.providers.connection import Connection
from jobs.providers.spool import Spool

POST_SECONDS = 540.0  # an upload or a create; the batch lane's grace (600 s) must be longer
CLOCK_SLACK = timedelta(minutes=10)  # between the provider's clock and ours
PAGES = 200  # a guard against a server whose cursor goes in circles
_SOCKET = httpx2.Timeout(120.0, connect=5.0)

RowOf = Callable[[dict[str, Any]], Row]
Fetch = Callable[[str | None], Awaitable[dict[str, Any]]]


async def rows(connection: Connection, path: str, row_of: RowOf, folder: Path | None = None) -> AsyncGenerator[Row]:
    """The rows of a result file, as they come; with a `folder` for a copy of it, in the order of their custom_ids.

    What came before the file broke off is given in any case. A last line that was cut raises Transient: the file has
    more.
    """
    async with aclosing(_lines(connection, path)) as found:
        if folder is None:
            async for lines in found:
                for line in lines:
                    yield _row(line, row_of, connection)
            return
        with Spool(folder) as spool:
            broke: CallError | None = None
            try:
                async for lines in found:
                    spool.add(lines)
            except CallError as error:
                broke = error
            for line in spool.ordered():
                yield _row(line, row_of, connection)
            if broke is not None:
                raise broke


async def _lines(connection: Connection, path: str) -> AsyncGenerator[list[bytes]]:
    tail = b""
    async with aclosing(_pieces(connection, path)) as pieces:
        async for piece in pieces:
            *lines, tail = (tail + piece).split(b"\n")
            yield [line for line in lines if line and not line.isspace()]
    if tail.strip():
        if not _named(tail):
            raise Transient(f"{connection.place().host} sent {path} only in part", code=CUT)
        yield [tail]


async def _pieces(connection: Connection, path: str) -> AsyncGenerator[bytes]:
    response = None
    try:
        response = await connection.send("get", path, timeout=_SOCKET, unread=True)
        async for piece in response.aiter_bytes():
            yield piece
    except Exception as error:
        raise connection.failure(error) from None
    finally:
        if response is not None:
            await response.aclose()


def _named(line: bytes) -> bool:
    data = _decoded(line)
    return isinstance(data, dict) and bool(data.get("custom_id"))


def _decoded(line: bytes) -> Any:
    try:
        return decode(line)
    except ValueError:
        return None


def _row(line: bytes, row_of: RowOf, connection: Connection) -> Row:
    data = _decoded(line)
    if not isinstance(data, dict):
        return Row("", None, "malformed_row", f"a result line that is no JSON object: {line[:80]!r}")
    row = row_of(data)
    return row._replace(error=connection.clean(row.error)) if row.error else row


async def pages(fetch: Fetch) -> AsyncIterator[list[dict[str, Any]]]:
    """Page after page of a list, by the id of each page's last entry; stops when a page brings nothing new."""
    after: str | None = None
    seen: set[str] = set()
    for _ in range(PAGES):
        answer = await fetch(after)
        found = answer.get("data")
        page = [entry for entry in (found if isinstance(found, list) else []) if isinstance(entry, dict)]
        fresh = [entry for entry in page if str(entry.get("id")) not in seen]
        yield fresh
        seen.update(str(entry.get("id")) for entry in fresh)
        if not fresh or not answer.get("has_more"):
            return
        after = str(answer.get("last_id") or page[-1].get("id"))


def too_old(page: list[dict[str, Any]], ticket: Ticket) -> bool:
    """Whether every entry of a page is older than the ticket can be."""
    made = [moment(entry.get("created_at")) for entry in page]
    return bool(made) and all(at is not None and at < ticket.since - CLOCK_SLACK for at in made)


def moment(value: Any) -> datetime | None:
    """A time from seconds since 1970 or RFC 3339; None when it is neither."""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return at if at.tzinfo else at.replace(tzinfo=UTC)
        return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) and value else None
    except (ValueError, OverflowError, OSError):
        return None


async def asks_batches(connection: Connection, path: str) -> bool:
    """One look at the list of batches: 404, 405, 501 and a page of something else say that there is no Batch API."""
    try:
        await connection.ask("get", path, params={"limit": 1})
    except CallError as error:
        if error.status in (404, 405, 501) or error.code == "malformed":
            return False
        raise
    return True
