"""How long answers will be, after some have been seen: a prior and a summary of earlier answers, together. Pure.

Answers of one template on one model are taken as lognormal, with a mean and a variance that nobody knows; an estimate
is an update of sums. The median forgets the prior first; the spread soon after.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log, sqrt

Z90 = 1.2815515655446004  # the 0.9 quantile of the standard normal distribution

WITHIN = 0.35  # of the prior's variance: what answers of one template differ by; the rest is between templates
DOUBT = 3.0  # degrees of freedom of the prior's variance: how many answers it counts for
CERTAIN = 0.1  # a prior's spread, at least: some that is more certain would not hear what is said against it


@dataclass(frozen=True, slots=True)
class Seen:
    """Earlier answers: how many, and the sums of the logarithms of their tokens and of the squares of these.

    Two of them are added as their fields are, so a table may keep sums.
    """

    count: int = 0
    logs: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, tokens: Iterable[int]) -> "Seen":
        """The summary of answers of so many tokens; an empty answer counts as one token."""
        logs = [log(max(count, 1)) for count in tokens]
        return cls(len(logs), sum(logs), sum([value * value for value in logs]))

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(self.count + other.count, self.logs + other.logs, self.squares + other.squares)


def from_history(prior: tuple[float, float], seen: Seen) -> tuple[float, float]:
    """The median and the 0.9 quantile of the next answer's tokens; the prior itself where nothing was seen.

    `prior` holds both for one answer, before any cap: a cap is laid on what comes out.
    """
    if seen.count <= 0:
        return prior
    middle, reach = log(max(prior[0], 1.0)), log(max(prior[1], 1.0)) - log(max(prior[0], 1.0))
    reach = max(reach, CERTAIN * Z90)
    inside = max(seen.squares - seen.logs * seen.logs / seen.count, 0.0)  # rounding may take it below nothing
    # The prior's variance is such that, with nothing seen, the 0.9 quantile is the prior's own; a share of it lies
    # within templates. How far off the prior was says nothing of that share, so it widens nothing.
    whole_variance = (reach / _t90(DOUBT)) ** 2
    degrees = DOUBT + seen.count - 1
    variance = (DOUBT * WITHIN * whole_variance + inside) / degrees
    weight = variance / ((1 - WITHIN) * whole_variance)  # of the prior's mean, in answers
    whole = weight + seen.count
    p50 = exp((weight * middle + seen.logs) / whole)
    return max(p50, 1.0), max(p50 * exp(_t90(degrees) * sqrt(variance * (1 + 1 / whole))), 1.0)


def _t90(degrees: float) -> float:
    """The 0.9 quantile of Student's t with at least 3 degrees of freedom, within 0.5 % (Cornish and Fisher)."""
    z, n = Z90, degrees
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
