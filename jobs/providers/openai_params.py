"""A Request as the body of a chat completion. No I/O."""

import re
from typing import Any

from jobs.chat import Request

REASONING = re.compile(r"(.*/)?(o\d|gpt-[5-9])")
NOT_THE_USERS = ("stream", "stream_options", "service_tier")  # the lane and the tier say these


def worded(body: dict[str, Any], *, own: bool) -> dict[str, Any]:
    """A request's body, which is used up, in the server's own words; `own`: the provider's own address.

    The cap is `max_completion_tokens` there and for OpenAI's reasoning models anywhere, since those refuse the older
    name; elsewhere it is `max_tokens`, which every compatible server obeys and some know alone (llama-cpp-python).
    """
    for name in NOT_THE_USERS:
        body.pop(name, None)
    asked = body.pop("max_completion_tokens", None)
    cap = body.pop("max_tokens", None) or asked
    if cap is not None:
        body["max_completion_tokens" if own or REASONING.match(body["model"]) else "max_tokens"] = cap
    return body


def body_of(request: Request, *, own: bool, tier: str = "default", stream: bool = False) -> dict[str, Any]:
    """The JSON body of a call, in the server's own words, with what the lane and the tier say."""
    body = worded(request.body(), own=own)
    if tier != "default":
        body["service_tier"] = tier
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def choices_asked(request: Request) -> int:
    """How many choices the answer must bring."""
    asked = request.params.get("n")
    return asked if isinstance(asked, int) and asked > 0 else 1
