"""The user's own price table: what self-hosted, unlisted or negotiated models cost, in dated rows. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from db.states import CostSource
from jobs.prices import HALF, WINDOWS, Rates, Slopes, nano, scaled

FIELDS = ("input", "output", "cached", "cache_write", "cache_write_1h", "audio_input", "audio_output", "search")
EVER = datetime.min.replace(tzinfo=UTC)

Sent = tuple[str, str, bool, str]  # model, provider, whether to the provider's own address, variant


@dataclass(frozen=True, slots=True)
class Row:
    """One price: USD per million tokens (FIELDS), per thousand for searches.

    `model` is in small letters, and may end in * for any that begin so. It holds from `since` on, for requests with
    more than `above` input tokens.
    """

    model: str
    provider: str | None
    tier: str
    since: datetime
    above: int
    prices: Mapping[str, Decimal]

    @property
    def key(self) -> tuple[Any, ...]:
        """No two rows have the same."""
        return self.model, self.provider, self.tier, self.since, self.above

    def fits(self, model: str, provider: str) -> bool:
        """Whether it is a price of this model there."""
        named = model.startswith(self.model[:-1]) if self.model.endswith("*") else model == self.model
        return named and self.provider in (None, provider)


class PriceTable:
    """Rows as they were checked; `name` changes with the file's content."""

    def __init__(self, name: str, rows: Iterable[Row]) -> None:
        self.name, self.rows = name, tuple(rows)
        self._known: dict[tuple[Sent, datetime], Rates | None] = {}
        self._turns = {row.since for row in self.rows}

    def rates(self, model: str, provider: str, own: bool, variant: str, at: datetime) -> Rates | None:
        """The prices of a model at a moment; None where the table has none.

        A variant without rows costs what the standard ones say on a server of the user's. At a provider's own address
        it is the published share of them, or all of it as ASSUMED.
        """
        since = max((turn for turn in self._turns if turn <= at), default=EVER)
        key = (model.lower(), provider, own, variant), since
        if key not in self._known:
            self._known[key] = self._rates(*key)
        return self._known[key]

    def _rates(self, sent: Sent, at: datetime) -> Rates | None:
        model, provider, own, variant = sent
        mine = [row for row in self.rows if row.fits(model, provider) and row.since <= at]
        if rows := _newest(mine, variant):
            return self._listed(rows, variant)
        rows = _newest(mine, "standard")
        if not rows or not own:
            return self._listed(rows, "standard") if rows else None
        if share := WINDOWS.get(variant):
            return self._listed(rows, f"standard × {share[0] / share[1]:g}", share)
        halved = variant in ("batch", "flex")
        how = f"standard{' × 0.5' if halved else ''}, no {variant} price"
        return self._listed(rows, how, HALF if halved else (1, 1), CostSource.ASSUMED)

    def _listed(
        self, rows: list[Row], how: str, share: tuple[int, int] = (1, 1), source: CostSource = CostSource.COMPUTED
    ) -> Rates:
        unit, bands = scaled((row.above, _slopes(row)) for row in sorted(rows, key=lambda row: -row.above))
        return Rates(f"{self.name} {rows[0].model} {how}", source, False, share[0], unit * share[1], bands)


def _newest(rows: list[Row], tier: str) -> list[Row]:
    """The bands that hold now: of the rows that name the model most exactly, those that began last."""
    found = [row for row in rows if row.tier == tier]
    best = max((_rank(row) for row in found), default=None)
    return [row for row in found if _rank(row) == best]


def _rank(row: Row) -> tuple[bool, int, bool, datetime]:
    return not row.model.endswith("*"), len(row.model), row.provider is not None, row.since


def _slopes(row: Row) -> Slopes:
    """Cached and written tokens cost as plain input where nothing else is said; audio and searches are then unknown."""
    given = row.prices
    written = given.get("cache_write", given["input"])
    search = given.get("search")
    return {
        "call": Decimal(0),
        "input": nano(given["input"]),
        "output": nano(given["output"]),
        "cached": nano(given.get("cached", given["input"]) - given["input"]),
        "written": nano(written - given["input"]),
        "written_1h": nano(given.get("cache_write_1h", written) - written),
        "audio_input": nano(given["audio_input"] - given["input"]) if "audio_input" in given else None,
        "audio_output": nano(given["audio_output"] - given["output"]) if "audio_output" in given else None,
        "search": None if search is None else nano(search * 1000),
    }
