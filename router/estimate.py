"""What a request will cost and take in each lane, before the call. Pure; prices come in as a function."""

from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from math import erf, exp, hypot, log, sqrt
from statistics import NormalDist
from typing import NamedTuple

from db.states import Lane, Tier
from jobs.chat import Request, Usage
from router.lengths import Seen
from router.tokens import Count, request_tokens, text_tokens
from router.wording import cap_of, output_tokens

SLOW = (Lane.BATCH, Lane.BACKGROUND)
NO_BATCH = "this server has no Batch API"
Z95 = 1.6448536269514722  # the 0.95 quantile of the standard normal distribution
_ROOT_2 = sqrt(2)


class Size(NamedTuple):
    """Tokens of a request, in steps of 10 to 20 % where they are estimated: that is no better, and equal sizes share a
    decision."""

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
        p50, p95 = self.p50, self.p95
        if p95 == p50:
            return float(value >= p50)
        return 0.5 + 0.5 * erf(log(value / p50) / log(p95 / p50) * Z95 / _ROOT_2)

    def quantile(self, z: float) -> float:
        """The quantile that lies at `z` of the standard normal distribution."""
        return self.p95 if z == Z95 else self.p50 * exp(log(self.p95 / self.p50) * z / Z95)

    def times(self, other: "Spread") -> "Spread":
        """The product of two such quantities that know nothing of each other."""
        p50 = self.p50 * other.p50
        return Spread(p50, p50 * exp(hypot(log(self.p95 / self.p50), log(other.p95 / other.p50))))


@dataclass(frozen=True, slots=True)
class Priors:
    """What is believed about times before this installation has a history of its own; the policy holds the numbers."""

    first_token_s: Spread
    token_s: Spread  # seconds a token of the answer
    batch_s: Spread  # from packing a batch to its answers being here
    windows_s: Mapping[str, Spread] = field(default_factory=dict)  # of the background lane, from request to answer
    flex_times: Spread = Spread(2.0, 10.0)  # a flex call, in plain calls
    flex_refused: float = 0.2  # of flex calls for which there is no room as long as they may wait
    batch_lost: float = 0.02  # of batches that run out of time, or fail, instead of being done

    def live_s(self, size: Size) -> Spread:
        """A plain call."""
        first, each = self.first_token_s, self.token_s
        return Spread(first.p50 + size.output_p50 * each.p50, first.p95 + size.output_p90 * each.p95)

    def times(self, size: Size) -> "Times":
        """What each lane takes for a request of this size."""
        live = self.live_s(size)
        return Times(
            live, live.times(self.flex_times), self.batch_s, self.windows_s, self.flex_refused, self.batch_lost
        )


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that each lane takes for one request, once it may begin; `queue_s` is what waits ahead of a live call."""

    live_s: Spread
    flex_s: Spread
    batch_s: Spread
    windows_s: Mapping[str, Spread]
    flex_refused: float
    batch_lost: float
    queue_s: float = 0.0
    batches_seen: int = 0  # that this rests on, beside the priors
    calls_seen: int = 0


@dataclass(frozen=True, slots=True)
class LaneEstimate:
    """One lane and tier, taken alone; money is None where the price is unknown.

    It begins after `wait_s`; a share of `lost` is never done there.
    """

    lane: Lane
    tier: Tier
    available: bool
    why_not: str | None
    cost_nano: int | None
    cost_p90_nano: int | None
    work_s: Spread
    finish_p50_s: float  # seconds to its finish, in the middle of what can be
    finish_p95_s: float
    window: str | None = None  # of the background lane: 2h or 8h
    wait_s: float = 0.0
    lost: float = 0.0
    slow: bool = False  # nobody may wait for it: a lane of hours, or a tier that is served when there is room

    def chance(self, seconds: float) -> float:
        """The probability that it is done within so many seconds."""
        return (1 - self.lost) * self.work_s.chance(seconds - self.wait_s)

    def quantile(self, z: float) -> float:
        """The seconds to its finish at `z` of the standard normal distribution."""
        return finish_s(self.work_s, self.wait_s, self.lost, z)


@dataclass(frozen=True, slots=True)
class Estimates:
    """The size of a request, and what each lane would make of it."""

    size: Size
    times: Times
    lanes: tuple[LaneEstimate, ...]


def finish_s(work_s: Spread, wait_s: float, lost: float, z: float) -> float:
    """The seconds to the end of such work, begun after a wait, at `z` of the standard normal distribution."""
    return wait_s + work_s.quantile(beyond_lost(z, lost))


_NORMAL = NormalDist()
_SURE = 3.7  # as far as any distribution here is believed


@lru_cache(maxsize=1024)
def beyond_lost(z: float, lost: float) -> float:
    """Where `z` lies among those that do end, when a share of `lost` never does."""
    if not lost:
        return z
    share = _NORMAL.cdf(z) / (1 - lost)
    return _SURE if share >= 1 else min(_NORMAL.inv_cdf(share), _SURE)


def measure(request: Request, seen: Seen | None = None, count: Count | None = None) -> Size:
    """The size of a request, from its words and its form, and the earlier answers of its template.

    Its own texts are estimated, or counted by `count`.
    """
    sent = request_tokens(request, count or text_tokens)
    p50, p90 = output_tokens(request, sent, seen=seen)
    p50, p90, most = rounded(p50), rounded(p90), cap_of(request)
    if most is not None:  # a cap is known, not estimated
        p50, p90 = min(p50, most), min(p90, most)
    return Size(round(sent) if count else rounded(sent), p50, p90)


def estimate(
    size: Size,
    *,
    cost: Callable[[Usage, Lane, str | None], int | None],
    times: Times,
    has_batch: bool | None,
    has_background: bool = False,
    has_flex: bool = False,
    with_fast: bool = False,
    batch_wait_s: float = 0.0,
) -> Estimates:
    """Cost and finish in stream, sync and batch, and in flex and each background window where those are there.

    `cost` is asked with the lane and its tier or window. `has_batch` None is not known yet, and is tried;
    `batch_wait_s` is how long nothing may be submitted to it.
    """
    no_batch = NO_BATCH if has_batch is False else None
    median, large = Usage(size.input_tokens, size.output_p50), Usage(size.input_tokens, size.output_p90)

    def lane(name: Lane, work: Spread, tier: Tier = Tier.DEFAULT, why_not: str | None = None,
             window: str | None = None, wait_s: float = 0.0, lost: float = 0.0) -> LaneEstimate:  # fmt: skip
        usual, dear = (cost(usage, name, window or tier.value) for usage in (median, large))
        p50_s, p95_s = (finish_s(work, wait_s, lost, z) for z in (0.0, Z95))
        there = why_not is None
        slow = name in SLOW or tier is Tier.FLEX
        return LaneEstimate(name, tier, there, why_not, usual, dear, work, p50_s, p95_s, window, wait_s, lost, slow)

    queued = times.queue_s
    lanes = [lane(Lane.STREAM, times.live_s), lane(Lane.SYNC, times.live_s, wait_s=queued)]
    if has_flex:
        lanes.append(lane(Lane.SYNC, times.flex_s, Tier.FLEX, wait_s=queued, lost=times.flex_refused))
    if with_fast:
        lanes += [lane(name, times.live_s, Tier.FAST) for name in (Lane.STREAM, Lane.SYNC)]
    lanes.append(lane(Lane.BATCH, times.batch_s, why_not=no_batch, wait_s=batch_wait_s, lost=times.batch_lost))
    if has_background:
        lanes += [lane(Lane.BACKGROUND, work, window=window) for window, work in times.windows_s.items()]
    return Estimates(size, times, tuple(lanes))


# Twelve steps a decade (the E12 series of preferred numbers): no estimate is better than the 10 % between them.
_SERIES = (10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82)
_STEPS: list[int] = [*range(1, 10), *(step * 10**decade for decade in range(8) for step in _SERIES)]
_BETWEEN = [(low + high) / 2 for low, high in pairwise(_STEPS)]


def rounded(number: float) -> int:
    """The nearest step, at least 1."""
    return _STEPS[bisect(_BETWEEN, number)]
