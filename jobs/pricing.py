"""What a call cost, in whole nano-dollars, and how that is known. The only place where Decimal is used.

Prices come from genai-prices, which gives the full standard price without a word wherever a batch, flex or fast
price is missing, misspelt or starts later. So each variant is looked for before it is believed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from db.states import CostSource, Lane
from jobs.chat import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

NANO = 1_000_000_000
WINDOWS = {"2h": (7, 10), "8h": (6, 10)}  # of standard token rates: OpenAI's guide to background mode; no list has them
PLAIN = frozenset({"", "default", "standard", "auto"})  # a served tier that means: no special price


class Price(NamedTuple):
    """`nano` is None where the price is unknown; `name` says which price was used."""

    nano: int | None
    source: CostSource
    name: str


UNKNOWN = Price(None, CostSource.UNKNOWN, "unknown")


@dataclass(frozen=True, slots=True)
class _Band:
    """Whole-number prices of a token where a request has more than `above` input tokens.

    `cached` and `written` are what such a token costs more, or less, than a plain input token.
    """

    above: int
    call: int
    input: int
    cached: int
    written: int
    output: int


@dataclass(frozen=True, slots=True)
class _Rates:
    """One price list: its bands, highest first, in units of `times`/`per` nano-dollar."""

    name: str
    source: CostSource
    hourly: bool  # holds for this moment only, not for the whole day
    times: int
    per: int
    bands: tuple[_Band, ...]

    def price(self, usage: Usage) -> Price:
        """The usage of one request; UNKNOWN where its numbers contradict each other."""
        plain = usage.input - usage.cached - usage.cache_write
        if plain < 0 or usage.cached < 0 or usage.cache_write < 0 or usage.output < 0:
            return UNKNOWN
        for band in self.bands:
            if usage.input > band.above:
                break
        units = band.call + usage.input * band.input + usage.output * band.output
        if usage.cached or usage.cache_write:
            units += usage.cached * band.cached + usage.cache_write * band.written
        return Price(_half_even(units * self.times, self.per), self.source, self.name)


def price(usage: Usage, *, model: str, provider: str, own: bool, lane: Lane, tier: str | None, at: datetime) -> Price:
    """What one request's usage costs; `tier` is the served tier in the provider's own word, `at` an aware time.

    In the background lane it is the window; one without a discount costs as much as a plain call.

    COMPUTED at the provider's own endpoint (`own`), ASSUMED elsewhere and where a variant's price is not published.
    Never give it the sum of several requests: some models cost twice as much above 272,000 input tokens a request.
    """
    rates = _rates_at(model, provider, own, lane, tier, at)
    return UNKNOWN if rates is None else rates.price(usage)


def standard(usage: Usage, *, model: str, provider: str, own: bool, at: datetime) -> Price:
    """What the same usage costs as a plain call of the default tier."""
    return price(usage, model=model, provider=provider, own=own, lane=Lane.SYNC, tier=None, at=at)


@lru_cache(maxsize=256)
def sells(model: str, provider: str, tier: str, day: date) -> bool:
    """Whether the provider itself lists a price of this tier for the model."""
    found = _find(model, provider, own=True)
    return found is not None and _listed(*found, tier, datetime.combine(day, time(12), UTC))[0]


def _variant(lane: Lane, tier: str | None) -> str:
    """Our one word for the price list that a lane and a served tier ask for."""
    if lane is Lane.BATCH:
        return "batch"
    word = (tier or "").lower()
    if lane is Lane.BACKGROUND:
        return word if word in WINDOWS else "standard"
    return "standard" if word in PLAIN else word


@lru_cache(maxsize=64)  # the rows of a batch have one time
def _rates_at(model: str, provider: str, own: bool, lane: Lane, tier: str | None, at: datetime) -> _Rates | None:
    if at.utcoffset() is None:
        raise ValueError(f"the time of a price needs a time zone: {at.isoformat()}")
    moment = at if at.tzinfo is UTC else at.astimezone(UTC)
    rates = _rates_of_day(model, provider, own, _variant(lane, tier), moment.date())
    if rates is not None and rates.hourly:
        rates = _rates(model, provider, own, _variant(lane, tier), moment)
    return rates


@lru_cache(maxsize=4096)
def _rates_of_day(model: str, provider: str, own: bool, variant: str, day: date) -> _Rates | None:
    return _rates(model, provider, own, variant, datetime.combine(day, time(), UTC))


def _rates(model: str, provider: str, own: bool, variant: str, at: datetime) -> _Rates | None:
    """The price list for a model at a moment, or None where nobody knows one."""
    from genai_prices import __version__

    found = _find(model, provider, own)
    if found is None:
        return None
    seller, info = found
    window = WINDOWS.get(variant)
    listed, prices = _listed(seller, info, "standard" if window else variant, at)
    if prices.input_mtok is None or prices.output_mtok is None:
        return None  # sold by the minute, by the image …: tokens would come out as free
    source = CostSource.COMPUTED if own and listed else CostSource.ASSUMED
    times, per = window or ((1, 2) if variant == "batch" and not listed else (1, 1))
    how = f"{'standard' if window or not listed else variant}{f' × {times / per:g}' if per > 1 else ''}"
    told = f", window {variant}" if window else "" if listed else f", {variant} not listed"
    name = f"genai-prices {__version__} {seller.id}/{info.id} {how}{told}"
    unit, bands = _bands(prices)
    return _Rates(name, source, _hourly(info), times, unit * per, bands)


def _find(model: str, provider: str, own: bool) -> "tuple[Provider, ModelInfo] | None":
    """The model under its provider; behind a compatible server, under whoever is known to sell it."""
    from genai_prices.data_snapshot import get_snapshot

    for seller in (provider,) if own else (provider, None):
        try:
            return get_snapshot().find_provider_model(model, None, seller, None)
        except LookupError:
            continue
    return None


def _listed(seller: "Provider", info: "ModelInfo", variant: str, at: datetime) -> "tuple[bool, ModelPrice]":
    """Whether the variant is really there and active, and its prices; the standard ones where it is not."""
    if variant == "standard":
        return True, info.get_prices(at)
    if any(info is sold for sold in seller.models):  # a model of another seller ignores the context
        for when in _contexts(variant):
            for entry in info.price_variants or ():
                if entry.when == when and (entry.constraint is None or entry.constraint.active(at)):
                    return True, info.get_prices(at, when)
    return False, info.get_prices(at)


def _contexts(variant: str) -> tuple[dict[str, str], ...]:
    """The words under which genai-prices may keep a variant; Anthropic's "priority" is no fast mode."""
    match variant:
        case "batch":
            return ({"processing": "batch"},)
        case "fast":
            return ({"service_tier": "fast"}, {"speed": "fast"})
        case _:
            return ({"service_tier": variant},)


def _hourly(info: "ModelInfo") -> bool:
    """Whether some price of the model holds for hours of the day only."""
    from genai_prices.types import TimeOfDateConstraint

    entries: list[Any] = [*(info.prices if isinstance(info.prices, list) else ()), *(info.price_variants or ())]
    return any(isinstance(entry.constraint, TimeOfDateConstraint) for entry in entries)


def _bands(prices: "ModelPrice") -> tuple[int, tuple[_Band, ...]]:
    """The price list as whole numbers, found by asking genai-prices itself what one token more costs."""
    floors = [-1, *sorted({tier.start for tier in _tiers(prices)})]
    rows = [(floor, _slopes(prices, max(floor + 2, 1))) for floor in reversed(floors)]
    places = max((-_exponent(value) for _, row in rows for value in row), default=0)
    scale = max(places, 0)
    bands = tuple(_Band(floor, *(int(value.scaleb(scale)) for value in row)) for floor, row in rows)
    return int(10**scale), bands


def _tiers(prices: "ModelPrice") -> Iterator[Any]:
    from genai_prices.types import TieredPrices

    for value in vars(prices).values():
        if isinstance(value, TieredPrices):
            yield from value.tiers


def _slopes(prices: "ModelPrice", tokens: int) -> tuple[Decimal, Decimal, Decimal, Decimal, Decimal]:
    """Nano-dollars of a call, and of one token more of each kind, around this many input tokens."""

    def cost(tokens: int, **more: int) -> Decimal:
        from genai_prices import Usage as Counts

        return prices.calc_price(Counts(input_tokens=tokens, **more))["total_price"] * NANO

    here = cost(tokens)
    each = here - cost(tokens - 1)
    return (
        here - each * tokens,
        each,
        cost(tokens, cache_read_tokens=1) - here,
        cost(tokens, cache_write_tokens=1) - here,
        cost(tokens, output_tokens=1) - here,
    )


def _exponent(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)  # never NaN or infinite: genai-prices checks its data
    return exponent


def _half_even(units: int, per: int) -> int:
    whole, rest = divmod(units, per)
    return whole + (2 * rest > per or (2 * rest == per and whole & 1))
