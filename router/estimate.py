"""What a request will cost and take in each lane, before the call. Pure; prices come in as a function."""

from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class LaneEstimate:
    """One lane, taken alone; money is None where the price is unknown."""

    lane: Lane
    tier: Tier
    available: bool
    why_not: str | None
    cost_nano: int | None
    cost_p90_nano: int | None
    finish_p50_s: float
    finish_p95_s: float


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
    cost: Callable[[Usage, Lane], int | None],
    has_batch: bool | None,
    priors: Priors,
) -> Estimates:
    """Cost and finish in stream, sync and batch; `has_batch` None is not known yet, and is tried."""
    first, each = priors.first_token_s, priors.token_s
    live = (first.p50 + size.output_p50 * each.p50, first.p95 + size.output_p90 * each.p95)
    batch = (priors.batch_s.p50, priors.batch_s.p95)
    no_batch = "this server has no Batch API" if has_batch is False else None
    median = Usage(size.input_tokens, size.output_p50)
    large = Usage(size.input_tokens, size.output_p90)
    return Estimates(
        size,
        tuple(
            LaneEstimate(lane, Tier.DEFAULT, why_not is None, why_not, cost(median, lane), cost(large, lane), *seconds)
            for lane, why_not, seconds in (
                (Lane.STREAM, None, live),
                (Lane.SYNC, None, live),
                (Lane.BATCH, no_batch, batch),
            )
        ),
    )


# Twelve steps a decade (the E12 series of preferred numbers): no estimate is better than the 10 % between them.
_SERIES = (10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82)
_STEPS: list[int] = [*range(1, 10), *(step * 10**decade for decade in range(8) for step in _SERIES)]
_BETWEEN = [(low + high) / 2 for low, high in pairwise(_STEPS)]


def _rounded(number: float) -> int:
    """The nearest step, at least 1."""
    return _STEPS[bisect(_BETWEEN, number)]
