"""The user's price table from its TOML file, every mistake in it named at once, each with its line."""

import hashlib
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from jobs.prices import PLAIN
from jobs.prices_table import EVER, FIELDS, PriceTable, Row
from router.tables import Source, Table

MOST = 1_000_000  # dollars a million tokens: more is a slip of the hand


def read(path: Path) -> PriceTable:
    """The table of a file. UsageError for one that cannot be read, Mistakes for what is wrong in it."""
    source = Source(path, "prices")
    whole = Table(source, source.data)
    tables = whole.tables("price", "price")
    rows = [_row(one) for one in tables]
    whole.end()
    _clashes(tables, rows)
    source.end()
    mark = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return PriceTable(f"{path.name}@{mark}", rows)


def _row(given: Table) -> Row:
    model = _name(given, "model")
    provider = _name(given, "provider") if "provider" in given.data else None
    tier = _name(given, "tier") if "tier" in given.data else "standard"
    since = _moment(given)
    above = _floor(given)
    prices = {key: _price(given, key) for key in FIELDS if key in given.data or key in ("input", "output")}
    given.known = ["model", "provider", "tier", "from", "above", *FIELDS]
    given.end()
    return Row(model, provider, "standard" if tier in PLAIN else tier, since, above, prices)


def _name(given: Table, key: str) -> str:
    """Small letters; a last * stands for any ending, of a model's name alone."""
    before, word = given.source.found, str(given.take(key, str)).strip().lower()
    if before == given.source.found and (not word or "*" in (word[:-1] if key == "model" else word)):
        given.wrong(f"'{key}' must be a name{', a * only at its end' if key == 'model' else ''}, not {word!r}", key)
    return word


def _price(given: Table, key: str) -> Decimal:
    before = given.source.found
    value = given.take(key, float, int)
    if before == given.source.found and not 0 <= value <= MOST:  # NaN is neither
        given.wrong(f"'{key}' must be US dollars from 0 to {MOST:,}, not {value}", key)
        return Decimal(0)
    return Decimal(str(value))  # what was written: a float of so few digits shows them again


def _floor(given: Table) -> int:
    if "above" not in given.data:
        return -1
    before, value = given.source.found, given.take("above", int)
    if before == given.source.found and value <= 0:
        given.wrong(f"'above' must be a number of input tokens, not {value}", "above")
    return int(value)


def _moment(given: Table) -> datetime:
    """A day begins at midnight UTC."""
    value = given.data.pop("from", EVER)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            given.wrong(f"'from' needs a time zone, as in 2027-01-31T00:00:00Z, not {value}", "from")
            return EVER
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    given.wrong(f"'from' must be a date, as in 2027-01-31, not {value!r}", "from")
    return EVER


def _clashes(tables: list[Table], rows: list[Row]) -> None:
    """Rows for the same thing, and prices of large requests where small ones have none."""
    first: dict[tuple[Any, ...], Table] = {}
    for given, row in zip(tables, rows, strict=True):
        if row.model and (other := first.setdefault(row.key, given)) is not given:
            given.wrong(f"is for the same thing as {other.name}")
    for given, row in zip(tables, rows, strict=True):
        if row.above >= 0 and (*row.key[:-1], -1) not in first:
            given.wrong("'above' is given, and no price of the same model, tier and date without it", "above")
