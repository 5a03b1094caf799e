"""How likely the sandbox says its tokens were: the same for the same token, and made up (pure)."""

from collections.abc import Sequence
from hashlib import blake2b
from math import log
from typing import Any

from jobs.sandbox.checks import flag, whole_number
from jobs.sandbox.errors import invalid

MOST = 20


def asked(body: dict[str, Any]) -> int | None:
    """How many other tokens are wanted beside each; None where nothing is."""
    number = whole_number(body, "top_logprobs", 0, MOST)
    if flag(body, "logprobs"):
        return number or 0
    if number is not None:
        raise invalid("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", "top_logprobs")
    return None


def probs(pieces: Sequence[str], wanted: int | None, *, refused: bool) -> dict[str, Any] | None:
    """The `logprobs` of a choice, or of one piece of it."""
    if wanted is None or not pieces:
        return None
    told = [_token(piece, wanted) for piece in pieces]
    return {"content": None if refused else told, "refusal": told if refused else None}


def _token(piece: str, wanted: int) -> dict[str, Any]:
    surest = blake2b(piece.encode(), digest_size=1).digest()[0]
    found = _said(piece, log((surest + 1) / 257))
    others = [_said(f"{piece}~{n}", log((surest + 1) / 257) - n) for n in range(1, wanted)]
    return {**found, "top_logprobs": [found, *others][:wanted]}


def _said(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
