"""The most that an attempt of unknown cost can have cost. No I/O.

A token is at least one byte of text, so what was received bounds what was written; what was written but never arrived
is bounded by the speed at which it came.
"""

import re
from datetime import datetime
from typing import Any

from db.queue import Claim
from db.states import Lane
from jobs import pricing
from jobs.chat import Answer, Choice, Outcome, Request, Usage
from jobs.clock import Timing
from jobs.providers import Endpoint

NOTICES_S = 2.0  # a server that writes to a closed connection notices it within this
FASTEST = 2000.0  # tokens a second: more than any hosted model writes
ON_THE_WAY = 32  # tokens that may be lost in a broken connection
FRAMING = 64  # tokens around the words: roles, names, separators
WE_LEFT = (Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.MALFORMED, Outcome.PROVIDER_ERROR)
THINKS = re.compile(r"(.*/)?(o\d|gpt-[5-9]|claude)")  # bills reasoning that it may never show


def at_risk(claim: Claim, request: Request, answer: Answer | None, timing: Timing, endpoint: Endpoint,
            at: datetime) -> int | None:  # fmt: skip
    """Nano-dollars; None where the model has no price."""
    usage = Usage(_input(claim), _capped(_output(claim, answer, timing), request))
    where: dict[str, Any] = {"model": claim.model, "provider": endpoint.provider, "own": endpoint.own, "at": at}
    return pricing.price(usage, lane=Lane(claim.lane), tier=claim.tier, table=endpoint.prices, **where).nano


def _input(claim: Claim) -> int:
    """The estimate is nearer than the bytes, and never wrong by three: of images the bytes would be far too many."""
    return min(len(claim.body.encode()), 3 * claim.input_tokens) + FRAMING


def _output(claim: Claim, answer: Answer | None, timing: Timing) -> int:
    heard = max(sum(map(_size, answer.choices)), timing.chunks) if answer else 0
    if answer is None or not heard:  # the whole answer may have been written
        return claim.output_p90
    unseen = claim.output_p90 if THINKS.match(claim.model) and not any(c.reasoning for c in answer.choices) else 0
    if answer.outcome in WE_LEFT:  # it may have written on for a while
        spent_ms = max(timing.total_ms - (timing.first_token_ms or 0.0), 1.0)
        heard += int(min(heard * 1000 / spent_ms, FASTEST) * NOTICES_S)
    return heard + unseen + (0 if answer.usable else ON_THE_WAY)


def _size(choice: Choice) -> int:
    words = choice.text + choice.refusal + choice.reasoning
    return len(words.encode()) + sum(len((call.name + call.raw).encode()) + FRAMING for call in choice.tool_calls)


def _capped(tokens: int, request: Request) -> int:
    asked = request.params.get("n")
    cap = request.max_tokens or request.params.get("max_completion_tokens")
    return min(tokens, cap * (asked if isinstance(asked, int) else 1)) if isinstance(cap, int) else tokens
