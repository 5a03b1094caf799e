"""A provider's usage or cost export as lines: JSON of its API, CSV of its console, or a list of single requests."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from db.money import NANO
from jobs.errors import UsageError

Raw = Mapping[str, Any]
FORMS = (
    "what OpenAI's /v1/organization/usage/completions or /costs gives, Anthropic's usage_report/messages or "
    "cost_report, a list of batches, their consoles' CSV, or rows with a request_id or custom_id"
)


class Line(NamedTuple):
    """One thing that was billed; None where the bill does not say it. `nano` may be rounded by half of `unit`."""

    place: str  # where in the file
    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    batch: bool | None = None
    id: str | None = None
    custom_id: str | None = None
    requests: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    nano: int | None = None
    unit: int = 0


@dataclass(frozen=True, slots=True)
class Bill:
    """What a file holds. `kind` is usage, costs, requests or batches; `again` are the places of lines seen before."""

    kind: str
    provider: str | None
    lines: tuple[Line, ...]
    again: tuple[str, ...]


def read(path: Path) -> Bill:
    """The bill in a file. UsageError where it cannot be read, or is none that is known."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", code="bad_bill") from None
    rows, again = _once(_rows(path, text))
    if not rows:
        raise UsageError(f"{path}: no lines of a bill; it must be {FORMS}", code="bad_bill")
    kind, provider = _kind(path, rows)
    try:
        lines = tuple(_LINE[kind](place, raw) for place, raw in rows)
    except (ValueError, InvalidOperation, OverflowError) as error:
        raise UsageError(f"{path}: {error}", code="bad_bill") from None
    return Bill(kind, provider, lines, again)


def _rows(path: Path, text: str) -> Iterator[tuple[str, Raw]]:
    if text.lstrip()[:1] not in ("{", "["):
        for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
            yield f"line {number}", {str(key).strip(): value for key, value in row.items() if value not in ("", None)}
        return
    import json

    decoder, at = json.JSONDecoder(parse_float=Decimal), 0
    pages = 0
    while at < len(text.rstrip()):
        try:
            page, at = decoder.raw_decode(text, len(text) - len(text[at:].lstrip()))
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}: not JSON: {error}", code="bad_bill") from None
        pages += 1
        yield from _parts(page, f"page {pages}")


def _parts(page: Any, place: str) -> Iterator[tuple[str, Raw]]:
    """The lines of a page, its buckets or rows; each with the times of what it is in."""
    if isinstance(page, list):
        for number, one in enumerate(page, 1):
            yield from _parts(one, f"{place}, {number}")
        return
    if not isinstance(page, Mapping):
        return
    inner = next((page[key] for key in ("data", "results", "rows") if isinstance(page.get(key), list)), None)
    if inner is None:
        yield place, page
        return
    times = {key: page[key] for key in ("start_time", "end_time", "starting_at", "ending_at") if key in page}
    for number, one in enumerate(inner, 1):
        for where, raw in _parts(one, f"{place}, {number}"):
            yield where, {**times, **raw}


def _once(found: Iterable[tuple[str, Raw]]) -> tuple[list[tuple[str, Raw]], tuple[str, ...]]:
    """Each line once: an export never has two that are alike in every field."""
    seen: dict[str, str] = {}
    rows, again = [], []
    for place, raw in found:
        if (first := seen.setdefault(repr(sorted(raw.items(), key=str)), place)) == place:
            rows.append((place, raw))
        else:
            again.append(f"{place} is {first} once more")
    return rows, tuple(again)


def _kind(path: Path, rows: list[tuple[str, Raw]]) -> tuple[str, str | None]:
    """What the lines are, by the fields that only they have."""
    names = set().union(*(raw.keys() for _, raw in rows))
    objects = {str(raw.get("object", "")) for _, raw in rows}
    if objects == {"batch"}:
        return "batches", "openai"
    if names & {"request_id", "custom_id"}:
        return "requests", None
    if "organization.costs.result" in objects or names >= {"amount_value", "start_time"}:
        return "costs", "openai"
    if names & {"cost_usd"} or (isinstance(rows[0][1].get("amount"), str) and "starting_at" in names):
        return "costs", "anthropic"
    if names & {"uncached_input_tokens", "usage_input_tokens_no_cache"}:
        return "usage", "anthropic"
    if "num_model_requests" in names:
        return "usage", "openai"
    raise UsageError(f"{path}: {', '.join(sorted(names)[:8])} … are of no known bill: give {FORMS}", code="bad_bill")


# ---- fields ----


def _first(raw: Raw, *names: str) -> Any:
    return next((raw[name] for name in names if raw.get(name) is not None), None)


def _whole(raw: Raw, *names: str) -> int | None:
    value = _first(raw, *names)
    return None if value is None else int(Decimal(str(value)))


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    text = str(value).strip()
    if text.replace(".", "", 1).isdigit():
        return datetime.fromtimestamp(float(text), UTC)
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.utcoffset() is None else found.astimezone(UTC)


def _span(raw: Raw) -> tuple[datetime, datetime]:
    """From when until when; a day where no end is said."""
    since = _moment(_first(raw, "start_time", "starting_at", "start_time_iso", "usage_date_utc", "date"))
    if since is None:
        raise ValueError(f"a line without its time: {dict(raw)}")
    until = _moment(_first(raw, "end_time", "ending_at", "end_time_iso"))
    return since, until or since + timedelta(days=1)


def _flag(raw: Raw) -> bool | None:
    """Whether it was a batch, where the bill tells them apart."""
    said = _first(raw, "batch")
    if said is not None:
        return str(said).strip().lower() in ("true", "1")
    tier = _first(raw, "service_tier", "usage_type")
    return None if tier is None else str(tier).lower() == "batch"


def _money(value: Any, *, cents: bool = False) -> tuple[int, int]:
    """Nano-dollars, and one of the last digit that is written."""
    amount = Decimal(str(value)) / (100 if cents else 1)
    if not amount.is_finite():
        raise ValueError(f"{value!r} is no amount of money")
    places = amount.as_tuple().exponent
    assert isinstance(places, int)
    return int(amount * NANO), int(Decimal(1).scaleb(min(places, 0)) * NANO)


def _usage(place: str, raw: Raw) -> Line:
    if "input_tokens" in raw:
        told = _whole(raw, "input_tokens"), _whole(raw, "input_cached_tokens") or 0, _whole(raw, "output_tokens")
    else:
        written = raw.get("cache_creation") or {}
        kept = (
            _whole(raw, f"usage_input_tokens_cache_write_{time}") or _whole(written, f"ephemeral_{time}_input_tokens")
            for time in ("5m", "1h")
        )
        cached = _whole(raw, "cache_read_input_tokens", "usage_input_tokens_cache_read") or 0
        fresh = _whole(raw, "uncached_input_tokens", "usage_input_tokens_no_cache") or 0
        told = (
            fresh + cached + sum(one or 0 for one in kept),
            cached,
            _whole(raw, "output_tokens", "usage_output_tokens"),
        )
    model = _first(raw, "model", "model_version")
    return Line(place, *_span(raw), model, _flag(raw), None, None, _whole(raw, "num_model_requests"), *told)


def _cost(place: str, raw: Raw) -> Line:
    amount = raw.get("amount")
    currency = _first(amount, "currency") if isinstance(amount, Mapping) else _first(raw, "currency", "amount_currency")
    if str(currency or "usd").lower() != "usd":
        raise ValueError(f"{place} is in {currency}, and the ledger in US dollars")
    if isinstance(amount, Mapping):
        nano = _money(amount.get("value", 0))
    elif amount is not None:
        nano = _money(amount, cents=True)  # Anthropic's cost_report
    else:
        nano = _money(_first(raw, "amount_value", "cost_usd"))
    item = _first(raw, "line_item")  # "gpt-4o-mini-2024-07-18, input"
    model = _first(raw, "model") or (str(item).partition(",")[0].strip() if item else None)
    tier = _flag(raw) if "line_item" not in raw else None
    return Line(place, *_span(raw), model, tier, None, None, None, None, None, None, *nano)


def _request(place: str, raw: Raw) -> Line:
    usage = raw.get("usage") if isinstance(raw.get("usage"), Mapping) else raw
    assert isinstance(usage, Mapping)
    told = (_whole(usage, "input_tokens", "input", "prompt_tokens"), _whole(usage, "cached_tokens", "cached"),
            _whole(usage, "output_tokens", "output", "completion_tokens"))  # fmt: skip
    if raw.get("cost_nano_usd") is not None:
        nano: tuple[int | None, int] = int(raw["cost_nano_usd"]), 0
    else:
        said = _first(raw, "cost_usd", "cost")
        nano = (None, 0) if said is None else _money(said)
    at = _moment(_first(raw, "at", "created_at", "timestamp", "date"))
    ids = _first(raw, "request_id"), _first(raw, "custom_id")
    return Line(place, at, at, _first(raw, "model"), None, *ids, 1, *told, *nano)


def _batch(place: str, raw: Raw) -> Line:
    usage, details = raw.get("usage") or {}, (raw.get("usage") or {}).get("input_tokens_details") or {}
    at = _moment(_first(raw, "created_at"))
    counts = raw.get("request_counts") or {}
    told = _whole(usage, "input_tokens"), _whole(details, "cached_tokens"), _whole(usage, "output_tokens")
    return Line(place, at, at, _first(raw, "model"), True, str(raw.get("id")), None, _whole(counts, "completed"), *told)


_LINE = {"usage": _usage, "costs": _cost, "requests": _request, "batches": _batch}
