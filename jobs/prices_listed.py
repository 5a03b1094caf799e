"""What genai-prices lists, behind guards: it gives a full standard price without a word wherever it knows no better.

A batch, flex or fast price that is missing, misspelt or starts later; audio without a price; a name that only begins
like a known one. Each is looked for before it is believed, and what is left is `assumed`.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from db.money import NANO
from db.states import CostSource
from jobs.prices import HALF, WINDOWS, Rates, Slopes, scaled

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

LIST = "genai-prices"  # how the name of each of its prices begins
_SNAPSHOT = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$")
_VERSION = re.compile(r"[-@:.\d]*(latest|v\d)?[-@:.\d]*")  # what may follow a name without making it another model's


class _Found(NamedTuple):
    seller: "Provider"
    info: "ModelInfo"
    sure: bool  # the name is this model's, and does not only look like it


class _Listing(NamedTuple):
    listed: bool
    prices: "ModelPrice"
    share: tuple[int, int]
    how: str


def version() -> str:
    """The name of the price list that is installed."""
    from genai_prices import __version__

    return f"{LIST} {__version__}"


def rates(model: str, provider: str, own: bool, variant: str, at: datetime) -> Rates | None:
    """The price list for a model at a moment, or None where nobody knows one."""
    found = _find(model, provider, own)
    if found is None:
        return None
    seller, info, sure = found
    listing = _listing(seller, info, variant, at)
    if listing.prices.input_mtok is None or listing.prices.output_mtok is None:
        return None  # sold by the minute, by the image …: tokens would come out as free
    source = CostSource.COMPUTED if own and sure and listing.listed else CostSource.ASSUMED
    unit, bands = _bands(listing.prices)
    name = f"{version()} {seller.id}/{info.id} {listing.how}{'' if sure else f', taken for {model}'}"
    times, per = listing.share
    return Rates(name, source, _hourly(info), times, unit * per, bands)


def lists(model: str, provider: str, variant: str, at: datetime) -> bool:
    """Whether the provider itself lists a price of this variant for the model."""
    found = _find(model, provider, own=True)
    return found is not None and _listing(found.seller, found.info, variant, at).listed


def _find(model: str, provider: str, own: bool) -> _Found | None:
    """The model under its provider; behind a compatible server, under whoever is known to sell it."""
    from genai_prices.data_snapshot import get_snapshot

    for name in (model, _SNAPSHOT.sub("", model)):  # a snapshot that is newer than the list
        for seller in (provider,) if own else (provider, None):
            try:
                sold, info = get_snapshot().find_provider_model(name, None, seller, None)
            except LookupError:
                continue
            return _Found(sold, info, name == model and _is_called(info, name.lower()))
    return None


def _is_called(info: "ModelInfo", name: str) -> bool:
    """Whether the name is one of the model's, a version apart: some models match whatever begins alike."""
    rests = [name.removeprefix(info.id.lower()), *_rests(info.match, name)]
    return any(_VERSION.fullmatch(rest) for rest in rests)


def _rests(clause: Any, name: str) -> Iterator[str]:
    """What is left of the name beside the words that each matching clause looks for."""
    for inner in (*getattr(clause, "or_", ()), *getattr(clause, "and_", ())):
        yield from _rests(inner, name)
    for kind in ("equals", "regex"):
        if getattr(clause, kind, None) is not None and clause.is_match(name):
            yield ""
    for kind in ("starts_with", "ends_with", "contains"):
        words = getattr(clause, kind, None)
        if words is not None and clause.is_match(name):
            yield name.replace(words.lower(), "", 1)


def _listing(seller: "Provider", info: "ModelInfo", variant: str, at: datetime) -> _Listing:
    """The variant's prices where it is really there and active; else the nearest that is published, not listed."""
    standard = info.get_prices(at)
    if variant == "standard":
        return _Listing(True, standard, (1, 1), "standard")
    if share := WINDOWS.get(variant):
        return _Listing(True, standard, share, f"standard × {share[0] / share[1]:g}, window {variant}")
    sold = any(info is one for one in seller.models)  # a model of another seller ignores the context
    entries = [
        (when, entry) for when in _contexts(variant) for entry in info.price_variants or () if entry.when == when
    ]
    for when, entry in entries if sold else ():
        if entry.constraint is None or entry.constraint.active(at):
            return _Listing(True, info.get_prices(at, when), (1, 1), variant)
    for when, entry in entries if sold else ():
        day = getattr(entry.constraint, "start_date", None)
        if day is not None and info.get_prices(start := datetime.combine(day, time(), UTC)) == standard:
            return _Listing(False, info.get_prices(start, when), (1, 1), f"{variant} as listed from {day}")
    halved = variant == "batch" or (variant == "flex" and entries)
    how = f"standard{' × 0.5' if halved else ''}, {variant} not listed"
    return _Listing(False, standard, HALF if halved else (1, 1), how)


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


def _bands(prices: "ModelPrice") -> tuple[int, Any]:
    """The price list as whole numbers, found by asking genai-prices itself what one token more costs."""
    floors = [-1, *sorted({tier.start for tier in _tiers(prices)})]
    return scaled((floor, _slopes(prices, max(floor + 2, 1))) for floor in reversed(floors))


def _tiers(prices: "ModelPrice") -> Iterator[Any]:
    from genai_prices.types import TieredPrices

    for value in vars(prices).values():
        if isinstance(value, TieredPrices):
            yield from value.tiers


def _slopes(prices: "ModelPrice", tokens: int) -> Slopes:
    """Nano-dollars of a call, and of one token more of each kind, around this many input tokens."""

    def cost(tokens: int, **more: int) -> Decimal:
        from genai_prices import Usage as Counts

        return prices.calc_price(Counts(input_tokens=tokens, **more))["total_price"] * NANO

    def one(key: str, **more: int) -> Decimal | None:
        return cost(tokens, **more) - here if getattr(prices, key) is not None else None

    here = cost(tokens)
    each, output = here - cost(tokens - 1), cost(tokens, output_tokens=1) - here
    written = cost(tokens, cache_write_tokens=1) - here
    spoken = one("output_audio_mtok", output_tokens=1, output_audio_tokens=1)
    return {
        "call": here - each * tokens,
        "input": each,
        "output": output,
        "cached": cost(tokens, cache_read_tokens=1) - here,
        "written": written,
        "written_1h": cost(tokens, cache_write_tokens=1, cache_write_1h_tokens=1) - here - written,
        "audio_input": one("input_audio_mtok", input_audio_tokens=1),
        "audio_output": None if spoken is None else spoken - output,
        "search": one("web_searches_kcount", web_searches=1),
    }
