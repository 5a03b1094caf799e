"""The most that an attempt can cost, told before it is sent. No I/O.

A token is at least one byte of what is sent, and an answer ends at its cap: one without a cap gets one, which is sent.
Where that bounds nothing, because the provider fetches or reads what is not in the request, the price is unknown.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from math import ceil
from typing import Any

import orjson

from db.reserving import Sending, Weigh
from db.rooms import Most
from db.states import Lane
from jobs import pricing
from jobs.chat import IMAGES, Usage
from jobs.providers import Endpoint
from jobs.risk import FRAMING

OUTPUT_CAP = 4096  # tokens of an answer that has no cap and is expected to be short
LONGER = 4  # times the 0.9 quantile of what is expected: the cap of a longer one
_LEAST = 16  # what OpenAI takes as a cap, at least
_TOOLS = 1000  # tokens that Claude is told about tools in general

# Tokens of the largest image, at low and at any other detail, as the providers' guides have them.
_IMAGE = ((re.compile(r"(.*/)?gpt-4o-mini"), 2833, 48_169), (re.compile(r"(.*/)?claude"), 5000, 5000))
_OTHER_IMAGE, _ORIGINAL = (400, 4000), 16_000

# Tokens that older models can write at most; they refuse a higher cap.
_WRITES = (
    (re.compile(r"(.*/)?gpt-4o"), 16_384),
    (re.compile(r"(.*/)?(gpt-4-turbo|gpt-4-\d+-preview|gpt-3\.5|claude-3-(haiku|opus|sonnet))"), 4096),
    (re.compile(r"(.*/)?(gpt-4(-0613)?$|claude-3-5)"), 8192),
)
_WORDS = {"text", "refusal", "input_text", "tool_use", "tool_result", "thinking", "redacted_thinking"}
_OURS = re.compile(r"function|custom|(bash|computer|text_editor|memory)_\d+")  # tools whose results we send ourselves

Cost = Callable[[int, int], int | None]  # of tokens in and out


def weigher(endpoints: Mapping[str, Endpoint], output_cap: int = OUTPUT_CAP) -> Weigh:
    """What weighs requests to these endpoints; `output_cap` is what an answer without a cap may have, in tokens."""

    def weigh(sending: Sending, now: datetime) -> Most:
        endpoint = endpoints.get(sending.provider)
        where: dict[str, Any] = {"model": sending.model, "provider": sending.provider, "at": now}
        where |= {"own": endpoint is None or endpoint.own, "lane": Lane(sending.lane)}
        where["table"] = endpoint.prices if endpoint else None
        written = sending.provider != "anthropic" or "cache_control" in sending.body
        hour = written and '"1h"' in sending.body  # what is kept for so long costs more
        tiers = {sending.tier} if sending.lane == Lane.BATCH else {sending.tier, "default"}  # it may be served so

        def cost(tokens: int, output: int) -> int | None:
            kept = Usage(tokens, output, cache_write=tokens, cache_write_1h=tokens if hour else 0)
            usages = [Usage(tokens, output), *([kept] if written else ())]
            prices = [pricing.price(usage, tier=tier, **where).nano for usage in usages for tier in tiers]
            return max((nano for nano in prices if nano is not None), default=None)

        return _most(sending, orjson.loads(sending.body), output_cap, cost)

    return weigh


def capped(body: str, cap: int | None) -> str:
    """The body of a request with this cap on each answer; as it is without one."""
    if cap is None:
        return body
    fields = orjson.loads(body)
    fields.pop("max_completion_tokens", None)
    return orjson.dumps(fields | {"max_tokens": cap}, option=orjson.OPT_SORT_KEYS).decode()


def _most(sending: Sending, body: dict[str, Any], usual: int, cost: Cost) -> Most:
    tokens = input_most(body, sending.body)
    if tokens is None:
        return Most(None)
    choices = body["n"] if isinstance(body.get("n"), int) and body["n"] > 0 else 1
    asked = body.get("max_tokens") or body.get("max_completion_tokens")
    expected = ceil(sending.output_p90 / choices)
    cap = asked if isinstance(asked, int) else _usual(body, sending.model, max(usual, LONGER * expected))
    nano = cost(tokens, cap * choices)
    if nano is not None and sending.left_nano is not None and nano > sending.left_nano:
        least = min(cap, max(expected, _LEAST))
        cap = max(_within(sending.left_nano, tokens, cap, choices, cost), least)
        nano = cost(tokens, cap * choices)
    return Most(nano, None if cap == asked else cap)


def _usual(body: Mapping[str, Any], model: str, cap: int) -> int:
    """The cap of an answer that has none: room for its thoughts, and no more than the model takes."""
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and isinstance(thinking.get("budget_tokens"), int):
        cap += thinking["budget_tokens"]
    return min([cap, *(most for models, most in _WRITES if models.match(model))][:2])


def _within(nano: int, tokens: int, cap: int, choices: int, cost: Cost) -> int:
    """The largest cap below `cap` that costs no more than so much."""
    low, high = 0, cap
    while low < high:
        middle = (low + high + 1) // 2
        found = cost(tokens, middle * choices)
        low, high = (middle, high) if found is not None and found <= nano else (low, middle - 1)
    return low


def input_most(body: Mapping[str, Any], text: str) -> int | None:
    """The most tokens that a body, which is `text` as JSON, is counted as; None where nobody can tell."""
    total = len(text if text.isascii() else text.encode()) + FRAMING
    tools = body.get("tools") or ()
    if "web_search_options" in body or not all(_OURS.match(str(tool.get("type", "function"))) for tool in tools):
        return None
    if tools and "claude" in body["model"]:
        total += _TOOLS
    for part in _parts(body.get("messages") or ()):
        if part.get("type") in IMAGES:
            total += _image(part, body["model"]) - _data(part)
        elif part.get("type") not in _WORDS:
            return None
    return total


def _parts(turns: Any) -> Iterator[Mapping[str, Any]]:
    """Every part of the messages, those within the results of tools as well."""
    for turn in turns:
        for part in turn["content"] if isinstance(turn.get("content"), list) else ():
            yield part
            yield from _parts([part])


def _image(part: Mapping[str, Any], model: str) -> int:
    image = part.get("image_url")
    detail = image.get("detail") if isinstance(image, Mapping) else part.get("detail")
    if detail == "original":
        return _ORIGINAL
    low, high = next((sizes for models, *sizes in _IMAGE if models.match(model)), _OTHER_IMAGE)
    return low if detail == "low" else high


def _data(part: Mapping[str, Any]) -> int:
    """Bytes of the picture itself, which are no text."""
    image = part.get("image_url") or part.get("source") or {}
    data = image if isinstance(image, str) else image.get("url") or image.get("data") or ""
    return len(data) if isinstance(data, str) else 0
