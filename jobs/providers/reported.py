"""What a server itself says a call cost, in the usage of its answer. No I/O.

OpenRouter: `cost` in credits of a US dollar each, for every answer and in the last chunk of a stream
(https://openrouter.ai/docs/use-cases/usage-accounting); with a key of one's own (`is_byok`) that is its fee alone, and
`cost_details.upstream_inference_cost` is billed besides. Perplexity: `cost` is an object with its `total_cost`.
A cost without any details that is 0 is none: servers say so of models whose price they do not know.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

_MOST_USD = 10**6  # for one call; more is no cost


def nano_of(usage: Mapping[str, Any]) -> int | None:
    """Nano-dollars; None where the usage says nothing that is clearly a cost."""
    cost, details = usage.get("cost"), usage.get("cost_details")
    if isinstance(cost, Mapping):
        return _nano(cost.get("total_cost")) if cost.get("currency", "USD") == "USD" else None
    nano = _nano(cost)
    if nano is None or not isinstance(details, Mapping):
        return nano or None
    if usage.get("is_byok") is True:
        upstream = _nano(details.get("upstream_inference_cost"))
        return None if upstream is None else nano + upstream
    return nano


def _nano(usd: Any) -> int | None:
    """Exact for as many digits as a double holds, which is how JSON's numbers come here."""
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd <= _MOST_USD:
        return None
    return int((Decimal(str(usd)) * 10**9).to_integral_value(ROUND_HALF_EVEN))
