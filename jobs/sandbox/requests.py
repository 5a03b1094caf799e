"""What every request must bring: a key, and a body that can be read (pure)."""

from typing import Any

import orjson

from jobs.sandbox.errors import NO_ANTHROPIC_KEY, NO_OPENAI_KEY, ApiError, invalid, wrong_key, wrong_type
from jobs.sandbox.http import Buffer, Request

ENDLESS = 10**9  # a minute, where the sandbox is given no limit: it tells one, as the providers always do
LIMITS = b"".join(
    b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: 1ms\r\n"
    % (name, ENDLESS, name, ENDLESS - 1, name)
    for name in (b"requests", b"tokens")
)
REST = (
    b"openai-version: 2020-10-01\r\nopenai-organization: shunter-sandbox\r\nopenai-processing-ms: 1\r\n"
    b"server: shunter-sandbox\r\n"
)
ANTHROPIC_LIMITS = b"".join(
    b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %d\r\n"
    b"anthropic-ratelimit-%b-reset: 2026-11-22T00:00:00Z\r\n" % (name, ENDLESS, name, ENDLESS - 1, name)
    for name in (b"requests", b"tokens", b"input-tokens", b"output-tokens")
)


def answer_head(ident: str, anthropic: bool, limits: bytes = b"") -> bytes:
    """The headers that every answer of the provider has; `limits` are those that tell the sandbox's own."""
    if anthropic:
        return b"request-id: %b\r\nserver: shunter-sandbox\r\n%b" % (ident.encode(), limits or ANTHROPIC_LIMITS)
    return b"x-request-id: %b\r\n%b%b" % (ident.encode(), REST, limits or LIMITS)


def check_key(request: Request, anthropic: bool) -> None:
    """Any key will do but one that begins with wrong or sk-wrong."""
    given = request.headers.get(b"authorization", b"")
    key = given[7:].strip() if given[:7].lower() == b"bearer " else b""
    key = key or (request.headers.get(b"x-api-key", b"") if anthropic else b"")
    if not key:
        raise NO_ANTHROPIC_KEY if anthropic else NO_OPENAI_KEY
    if key.startswith((b"wrong", b"sk-wrong")):
        raise wrong_key(key.decode("latin-1"), anthropic)


def parsed(request: Request, raw: bytes) -> dict[str, Any]:
    """The body as a JSON object, or the provider's refusal."""
    sink = request.sink
    if isinstance(sink, Buffer) and sink.over:
        raise ApiError(413, f"Request body of {sink.size} bytes is larger than {sink.limit}.", code="request_too_large")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            f"library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON: {error})"
        ) from None
    if not isinstance(body, dict):
        raise wrong_type("body", "an object", body)
    return body


def model_and_lane(raw: bytes) -> tuple[str, str]:
    """What a drill may match on before the body has been checked."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "", "plain"
    if not isinstance(body, dict):
        return "", "plain"
    later = "background" if body.get("background") is True else "plain"
    return str(body.get("model", "")), "stream" if body.get("stream") is True else later
