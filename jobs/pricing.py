"""What a call cost, in whole nano-dollars, and how that is known.

A price of the user's own table goes before what genai-prices lists. Each price list is looked up once and kept as whole
numbers, so that pricing a row is a few multiplications.
"""

from datetime import UTC, date, datetime, time
from functools import lru_cache

from db.states import Lane
from jobs import prices_listed
from jobs.chat import Usage
from jobs.prices import PLAIN, UNKNOWN, WINDOWS, Price, Rates, variant
from jobs.prices_table import PriceTable

__all__ = ["PLAIN", "UNKNOWN", "WINDOWS", "Price", "price", "sells", "standard", "version"]


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


def standard(
    usage: Usage, *, model: str, provider: str, own: bool, at: datetime, table: PriceTable | None = None
) -> Price:
    """What the same usage costs as a plain call of the default tier."""
    return price(usage, model=model, provider=provider, own=own, lane=Lane.SYNC, tier=None, at=at, table=table)


@lru_cache(maxsize=256)
def sells(model: str, provider: str, tier: str, day: date) -> bool:
    """Whether the provider itself lists a price of this tier for the model."""
    return prices_listed.lists(model, provider, tier, datetime.combine(day, time(12), UTC))


def version(table: PriceTable | None = None) -> str:
    """The name of all prices together, as a re-pricing keeps it."""
    return f"{table.name} + {prices_listed.version()}" if table else prices_listed.version()


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
