"""Provider and BatchProvider: two small protocols; PROVIDERS makes one on demand."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jobs.chat import Answer, Delta, Request, Usage
from jobs.clock import Stopwatch
from jobs.prices_table import PriceTable

_LINE = re.compile(r"\bline (\d{1,6})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is reached; the key is read from the environment by the provider and never kept here."""

    provider: str  # a key of PROVIDERS
    base_url: str
    own: bool  # the provider's own address, not a compatible server
    key_env: str
    api: str = "chat"  # OpenAI's: chat or responses
    prices: PriceTable | None = field(default=None, repr=False)  # the user's own


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds a call may take: to its first token, between two, and in all."""

    first_token: float = 120.0
    idle: float = 60.0
    total: float = 900.0
    connect: float = 5.0


class Provider(Protocol):
    """One call, whole or streamed. Every failure is a `jobs.errors.CallError`; no retries inside.

    A `watch` is told when a connection is made and when the request goes out.
    """

    endpoint: Endpoint

    async def complete(
        self, request: Request, *, tier: str, timeouts: Timeouts, watch: Stopwatch | None = None
    ) -> Answer:
        """One plain call; an Answer whatever its outcome, or CallError when none came."""
        ...

    def stream(
        self, request: Request, *, tier: str, timeouts: Timeouts, watch: Stopwatch | None = None
    ) -> AsyncGenerator[Delta | Answer, None]:
        """Deltas as they come, then exactly one Answer that says how the stream ended and holds all that came.

        CallError only before the first delta. Closing the iterator closes the connection at once.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one provider batch may hold."""

    rows: int
    bytes: int
    one_model: bool


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is needed to create a batch, and to find it again after an unclear answer."""

    batch_id: str  # ours; in the file name and the metadata
    rows: int
    file: Path
    file_name: str
    file_id: str | None  # the uploaded file, where the provider has files
    since: datetime  # of the intent: nothing older can be it
    tries: int
    install: str  # marks what this installation made
    row: bytes = b""  # what a response in the background asks for; it has no file
    window: str | None = None  # of the background lane: 2h or 8h


@dataclass(frozen=True, slots=True)
class Remote:
    """A batch as the provider shows it. `status` is its own word; `terminal` that it will not change."""

    id: str
    status: str
    terminal: bool
    rows: int | None = None
    done: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    batch_id: str | None = None  # our id in its metadata
    install: str | None = None  # the installation that its metadata names
    input_file_id: str | None = None
    error_code: str | None = None
    error: str | None = None
    error_lines: tuple[tuple[int, str, str], ...] = ()  # of the input file, from 1: line, code, text
    usage: Usage | None = None  # of all its rows together, where the provider says it


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the provider shows it."""

    id: str
    name: str
    purpose: str
    bytes: int
    created_at: datetime | None = None


class Row(NamedTuple):  # a tuple: an import makes tens of thousands of them
    """One row of a finished batch: an answer, or why there is none.

    `retry`: worth sending again. `expired` and `cancelled` rows never ran and cost nothing.
    """

    custom_id: str
    answer: Answer | None
    error_code: str | None = None
    error: str | None = None
    retry: bool = True
    expired: bool = False
    cancelled: bool = False


def named_line(text: str) -> int | None:
    """The line of a batch file, counted from 1, that the words of an error name."""
    found = _LINE.search(text)
    return int(found[1]) if found else None


class BatchProvider(Protocol):
    """A provider's Batch API. POSTs are never retried inside; Transient(maybe_billed=True) is an unclear answer."""

    endpoint: Endpoint
    limits: BatchLimits
    has_files: bool  # rows are uploaded as a file first
    post_seconds: float  # bounds an upload and a create

    async def has_batch_api(self) -> bool:
        """Ask the server once; Transient when it cannot be reached."""
        ...

    def line(self, custom_id: str, body: str) -> bytes:
        """One row of the input file, with its newline, from a job's stored body; Permanent when it cannot be said."""
        ...

    async def find_file(self, ticket: Ticket) -> str | None:
        """The id of the newest uploaded file with the ticket's name, or None."""
        ...

    async def upload(self, ticket: Ticket) -> str:
        """POST the file; its id."""
        ...

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; nothing happens when it is gone."""
        ...

    async def find(self, ticket: Ticket) -> Sequence[Remote]:
        """The batches that can be the ticket's, oldest first."""
        ...

    async def submit(self, ticket: Ticket) -> Remote:
        """POST the batch."""
        ...

    async def poll(self, provider_batch_id: str) -> Remote:
        """How it stands; Permanent with status 404 when the provider does not know it."""
        ...

    def collect(self, remote: Remote, folder: Path | None = None) -> AsyncIterator[Row]:
        """Every row that the provider has an answer or an error for, as a stream, in any order.

        With a `folder` for a copy of each file that it reads, in the order of their custom_ids.
        """
        ...

    async def cancel(self, provider_batch_id: str) -> Remote:
        """Ask to stop it; rows already done stay and are billed."""
        ...

    def listed(self) -> AsyncIterator[Remote]:
        """Every batch that the provider shows, newest first as far as it sorts them; at most some thousands."""
        ...

    def files(self) -> AsyncIterator[RemoteFile]:
        """Every file that the provider shows, likewise; none where it has no files."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def _on_demand(module: str, name: str) -> Callable[[Endpoint], Any]:
    def make(endpoint: Endpoint) -> Any:
        return getattr(import_module(f"jobs.providers.{module}"), name)(endpoint)

    return make


def _openai(endpoint: Endpoint) -> Provider:
    made = ("openai_responses", "OpenAIResponses") if endpoint.api == "responses" else ("openai", "OpenAIChat")
    return _on_demand(*made)(endpoint)  # type: ignore[no-any-return]


PROVIDERS: dict[str, Callable[[Endpoint], Provider]] = {
    "openai": _openai,
    "anthropic": _on_demand("anthropic", "AnthropicMessages"),
}
BATCH_PROVIDERS: dict[str, Callable[[Endpoint], BatchProvider]] = {
    "openai": _on_demand("openai_batch", "OpenAIBatches"),
    "anthropic": _on_demand("anthropic_batch", "AnthropicBatches"),
}
BACKGROUND_PROVIDERS: dict[str, Callable[[Endpoint], BatchProvider]] = {
    "openai": _on_demand("openai_background", "OpenAIBackground"),
}
