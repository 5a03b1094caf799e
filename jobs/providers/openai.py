"""OpenAI chat completions, and every compatible server, through the openai SDK."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import openai

from jobs.chat import Answer, Delta, Request
from jobs.clock import Stopwatch
from jobs.providers import Endpoint, Timeouts, calls
from jobs.providers.answers import Head, encode
from jobs.providers.connection import Connection
from jobs.providers.openai_params import body_of, choices_asked
from jobs.providers.openai_wire import Accumulator, answer_from

PATH = "/chat/completions"


def client(base_url: str, key: str, options: Mapping[str, Any]) -> Any:
    """An SDK client that retries nothing."""
    http = openai.DefaultAsyncHttpx2Client(**options)
    return openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, http_client=http)


class OpenAIChat:
    """A Provider."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._connection = Connection(endpoint, client)

    async def complete(
        self, request: Request, *, tier: str, timeouts: Timeouts, watch: Stopwatch | None = None
    ) -> Answer:
        """One plain call."""
        body = encode(body_of(request, own=self.endpoint.own, tier=tier))
        return await calls.complete(
            self._connection, PATH, body, model=request.model, timeouts=timeouts, watch=watch, read=_reader(request)
        )

    def stream(
        self, request: Request, *, tier: str, timeouts: Timeouts, watch: Stopwatch | None = None
    ) -> AsyncGenerator[Delta | Answer]:
        """One streamed call."""

        def body() -> bytes:
            return encode(body_of(request, own=self.endpoint.own, tier=tier, stream=True))

        wire = Accumulator(choices_asked(request))
        return calls.stream(
            self._connection,
            PATH,
            body,
            wire,
            model=request.model,
            timeouts=timeouts,
            watch=watch,
            read=_reader(request),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()


def _reader(request: Request) -> calls.ReadBody:
    def read(data: bytes, head: Head) -> Answer:
        return answer_from(data, head, choices=choices_asked(request))

    return read
