"""OpenAI's Responses in the background, with a completion window: batches of one row that no list shows."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.chat import Answer, Outcome, Request
from jobs.errors import CallError, Permanent
from jobs.providers import BatchLimits, Endpoint, Remote, RemoteFile, Row, Ticket
from jobs.providers.answers import decode, encode, error_of, text_of
from jobs.providers.background_params import why_not
from jobs.providers.connection import Connection
from jobs.providers.failures import lasting
from jobs.providers.openai import client
from jobs.providers.openai_responses import PATH
from jobs.providers.responses_params import body_of
from jobs.providers.responses_wire import ENDS, answer_from
from jobs.providers.rows import moment

MOST_PAIRS = 16  # of metadata
POST_SECONDS = 60.0  # a create is answered before the model is asked
_NOT_TAKEN = (503, 529)  # statuses of a server too busy to take it; after any other of its errors it may be there
_REFUSED = (Outcome.REFUSED, Outcome.FILTERED)


class OpenAIBackground:
    """A BatchProvider. Its responses are stored there: nothing else could show their answer.

    There is no list of responses, so an unclear create cannot be looked up: `find` finds nothing.
    """

    limits = BatchLimits(rows=1, bytes=190_000_000, one_model=True)
    has_files = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.post_seconds = POST_SECONDS
        self._connection = Connection(endpoint, client)

    async def has_batch_api(self) -> bool:
        """Nothing is asked: who sends something here knows that the server has windows."""
        return True

    def line(self, custom_id: str, body: str) -> bytes:
        """The body of the one row; Permanent when the request cannot be said there."""
        request = Request.from_body(decode(body))
        if why := why_not(request):
            raise Permanent(f"a response in the background {why}: send it another way", code="unsupported")
        said = body_of(request, own=self.endpoint.own) | {"background": True, "store": True}
        return encode(said | {"metadata": _marked(said, {"shunter_row": custom_id})})

    async def find_file(self, ticket: Ticket) -> str | None:
        """There are no files."""
        return None

    async def upload(self, ticket: Ticket) -> str:
        """There are no files."""
        raise Permanent("a response in the background takes no file: submit it", code="no_files")

    async def delete_file(self, file_id: str) -> None:
        """There are no files."""

    async def find(self, ticket: Ticket) -> Sequence[Remote]:
        """Nothing: there is no list to look into."""
        return []

    async def submit(self, ticket: Ticket) -> Remote:
        """POST the response that `ticket.row` asks for, wanted within `ticket.window`."""
        body = decode(ticket.row)
        body["metadata"] = _marked(body, {"shunter_batch": ticket.batch_id, "shunter_install": ticket.install})
        if ticket.window:
            body["background_options"] = {"completion_window": ticket.window}
        try:
            answer = await self._connection.ask("post", PATH, body=body, seconds=self.post_seconds, creates=True)
        except CallError as error:
            error.maybe_billed = error.maybe_billed and error.status not in _NOT_TAKEN
            raise
        self._connection.id_of(answer, "a response")
        return remote_of(answer)

    async def poll(self, provider_batch_id: str) -> Remote:
        """How it stands."""
        return remote_of(await self._connection.ask("get", _path(provider_batch_id)))

    async def collect(self, remote: Remote, folder: Path | None = None) -> AsyncGenerator[Row]:
        """Its one row, with the `custom_id` that its metadata names, if they are given back."""
        row = row_of(await self._connection.ask("get", _path(remote.id)))
        yield row._replace(error=self._connection.clean(row.error))

    async def cancel(self, provider_batch_id: str) -> Remote:
        """Stop it; servers refuse that for a response that has ended."""
        try:
            return remote_of(await self._connection.ask("post", f"{_path(provider_batch_id)}/cancel"))
        except CallError as error:
            if error.status in (400, 409, 422):
                return await self.poll(provider_batch_id)
            raise

    async def listed(self) -> AsyncGenerator[Remote]:
        """Nothing: there is no list."""
        return
        yield

    async def files(self) -> AsyncGenerator[RemoteFile]:
        """There are no files."""
        return
        yield

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()


def _path(response_id: str) -> str:
    return f"{PATH}/{quote(response_id, safe='')}"


def _mapping(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, Mapping) else {}


def _marked(body: Mapping[str, Any], marks: Mapping[str, str]) -> dict[str, Any]:
    """The request's own metadata and as many of our marks as there is room for: nothing rests on them."""
    own = dict(_mapping(body, "metadata"))
    return own | dict(list(marks.items())[: max(MOST_PAIRS - len(own), 0)])


def remote_of(raw: Mapping[str, Any]) -> Remote:
    """A response as a batch of one row; a word that is none of its ends will change."""
    status, metadata = text_of(raw.get("status")) or "unknown", _mapping(raw, "metadata")
    return Remote(
        id=str(raw.get("id") or ""),
        status=status,
        terminal=status in ENDS,
        rows=1,
        done=int(status in ("completed", "incomplete")),
        failed=int(status in ("failed", "cancelled")),
        created_at=moment(raw.get("created_at")),
        batch_id=metadata.get("shunter_batch"),
        install=metadata.get("shunter_install"),
    )


def row_of(raw: Mapping[str, Any]) -> Row:
    """A response that has ended: its answer, or why there is none. One that counted no tokens has cost nothing."""
    custom_id = str(_mapping(raw, "metadata").get("shunter_row") or "")
    answer = replace(answer_from(raw), tier=None)  # its service tier says nothing of the window
    if answer.usable or answer.outcome in _REFUSED:
        return Row(custom_id, answer)
    status = text_of(raw.get("status"))
    code, kind, text = error_of(raw) or ("", "", answer.error or f"the response ended as {status or 'nothing'}")
    word = code or kind or answer.error_code or "failed"
    again = status == "cancelled" or not lasting(None, code, kind, text)
    kept = answer if _counted(answer, status) else None
    return Row(custom_id, kept, word, text, again, cancelled=status == "cancelled")


def _counted(answer: Answer, status: str) -> bool:
    """Whether it may have been billed: it has usage or words, or does not say that it failed."""
    return answer.usage is not None or bool(answer.choices) or status not in ("failed", "cancelled")
