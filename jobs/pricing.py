"""What a call cost, in whole nano-dollars, and how that is known.

A price of the user's own table goes before what genai-prices lists. Each price list is looked up once and kept as whole
numbers, so that pricing a row is a few multiplications.
"""

from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any

from db.states import CostSource, Lane
from jobs import prices_listed
from jobs.chat import Usage
from jobs.prices import PLAIN, UNKNOWN, WINDOWS, Price, Rates, variant
from jobs.prices_table import PriceTable

__all__ = ["PLAIN", "UNKNOWN", "WINDOWS", "Price", "Tariff", "listed", "price", "sells", "version"]


def price(
    usage: Usage,
    *,
    model: str,
    provider: str,
    own: bool,
    lane: Lane,
    tier: str | None,
    at: datetime,
    table: PriceTable | None = None,
) -> Price:
    """What one request's usage costs; `tier` is the served tier in the provider's own word, `at` an aware time.

    In the background lane it is the window; one without a discount costs as much as a plain call.

    COMPUTED at the provider's own endpoint (`own`) and by the user's `table`, ASSUMED elsewhere and where a variant's
    price is not published. Never give it the sum of several requests: some models cost twice as much above 272,000
    input tokens a request.
    """
    rates = _rates_at(model, provider, own, lane, tier, at, table)
    return UNKNOWN if rates is None else rates.price(usage)


class Tariff:
    """What calls of one model cost in one lane at one time; price lists are looked up once for all rows of a batch."""

    def __init__(
        self, model: str, *, provider: str, own: bool, lane: Lane, at: datetime, table: PriceTable | None = None
    ) -> None:
        self.model, self.own = model, own
        self._lane = lane
        self._where: dict[str, Any] = {"provider": provider, "own": own, "at": at, "table": table}
        self._lists: dict[tuple[str | None, str], tuple[Rates | None, Rates | None, Rates | None]] = {}

    def price(self, usage: Usage, answered: str | None, served: str) -> tuple[Price, Price]:
        """What one call's usage costs, and what it would as a plain call; `served` is the tier.

        It costs what the model that `answered` does; but a server's own name for the one that was asked for has no
        price, and must not make a known price a guess.
        """
        if (lists := self._lists.get((answered, served))) is None:
            lists = self._lists[answered, served] = self._look_up(answered, served)
        rates, plain_rates, asked_rates = lists
        paid = UNKNOWN if rates is None else rates.price(usage)
        if asked_rates is not None and paid.source is not CostSource.COMPUTED:
            asked = asked_rates.price(usage)
            if paid.nano is None or (asked.nano == paid.nano and asked.source is CostSource.COMPUTED):
                paid = asked
        return paid, UNKNOWN if plain_rates is None else plain_rates.price(usage)

    def _look_up(self, answered: str | None, served: str) -> tuple[Rates | None, Rates | None, Rates | None]:
        """Of the model that answered, of a plain call, and of the model that was asked for where that is another."""
        other = answered not in (None, self.model)
        return (
            self._rates(answered or self.model, self._lane, served),
            self._rates(self.model, Lane.SYNC, None),
            self._rates(self.model, self._lane, served) if other else None,
        )

    def _rates(self, model: str, lane: Lane, tier: str | None) -> Rates | None:
        return _rates_at(model, lane=lane, tier=tier, **self._where)


@lru_cache(maxsize=256)
def sells(model: str, provider: str, tier: str, day: date) -> bool:
    """Whether the provider itself lists a price of this tier for the model."""
    return prices_listed.lists(model, provider, tier, datetime.combine(day, time(12), UTC))


def version(table: PriceTable | None = None) -> str:
    """The name of all prices together, as a re-pricing keeps it."""
    return f"{table.name} + {prices_listed.version()}" if table else prices_listed.version()


def listed(name: str | None) -> bool:
    """Whether a price of this name came from the list, and not from a user's table."""
    return name is not None and name.startswith(f"{prices_listed.LIST} ")


@lru_cache(maxsize=64)  # the rows of a batch have one time
def _rates_at(
    model: str, provider: str, own: bool, lane: Lane, tier: str | None, at: datetime, table: PriceTable | None
) -> Rates | None:
    if at.utcoffset() is None:
        raise ValueError(f"the time of a price needs a time zone: {at.isoformat()}")
    moment, word = at if at.tzinfo is UTC else at.astimezone(UTC), variant(lane, tier)
    if table is not None and (own_prices := table.rates(model, provider, own, word, moment)):
        return own_prices
    rates = _rates_of_day(model, provider, own, word, moment.date())
    if rates is not None and rates.hourly:
        rates = prices_listed.rates(model, provider, own, word, moment)
    return rates


@lru_cache(maxsize=4096)
def _rates_of_day(model: str, provider: str, own: bool, word: str, day: date) -> Rates | None:
    return prices_listed.rates(model, provider, own, word, datetime.combine(day, time(), UTC))
