"""The arithmetic of what a provider allows a minute: a bucket that time fills, that is told of, and cut. No I/O.

Additive up, multiplicative down: a refusal takes a share of the pace, quiet seconds give it back bit by bit.
"""

from dataclasses import dataclass, replace

MINUTE = 60.0
CUT, CUT_AGAIN = 0.8, 0.5  # what a refusal leaves of the pace; and one that comes soon after another
SOON_S = 5.0
RISE = 0.02  # a second, of the pace that was too much; of the pace itself once it is beyond that
OFF_S = 2.0  # seconds' worth by which two accounts of a bucket differ while calls are on their way
SLOWEST = 1.0  # a minute
GUESS = 60.0  # a minute, where nothing got through and nothing was told


@dataclass(frozen=True, slots=True)
class Gauge:
    """What one answer says of a limit: so many a minute, so many left, seconds until all of it is there again."""

    limit: float
    left: float | None = None
    full_s: float | None = None

    @property
    def a_minute(self) -> float:
        """The limit, also where it is one of a day: then what is missing takes far longer than a minute to come."""
        missing = self.limit - (self.limit if self.left is None else self.left)
        if missing * 2 < self.limit or not self.full_s or self.full_s < 2 * MINUTE * missing / self.limit:
            return self.limit
        return missing / self.full_s * MINUTE


@dataclass(frozen=True, slots=True)
class Bucket:
    """Requests or tokens of one model, a minute: `limit` as told, `pace` what is allowed since a refusal.

    `peak` is the pace that was refused. All three are None while nothing is known, and then all is allowed. `left` may
    be less than nothing: what costs more than a full bucket goes alone, and is paid for by waiting. Time fills it with
    `burst_s` seconds' worth while nothing is refused: how much more a provider saves up, its answers tell.
    """

    limit: float | None = None
    pace: float | None = None
    peak: float | None = None
    left: float = 0.0
    burst_s: float = MINUTE

    @property
    def rate(self) -> float | None:
        """What may be spent a minute; None: as much as one likes."""
        return self.limit if self.pace is None else self.pace

    @property
    def room(self) -> float:
        """What time fills it to: after a refusal a second's worth."""
        return max((self.rate or 0.0) / MINUTE * (self.burst_s if self.pace is None else 1.0), 1.0)

    def after(self, seconds: float) -> "Bucket":
        """So many quiet seconds later."""
        if self.rate is None or seconds <= 0:
            return self
        if self.pace is None or self.peak is None:
            return self._filled(self, seconds)
        rise = RISE * max(self.peak, self.pace)
        if self.limit is not None and self.pace + rise * seconds >= self.limit:
            slow = max(self.limit - self.pace, 0.0) / rise
            full = self._filled(replace(self, pace=self.limit), slow)
            return replace(full, pace=None, peak=None).after(seconds - slow)
        return self._filled(replace(self, pace=self.pace + rise * seconds), seconds)

    def _filled(self, then: "Bucket", seconds: float) -> "Bucket":
        """The bucket of then, with what came at the rate of now."""
        came = (self.rate or 0.0) / MINUTE * seconds
        return replace(then, left=min(self.left + came, max(then.room, self.left)))

    def wait_s(self, cost: float) -> float:
        """Seconds until so much may be spent; 0 for now."""
        short = min(cost, self.room) - self.left
        return 0.0 if self.rate is None or short <= 1e-6 else short / self.rate * MINUTE

    def spend(self, cost: float) -> "Bucket":
        """With so much less in it; a negative cost gives back."""
        return self if self.rate is None else replace(self, left=min(self.left - cost, max(self.room, self.left)))

    def told(self, gauge: Gauge, age_s: float) -> "Bucket":
        """What an answer that was asked for so many seconds ago says: others may use the same limit."""
        limit = max(gauge.a_minute, SLOWEST)
        told = limit if gauge.left is None else gauge.left
        if self.rate is None:
            return replace(self, limit=limit, left=told)
        new = replace(self, limit=limit, left=min(self.left, limit))
        if new.pace is not None and new.pace >= limit:
            new = replace(new, pace=None, peak=None)
        if gauge.left is None:
            return new
        since, off = limit / MINUTE * age_s, limit / MINUTE * OFF_S
        if new.left > told + since + off:
            return replace(new, left=told + since)
        if new.pace is None and new.left < told - since - off:
            return replace(new, left=told - since)
        return new

    def cut(self, seen: float, *, soon: bool) -> "Bucket":
        """After a refusal: a share of the pace, or of what was `seen` to get through a minute; nothing is left."""
        peak = self.rate or max(seen, GUESS)
        pace = max(peak * (CUT_AGAIN if soon else CUT), SLOWEST)
        return replace(self, pace=pace, peak=peak, left=min(self.left, 0.0))
