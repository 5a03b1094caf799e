"""Requests and tokens a minute, as providers tell them: in the headers of every answer and in refusals. No I/O."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite

from db.buckets import Gauge
from db.claims import Claim
from db.rates import Lesson
from db.states import Tier
from db.tables import Batch
from jobs.errors import CallError, Transient
from jobs.runner import Ended

TOLD_EVERY_S = 1.0  # what is heard of a model goes to the other workers so often; a refusal at once
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|d|h|m|s)")
_OF_TOKENS = re.compile(r"token|\bTPM\b")
_OPENAI = "x-ratelimit-{part}-{what}"
_ANTHROPIC = "anthropic-ratelimit-{what}-{part}"
_NAMES = {  # which headers tell it; of several the one that is nearest to its end counts
    "requests": ((_OPENAI, "requests"), (_ANTHROPIC, "requests")),
    "tokens": ((_OPENAI, "tokens"), (_OPENAI, "project-tokens"), (_ANTHROPIC, "tokens"),
               (_ANTHROPIC, "input-tokens"), (_ANTHROPIC, "output-tokens")),
}  # fmt: skip


def gauges(headers: Mapping[str, str], now: datetime) -> tuple[Gauge | None, Gauge | None]:
    """What an answer's headers say of requests and of tokens; None where they say nothing."""
    requests, tokens = (_tightest(_gauge(headers, *name, now) for name in _NAMES[what]) for what in _NAMES)
    return requests, tokens


def _tightest(found: Iterable[Gauge | None]) -> Gauge | None:
    told = [one for one in found if one is not None]
    return min(told, key=lambda one: (one.limit if one.left is None else one.left, one.limit), default=None)


def _gauge(headers: Mapping[str, str], form: str, what: str, now: datetime) -> Gauge | None:
    for prefix in ("", "llm_provider-"):  # LiteLLM's word for its upstream's
        limit = _number(headers.get(prefix + form.format(part="limit", what=what)))
        if limit:
            left = _number(headers.get(prefix + form.format(part="remaining", what=what)))
            return Gauge(limit, left, seconds(headers.get(prefix + form.format(part="reset", what=what)), now))
    return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "x")
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None


def seconds(value: str | None, now: datetime) -> float | None:
    """A reset as it is told: `6m0s`, `20ms`, plain seconds, or a time in RFC 3339; None for anything else."""
    text = (value or "").strip()
    if (number := _number(text)) is not None:
        return number
    if _DURATION.sub("", text) == "" and text:
        return sum(float(count) * _UNITS[unit] for count, unit in _DURATION.findall(text))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max((at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds(), 0.0)


def refusal(batch: Batch, error: Transient, sent_at: datetime, now: datetime) -> Lesson:
    """What a create says that was turned away, to whoever goes to the same model."""
    requests, tokens = gauges(error.headers, now)
    return Lesson(
        batch.provider, batch.base_url, batch.model, requests, tokens, age_s=max((now - sent_at).total_seconds(), 0.0),
        refused=_refused(error), sent_at=sent_at, wait_s=error.retry_after,
    )  # fmt: skip


def _refused(error: CallError) -> str:
    return "tokens" if _OF_TOKENS.search(str(error)) else "requests"


@dataclass(slots=True)
class _Heard:
    """Of one model, since it was told on."""

    headers: Mapping[str, str]
    sent_at: datetime
    told_at: datetime
    unspent: float = 0.0
    refusal: CallError | None = None
    refused_sent_at: datetime | None = None
    wait_s: float | None = None


class Lessons:
    """What one worker hears, until it tells the others."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls  # the base URL of each provider
        self._heard: dict[tuple[str, str], _Heard] = {}

    def hear(self, claim: Claim, sent_at: datetime, ended: Ended) -> None:
        """Take in how a call ended."""
        model = claim.provider, claim.model
        heard = self._heard.get(model)
        if heard is None:
            heard = self._heard[model] = _Heard(ended.headers, sent_at, datetime.min.replace(tzinfo=UTC))
        if ended.headers:
            heard.headers, heard.sent_at = ended.headers, sent_at
        charge, error = ended.charge, ended.error
        if charge.output_tokens is not None or charge.cost_nano == 0:
            taken = (charge.input_tokens or 0) + (charge.output_tokens or 0)
            heard.unspent += claim.input_tokens + claim.output_p90 - taken
        # Flex lives on what is left over: that it has no room says nothing of a limit.
        if isinstance(error, Transient) and error.turned_away and claim.tier != Tier.FLEX:
            heard.refusal, heard.refused_sent_at = error, max(sent_at, heard.refused_sent_at or sent_at)
            heard.wait_s = max(error.retry_after or 0.0, heard.wait_s or 0.0)

    def due(self, now: datetime) -> list[Lesson]:
        """What the others should hear now; it is taken as told."""
        since = now - timedelta(seconds=TOLD_EVERY_S)
        return [
            self._lesson(model, heard, now)
            for model, heard in self._heard.items()
            if heard.refusal is not None or (heard.told_at <= since and (heard.headers or heard.unspent))
        ]

    def _lesson(self, model: tuple[str, str], heard: _Heard, now: datetime) -> Lesson:
        requests, tokens = gauges(heard.headers, now)
        refused = None if heard.refusal is None else _refused(heard.refusal)
        lesson = Lesson(
            model[0], self._urls[model[0]], model[1], requests, tokens,
            age_s=max((now - heard.sent_at).total_seconds(), 0.0), unspent=heard.unspent,
            refused=refused, sent_at=heard.refused_sent_at, wait_s=heard.wait_s,
        )  # fmt: skip
        self._heard[model] = _Heard({}, heard.sent_at, now)
        return lesson
