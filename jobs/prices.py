"""Price lists as whole numbers: what a token of each kind costs, and what the usage of one request comes to. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from db.money import NANO
from db.states import CostSource, Lane
from jobs.chat import Usage

WINDOWS = {"2h": (7, 10), "8h": (6, 10)}  # of standard token rates: OpenAI's guide to background mode; no list has them
HALF = (1, 2)  # of standard token rates: what OpenAI and Anthropic publish for batches, and OpenAI for flex
PLAIN = frozenset({"", "default", "standard", "auto"})  # a served tier that means: no special price


class Price(NamedTuple):
    """`nano` is None where the price is unknown; `name` says which price was used."""

    nano: int | None
    source: CostSource
    name: str


UNKNOWN = Price(None, CostSource.UNKNOWN, "unknown")


class Band(NamedTuple):
    """Prices where a request has more than `above` input tokens, in one unit of a Rates.

    `input` and `output` are of a token. All others are what such a token, or search, costs more than that (or less);
    None where nobody says it.
    """

    above: int
    call: int
    input: int
    output: int
    cached: int
    written: int
    written_1h: int
    audio_input: int | None
    audio_output: int | None
    search: int | None


@dataclass(frozen=True, slots=True)
class Rates:
    """One price list: its bands, highest first, in units of `times`/`per` nano-dollar."""

    name: str
    source: CostSource
    hourly: bool  # holds for this moment only, not for the whole day
    times: int
    per: int
    bands: tuple[Band, ...]

    def price(self, usage: Usage) -> Price:
        """The usage of one request; UNKNOWN where its numbers contradict each other, or a kind has no price."""
        tokens, output, cached, written, _, written_1h, heard, spoken, searches, _ = usage
        if tokens < cached + written or output < 0 or cached < 0 or written < 0:
            return UNKNOWN
        for band in self.bands:
            if tokens > band[0]:
                break
        _, call, each_input, each_output, each_cached, each_written, *_ = band
        units = call + tokens * each_input + output * each_output
        if cached or written:
            units += cached * each_cached + written * each_written
        if written_1h or heard or spoken or searches:
            more = _more(band, usage)
            if more is None:
                return UNKNOWN
            units += more
        whole, rest = divmod(units * self.times, self.per)
        if rest:
            rest *= 2
            whole += rest > self.per or (rest == self.per and whole & 1)  # half to even
        return Price(whole, self.source, self.name)


def _more(band: Band, usage: Usage) -> int | None:
    """Units of what few requests have: None where one has no price, or is more than the whole that it is a part of.

    Never as text: a model's audio costs many times as much.
    """
    room = usage.input - usage.cached - usage.cache_write, usage.output, usage.searches
    kinds = usage.audio_input, usage.audio_output, usage.searches
    parts = ((usage.cache_write_1h, usage.cache_write), *zip(kinds, room, strict=True))
    if any(not 0 <= part <= whole for part, whole in parts):
        return None
    units = usage.cache_write_1h * band.written_1h
    for number, each in zip(kinds, (band.audio_input, band.audio_output, band.search), strict=True):
        if number and each is None:
            return None
        units += number * (each or 0)
    return units


def variant(lane: Lane, tier: str | None) -> str:
    """Our one word for the price list that a lane and a served tier ask for."""
    if lane is Lane.BATCH:
        return "batch"
    word = (tier or "").lower()
    if lane is Lane.BACKGROUND:
        return word if word in WINDOWS else "standard"
    return "standard" if word in PLAIN else word


Slopes = Mapping[str, Decimal | None]  # fields of a Band but `above`, in nano-dollars


def scaled(rows: Iterable[tuple[int, Slopes]]) -> tuple[int, tuple[Band, ...]]:
    """Bands as whole numbers, and how many of their units are a nano-dollar; the rows come highest first."""
    rows = list(rows)
    given = [value for _, slopes in rows for value in slopes.values() if value is not None]
    scale = max(0, *(-_exponent(value) for value in given))
    bands = (Band(above, **{name: _whole(value, scale) for name, value in slopes.items()}) for above, slopes in rows)  # type: ignore[arg-type]  # None only where a Band takes it
    return int(10**scale), tuple(bands)


def nano(usd_per_million: Decimal) -> Decimal:
    """Nano-dollars of one token."""
    return usd_per_million * NANO / 1_000_000


def _whole(value: Decimal | None, scale: int) -> int | None:
    return None if value is None else int(value.scaleb(scale))


def _exponent(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)  # never NaN or infinite: both sources check their numbers
    return exponent
