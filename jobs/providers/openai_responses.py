"""OpenAI's Responses, and every compatible server, through the openai SDK."""

from collections.abc import AsyncGenerator

from jobs.chat import Answer, Delta, Request
from jobs.clock import Stopwatch
from jobs.providers import Endpoint, Timeouts, calls
from jobs.providers.answers import encode
from jobs.providers.connection import Connection
from jobs.providers.openai import client
from jobs.providers.responses_params import body_of
from jobs.providers.responses_wire import Accumulator, answer_from

PATH = "/responses"


class OpenAIResponses:
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
            self._connection, PATH, body, model=request.model, timeouts=timeouts, watch=watch, read=answer_from
        )

    def stream(
        self, request: Request, *, tier: str, timeouts: Timeouts, watch: Stopwatch | None = None
    ) -> AsyncGenerator[Delta | Answer]:
        """One streamed call."""

        def body() -> bytes:
            return encode(body_of(request, own=self.endpoint.own, tier=tier, stream=True))

        wire, model = Accumulator(), request.model
        return calls.stream(
            self._connection, PATH, body, wire, model=model, timeouts=timeouts, watch=watch, read=answer_from
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()
