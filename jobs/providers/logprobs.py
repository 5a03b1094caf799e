"""How likely each token was, as chat completions say it: `content` and `refusal`, lists of tokens. No I/O."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

Probs = Mapping[str, Any]


def probs_of(raw: Any) -> Probs | None:
    """What a choice says of its tokens, or of those of one piece; None where it says nothing."""
    if not isinstance(raw, Mapping):
        return None
    given = {name: raw.get(name) for name in ("content", "refusal")}
    told = {name: tokens if isinstance(tokens, list) else None for name, tokens in given.items()}
    if not any(told.values()):
        return None
    try:
        found: Probs = orjson.loads(orjson.dumps(told))  # no NaN: a database takes none
    except (TypeError, ValueError):
        return None
    return found


def joined(pieces: Iterable[Probs]) -> Probs | None:
    """Those of the whole answer, from those of its pieces."""
    whole: dict[str, list[Any]] = {"content": [], "refusal": []}
    for piece in pieces:
        for name, tokens in piece.items():
            whole[name] += tokens or ()
    return {name: tokens or None for name, tokens in whole.items()} if any(whole.values()) else None
