"""A provider with limits: so many requests and tokens a minute of each model, told with every answer, and 429s."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

from jobs.sandbox.errors import ApiError
from jobs.sandbox.settings import SandboxSettings

MINUTE = 60.0


class Bucket:
    """What one model has left of one limit; time fills it to `burst_s` seconds' worth."""

    __slots__ = ("at", "left", "limit", "room")

    def __init__(self, limit: float, burst_s: float, now: float) -> None:
        self.limit = limit
        self.room = max(limit * burst_s / MINUTE, 1.0)
        self.left = self.room
        self.at = now

    def turn(self, now: float) -> None:
        self.left = min(self.left + (now - self.at) * self.limit / MINUTE, self.room)
        self.at = now

    def wait_s(self, cost: float) -> float:
        """Seconds until so much is there; what is more than all of it needs all of it."""
        return max(min(cost, self.room) - self.left, 0.0) / self.limit * MINUTE

    def full_s(self) -> float:
        return max(self.room - max(self.left, 0.0), 0.0) / self.limit * MINUTE  # a debt is not told


class Limits:
    """The limits of one sandbox, where its settings give it any."""

    def __init__(self, settings: SandboxSettings, clock: Callable[[], float]) -> None:
        given = {"requests": settings.requests_per_minute, "tokens": settings.tokens_per_minute}
        self._limits = {name: limit for name, limit in given.items() if limit is not None}
        self._burst_s = settings.burst_seconds
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    @property
    def any(self) -> bool:
        return bool(self._limits)

    def take(self, model: str, tokens: int, anthropic: bool) -> tuple[bytes, ApiError | None]:
        """Take what a request of so many tokens costs: the headers that tell what is left, and perhaps a 429."""
        now = self._clock()
        buckets = {name: self._bucket(model, name, now) for name in self._limits}
        costs = {"requests": 1, "tokens": tokens}
        waits = {name: bucket.wait_s(costs[name]) for name, bucket in buckets.items()}
        short = max(waits, key=lambda name: waits[name])
        refusal = _refusal(short, model, self._limits[short], waits[short]) if waits[short] > 0 else None
        if refusal is None:
            for name, bucket in buckets.items():
                bucket.left -= costs[name]
        told = _anthropic(buckets, now) if anthropic else _openai(buckets)
        return b"".join(f"{name}: {value}\r\n".encode() for name, value in told), refusal

    def _bucket(self, model: str, name: str, now: float) -> Bucket:
        if (model, name) not in self._buckets:
            self._buckets[model, name] = Bucket(self._limits[name], self._burst_s, now)
        bucket = self._buckets[model, name]
        bucket.turn(now)
        return bucket


def _openai(buckets: dict[str, Bucket]) -> list[tuple[str, str]]:
    return [
        pair
        for name, bucket in buckets.items()
        for pair in (
            (f"x-ratelimit-limit-{name}", f"{bucket.limit:.0f}"),
            (f"x-ratelimit-remaining-{name}", f"{max(math.floor(bucket.left), 0)}"),
            (f"x-ratelimit-reset-{name}", duration(bucket.full_s())),
        )
    ]


def _anthropic(buckets: dict[str, Bucket], now: float) -> list[tuple[str, str]]:
    return [
        pair
        for name, bucket in buckets.items()
        for pair in (
            (f"anthropic-ratelimit-{name}-limit", f"{bucket.limit:.0f}"),
            (f"anthropic-ratelimit-{name}-remaining", f"{max(math.floor(bucket.left), 0)}"),
            (f"anthropic-ratelimit-{name}-reset", _time(now + bucket.full_s())),
        )
    ]


def _time(at: float) -> str:
    return datetime.fromtimestamp(math.ceil(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """As OpenAI writes one: `20ms`, `1.5s`, `6m0s`, `1h0m12s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, MINUTE)
    hours, minutes = divmod(int(minutes), 60)
    shown = f"{math.floor(rest * 1000) / 1000:g}s"
    return (f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else "") + shown


def _refusal(name: str, model: str, limit: float, wait_s: float) -> ApiError:
    of = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[name]
    text = f"Rate limit reached for {model} in organization shunter-sandbox on {of}: Limit {limit:.0f}. "
    headers = {"retry-after": f"{math.ceil(wait_s)}", "retry-after-ms": f"{math.ceil(wait_s * 1000)}"}
    return ApiError(
        429, f"{text}Please try again in {duration(wait_s)}.", kind=name, code="rate_limit_exceeded", headers=headers
    )
