"""The sandbox's own bill: one row for each request or batch row that a provider would charge."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """`input` includes `cached`, `output` includes `reasoning`, as in OpenAI's usage.

    `percent`: what it costs in hundredths of the list's price, which the answer says.
    """

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class BillRow:
    id: str
    at: float
    api: str
    kind: str
    model: str
    custom_id: str | None
    batch_id: str | None
    request_id: str
    tier: str
    status: int
    usage: Usage
    cost_nano_usd: int | None
    disconnected: bool = False


@cache
def price_table() -> dict[str, Any]:
    text = files("jobs.sandbox").joinpath("prices.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    return table


@cache
def unit_prices(model: str, lane: str, long: bool) -> tuple[int, int, int] | None:
    """Pico-dollars for a token of input, cached input and output; `lane` is batch, flex, priority or default."""
    table = price_table()
    own = table["models"].get(model)
    if own is None:
        return None
    special = own.get(f"{lane}_prices", own)
    factor = Decimal(1) if special is not own else table.get(lane) or own.get(lane, Decimal(1))
    cached_factor = own["batch_cached"] if lane == "batch" and "batch_cached" in own else factor
    stretch = table["long_context"] if long and own.get("long") else {"input": Decimal(1), "output": Decimal(1)}
    picos = (
        special["input"] * factor * stretch["input"],
        special["cached"] * cached_factor * stretch["input"],
        special["output"] * factor * stretch["output"],
    )
    return (_whole(picos[0]), _whole(picos[1]), _whole(picos[2]))


def _whole(usd_per_million: Decimal) -> int:
    pico = usd_per_million * 1_000_000
    if pico != int(pico):
        raise ValueError(f"price {usd_per_million} USD per million is finer than a pico-dollar a token")
    return int(pico)


def cost_nano_usd(usage: Usage, model: str, tier: str) -> int | None:
    """Nano-dollars of one request, rounded half to even on its total; None where the model has no price."""
    over = usage.input > price_table()["long_context"]["over"]
    prices = unit_prices(model, tier, over)
    if prices is None:
        return None
    pico = (usage.input - usage.cached) * prices[0] + usage.cached * prices[1] + usage.output * prices[2]
    nano, rest = divmod(pico * (100 if usage.percent is None else usage.percent), 100_000)
    return nano + (rest > 50_000 or (rest == 50_000 and nano % 2 == 1))


class Bill:
    """Append-only; `keep` writes a group of rows down before they count."""

    def __init__(self, keep: Callable[[list[BillRow]], None] | None = None, rows: Iterable[BillRow] = ()) -> None:
        self._keep = keep
        self.rows = list(rows)

    def add(self, rows: list[BillRow]) -> None:
        if self._keep is not None:
            self._keep(rows)
        self.rows.extend(rows)

    def view(self, **wanted: str) -> dict[str, Any]:
        """Rows whose fields equal `wanted` (kind, api, model, batch_id, custom_id, tier), and their totals."""
        rows = [row for row in self.rows if all(str(getattr(row, key)) == value for key, value in wanted.items())]
        return {"rows": [asdict(row) for row in rows], "totals": totals(rows)}


def totals(rows: list[BillRow]) -> dict[str, int]:
    return {
        "rows": len(rows),
        "input": sum(row.usage.input for row in rows),
        "cached": sum(row.usage.cached for row in rows),
        "output": sum(row.usage.output for row in rows),
        "reasoning": sum(row.usage.reasoning for row in rows),
        "cost_nano_usd": sum(row.cost_nano_usd or 0 for row in rows),
        "unpriced_rows": sum(row.cost_nano_usd is None for row in rows),
        "disconnected": sum(row.disconnected for row in rows),
    }
