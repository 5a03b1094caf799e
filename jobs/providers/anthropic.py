"""Anthropic's Messages, and every compatible server, through the anthropic SDK."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anthropic

from jobs.chat import Answer, Delta, Request
from jobs.clock import Stopwatch
from jobs.providers import Endpoint, Timeouts, calls
from jobs.providers.answers import encode
from jobs.providers.anthropic_params import params_of
from jobs.providers.anthropic_wire import Accumulator, answer_from
from jobs.providers.connection import Connection

PATH = "/v1/messages"


def client(base_url: str, key: str, options: Mapping[str, Any]) -> Any:
    """An SDK client that retries nothing; the SDK adds the /v1 that some people give in the base URL."""
    http = anthropic.DefaultAsyncHttpxClient(**options)
    return anthropic.AsyncAnthropic(api_key=key, base_url=base_url.removesuffix("/v1"), max_retries=0, http_client=http)


class AnthropicMessages:
    """A Provider."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._connection = Connection(endpoint, client)

    async def complete(
        self, request: Request, *, tier: str, timeouts: Timeouts, watch: Stopwatch | None = None
    ) -> Answer:
        """One plain call."""
        body = encode(params_of(request, tier=tier))
        return await calls.complete(
            self._connection, PATH, body, model=request.model, timeouts=timeouts, watch=watch, read=answer_from
        )

    def stream(
        self, request: Request, *, tier: str, timeouts: Timeouts, watch: Stopwatch | None = None
    ) -> AsyncGenerator[Delta | Answer]:
        """One streamed call."""

        def body() -> bytes:
            return encode(params_of(request, tier=tier, stream=True))

        return calls.stream(
            self._connection,
            PATH,
            body,
            Accumulator(),
            model=request.model,
            timeouts=timeouts,
            watch=watch,
            read=answer_from,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()
