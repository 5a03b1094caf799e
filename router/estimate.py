"""What a request will cost and take in each lane, before the call. Pure; prices come in as a function."""

from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import erf, exp, log, sqrt

from db.states import Lane, Tier
from jobs.chat import Request, Usage
from router.tokens import request_tokens
from router.wording import cap_of, output_tokens

Z95 = 1.6448536269514722  # the 0.95 quantile of the standard normal distribution


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of a request, in steps of 10 to 20 %: the estimate is no better, and equal sizes share a decision."""

    input_tokens: int
    output_p50: int
    output_p90: int


@dataclass(frozen=True, slots=True)
class Spread:
    """A lognormal quantity, known by its median and its 0.95 quantile."""

    p50: float
    p95: float

    def chance(self, value: float) -> float:
        """The probability of at most `value`."""
        if value <= 0:
            return 0.0
        if self.p95 == self.p50:
            return float(value >= self.p50)
        return 0.5 + 0.5 * erf(log(value / self.p50) / log(self.p95 / self.p50) * Z95 / sqrt(2))

    def quantile(self, z: float) -> float:
        """The quantile that lies at `z` of the standard normal distribution."""
        return self.p50 * exp(log(self.p95 / self.p50) * z / Z95)


@dataclass(frozen=True, slots=True)
class Priors:
    """What is believed about times before this installation has a history of its own; the policy holds the numbers."""

    first_token_s: Spread
    token_s: Spread  # seconds a token of the answer
    batch_s: Spread  # from submitting a batch to its end
    windows_s: Mapping[str, Spread] = field(default_factory=dict)  # of the background lane, from request to answer


@dataclass(frozen=True, slots=True)
class LaneEstimate:
    """One lane, taken alone; money is None where the price is unknown.

    Its finish counts the wait until it may be submitted at all, `wait_s`.
    """

    lane: Lane
    tier: Tier
    available: bool
    why_not: str | None
    cost_nano: int | None
    cost_p90_nano: int | None
    finish_p50_s: float
    finish_p95_s: float
    window: str | None = None  # of the background lane: 2h or 8h
    wait_s: float = 0.0

    def chance(self, seconds: float) -> float:
        """The probability that it is done within so many seconds."""
        return self._work.chance(seconds - self.wait_s)

    def quantile(self, z: float) -> float:
        """The seconds to its finish at `z` of the standard normal distribution."""
        return self.wait_s + self._work.quantile(z)

    @property
    def _work(self) -> Spread:
        return Spread(self.finish_p50_s - self.wait_s, self.finish_p95_s - self.wait_s)


@dataclass(frozen=True, slots=True)
class Estimates:
    """The size of a request, and what each lane would make of it."""

    size: Size
    lanes: tuple[LaneEstimate, ...]


def measure(request: Request) -> Size:
    """The size of a request, from its words and its form alone; no tokenizer and no network."""
    sent = request_tokens(request)
    p50, p90 = output_tokens(request, sent)
    p50, p90, most = _rounded(p50), _rounded(p90), cap_of(request)
    if most is not None:  # a cap is known, not estimated
        p50, p90 = min(p50, most), min(p90, most)
    return Size(_rounded(sent), p50, p90)


def estimate(
    size: Size,
    *,
    cost: Callable[[Usage, Lane, str | None], int | None],
    has_batch: bool | None,
    priors: Priors,
    has_background: bool = False,
    batch_wait_s: float = 0.0,
) -> Estimates:
    """Cost and finish in stream, sync and batch, and in each window of the background lane where that is there.

    `cost` is asked with the lane and its window. `has_batch` None is not known yet, and is tried; `batch_wait_s` is
    how long nothing may be submitted to it.
    """
    first, each = priors.first_token_s, priors.token_s
    live = Spread(first.p50 + size.output_p50 * each.p50, first.p95 + size.output_p90 * each.p95)
    no_batch = "this server has no Batch API" if has_batch is False else None
    median, large = Usage(size.input_tokens, size.output_p50), Usage(size.input_tokens, size.output_p90)

    def lane(name: Lane, work: Spread, why_not: str | None = None, window: str | None = None, wait_s: float = 0.0
             ) -> LaneEstimate:  # fmt: skip
        costs = cost(median, name, window), cost(large, name, window)
        finish = wait_s + work.p50, wait_s + work.p95
        return LaneEstimate(name, Tier.DEFAULT, why_not is None, why_not, *costs, *finish, window, wait_s)

    windows = priors.windows_s.items() if has_background else ()
    return Estimates(
        size,
        (
            lane(Lane.STREAM, live),
            lane(Lane.SYNC, live),
            lane(Lane.BATCH, priors.batch_s, no_batch, wait_s=batch_wait_s),
            *(lane(Lane.BACKGROUND, work, window=window) for window, work in windows),
        ),
    )


# Twelve steps a decade (the E12 series of preferred numbers): no estimate is better than the 10 % between them.
_SERIES = (10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82)
_STEPS: list[int] = [*range(1, 10), *(step * 10**decade for decade in range(8) for step in _SERIES)]
_BETWEEN = [(low + high) / 2 for low, high in pairwise(_STEPS)]


def _rounded(number: float) -> int:
    """The nearest step, at least 1."""
    return _STEPS[bisect(_BETWEEN, number)]
