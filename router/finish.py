"""When each lane is done, by what it took here before; while that is little, by the policy's priors.

Each quantity is lognormal. Its median and its spread are the prior's, drawn to what was seen as that grows; what is
known only to have taken longer (an open batch, one that was called off) counts as that, not as how long it took.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import erfc, exp, hypot, log, pi, sqrt
from statistics import fmean
from typing import TypeVar

from db import turnarounds
from db.engine import Store
from db.states import Lane, Tier
from db.turnarounds import Call, Turnaround
from router.decision import Facts
from router.estimate import Z95, Priors, Size, Spread, Times

LOOK_S = 60.0  # what was seen is read again after this
PRIOR = 4.0  # observations that a prior is worth
EFFECT = 8.0  # and that an effect of size or hour has to be seen before half of it is believed
SHARE = 20.0  # and that the prior of a share is worth
_ROUNDS = 12
_BLOCK = 6  # hours that go together

K = TypeVar("K")
Seen = tuple[float, bool]  # seconds, and whether it was done by then: else it took longer


@dataclass(frozen=True, slots=True)
class Lognormal:
    """A belief of a lognormal quantity: the mean and spread of its logarithm, and what observations it is worth."""

    mean: float
    spread: float
    weight: float

    @classmethod
    def of(cls, prior: Spread) -> "Lognormal":
        """What a prior says."""
        return cls(log(prior.p50), log(prior.p95 / prior.p50) / Z95, PRIOR)

    def after(self, seen: Sequence[Seen]) -> "Lognormal":
        """The belief after these: means are weighed, and so are spreads around the new mean."""
        if not seen:
            return self
        mean, spread = self.mean, self.spread
        for _ in range(_ROUNDS if any(not done for _, done in seen) else 1):
            moments = [_moments(log(seconds), done, mean, spread) for seconds, done in seen]
            number, total = len(moments), sum(first for first, _ in moments)
            new = (self.weight * self.mean + total) / (self.weight + number)
            squares = sum(second - 2 * new * first + new * new for first, second in moments)
            squares += self.weight * (self.spread**2 + (self.mean - new) ** 2)
            mean, spread = new, sqrt(max(squares / (self.weight + number), 1e-6))
        return Lognormal(mean, spread, self.weight + number)

    def predicted(self, shift: float = 0.0) -> Spread:
        """The next one: as wide as the spread, and as what is not known of the mean."""
        mean, wide = self.mean + shift, hypot(self.spread, self.spread / sqrt(self.weight))
        return Spread(exp(mean), exp(mean + Z95 * wide))


def _moments(value: float, done: bool, mean: float, spread: float) -> tuple[float, float]:
    """The first two moments of one observation's logarithm: of what lies beyond it where it was not done."""
    if done:
        return value, value * value
    z = (value - mean) / spread
    beyond = erfc(z / sqrt(2)) / 2
    ratio = exp(-z * z / 2) / sqrt(2 * pi) / beyond if beyond > 1e-12 else z + 1 / max(z, 1.0)
    first = mean + spread * ratio
    return first, mean * mean + 2 * mean * spread * ratio + spread * spread * (1 + z * ratio)


@dataclass(frozen=True, slots=True)
class Turnarounds:
    """What one provider's batches take: for one model, of a size, begun at an hour."""

    all: Lognormal
    models: Mapping[str, Lognormal]
    sizes: Mapping[int, float]  # decade of rows: what its logarithm is more
    hours: Mapping[int, float]
    lost: float
    number: int  # of batches that this rests on

    @classmethod
    def of(cls, prior: Spread, lost: float, seen: Sequence[Turnaround]) -> "Turnarounds":
        """What was seen, on top of the prior."""
        ended = [one for one in seen if not one.lost]
        whole = Lognormal.of(prior).after([(one.seconds, one.done) for one in ended])
        by_model = _grouped(ended, lambda one: one.model)
        near = Lognormal(whole.mean, whole.spread, PRIOR)
        models = {name: near.after([(one.seconds, one.done) for one in group]) for name, group in by_model.items()}

        def rest(one: Turnaround) -> float:
            belief = models[one.model]
            return _moments(log(one.seconds), one.done, belief.mean, belief.spread)[0] - belief.mean

        gone = sum(one.lost for one in seen)
        return cls(
            whole,
            models,
            _effects(ended, lambda one: decade(one.rows), rest),
            _effects(ended, lambda one: block(one.began), rest),
            (SHARE * lost + gone) / (SHARE + len(seen)),
            len(seen),
        )

    def spread(self, model: str, rows: int, began: datetime) -> Spread:
        """What the next one takes."""
        shift = self.sizes.get(decade(rows), 0.0) + self.hours.get(block(began), 0.0)
        belief = self.models.get(model)
        return (belief or self.all).predicted(shift)


def decade(rows: int) -> int:
    """Batches of about one size: 1 to 9 rows, to 99 …"""
    return len(str(max(rows, 1)))


def block(moment: datetime) -> int:
    """Hours of the day that go together."""
    return moment.hour // _BLOCK


def _grouped(seen: Iterable[Turnaround], key: Callable[[Turnaround], K]) -> dict[K, list[Turnaround]]:
    groups: dict[K, list[Turnaround]] = defaultdict(list)
    for one in seen:
        groups[key(one)].append(one)
    return groups


def _effects(
    seen: Iterable[Turnaround], key: Callable[[Turnaround], int], rest: Callable[[Turnaround], float]
) -> dict[int, float]:
    groups = _grouped(seen, key)
    return {
        name: fmean(rest(one) for one in group) * len(group) / (len(group) + EFFECT) for name, group in groups.items()
    }


class Finish:
    """The finish times of one installation; what it saw is read at first use, and again every LOOK_S."""

    def __init__(self, priors: Priors, concurrency: int, store: Callable[[], Store | None]) -> None:
        self._priors, self._concurrency, self._store = priors, concurrency, store
        self._looked: datetime | None = None
        self._batches: dict[tuple[str, str, str | None], Turnarounds] = {}
        self._calls: dict[tuple[str, str, str], Lognormal] = {}
        self._called: dict[tuple[str, str, str], int] = {}
        self._queued: dict[str, int] = {}

    def times(self, facts: Facts, size: Size, now: datetime) -> Times:
        """What each lane takes for such a request."""
        self._look(now)
        where, priors = facts.provider, self._priors
        live = self._call_s(facts, size, Tier.DEFAULT)
        windows = {
            name: self._turnaround(Lane.BACKGROUND, where, name, prior).spread(facts.model, 1, now)
            for name, prior in priors.windows_s.items()
        }
        batch = self._turnaround(Lane.BATCH, where, None, priors.batch_s)
        return Times(
            live_s=live,
            flex_s=self._call_s(facts, size, Tier.FLEX),
            batch_s=batch.spread(facts.model, facts.group, now),
            windows_s=windows,
            flex_refused=priors.flex_refused,
            batch_lost=batch.lost,
            queue_s=(self._ahead(where) + facts.group - 1) * live.p50 / self._concurrency,
            batches_seen=batch.number,
            calls_seen=self._called.get((where, facts.model, Tier.DEFAULT.value), 0),
        )

    def _call_s(self, facts: Facts, size: Size, tier: Tier) -> Spread:
        """A call of this size, by how much longer such calls took than the priors say."""
        prior = self._priors.live_s(size)
        known = self._calls.get((facts.provider, facts.model, tier.value))
        if known is not None:
            seen = known.predicted()
            return Spread(prior.p50 * seen.p50, prior.p50 * seen.p95)
        return prior if tier is Tier.DEFAULT else self._call_s(facts, size, Tier.DEFAULT).times(self._priors.flex_times)

    def _turnaround(self, lane: Lane, provider: str, window: str | None, prior: Spread) -> Turnarounds:
        known = self._batches.get((lane.value, provider, window))
        return known or Turnarounds.of(prior, self._priors.batch_lost if lane is Lane.BATCH else 0.0, ())

    def _ahead(self, provider: str) -> int:
        store = self._store()
        if provider not in self._queued:
            self._queued[provider] = turnarounds.queued(store, provider) if store else 0
        return self._queued[provider]

    def _look(self, now: datetime) -> None:
        if self._looked and (now - self._looked).total_seconds() < LOOK_S:
            return
        self._looked = now
        self._queued.clear()
        if store := self._store():
            self.learn(turnarounds.batches(store, now), turnarounds.calls(store))

    def learn(self, batches: Iterable[Turnaround], calls: Iterable[Call]) -> None:
        """Believe what was seen, in place of what was learned before."""
        priors, lanes = self._priors, defaultdict(list)
        for one in batches:
            lanes[one.lane, one.provider, one.window].append(one)
        for (lane, provider, window), seen in lanes.items():
            prior = priors.batch_s if lane == Lane.BATCH else priors.windows_s.get(window or "")
            if prior is not None:
                lost = priors.batch_lost if lane == Lane.BATCH else 0.0
                self._batches[lane, provider, window] = Turnarounds.of(prior, lost, seen)
        models = defaultdict(list)
        for call in calls:
            expected = priors.live_s(Size(call.input_tokens, call.output_tokens, call.output_tokens)).p50
            models[call.provider, call.model, call.tier].append((call.total_ms / 1000 / expected, True))
        for key, ratios in models.items():
            prior = Spread(1.0, 3.0) if key[2] != Tier.FLEX else priors.flex_times
            self._calls[key], self._called[key] = Lognormal.of(prior).after(ratios), len(ratios)
