"""What a file of requests will cost in all: a range before its first answers, an estimate from them after. Pure."""

from math import exp, hypot, log, sqrt
from typing import Any, NamedTuple

from db.forecasts import Sums
from db.money import usd
from router.decision import iso
from router.lengths import Z90

FEW = 10  # finished jobs from which on they are believed instead of the estimates
BETWEEN_95 = 1.959963984540054  # standard deviations to either side: 19 of 20 are between them


class Forecast(NamedTuple):
    """Nano-dollars in all, and the range that it is within: 19 times of 20, or 8 of 10 before there are answers."""

    expected: float
    low: float
    high: float
    from_answers: bool


def forecast(sums: Sums) -> Forecast | None:
    """What it will have cost; None while some of what is left has no price."""
    if sums.unpriced:
        return None
    paid = float(sums.paid)
    if not sums.left:
        return Forecast(paid, paid, paid, from_answers=True)
    if sums.n < FEW:
        return _before(sums, paid)
    ratio = sums.y / sums.x
    spread = sqrt(max(sums.yy - 2 * ratio * sums.xy + ratio * ratio * sums.xx, 0.0) / (sums.n - 1))
    rest = ratio * sums.median
    # What the rows to come differ by, and what is not known of the ratio.
    doubt = BETWEEN_95 * hypot(spread * sqrt(sums.left), spread * sqrt(sums.n) * sums.median / sums.x)
    return Forecast(paid + rest, paid + max(rest - doubt, 0.0), paid + rest + doubt, from_answers=True)


def _before(sums: Sums, paid: float) -> Forecast:
    """As if all rows were off alike: rows of one file mostly are."""
    if not sums.median:
        return Forecast(paid, paid, paid, from_answers=False)
    spread = log(max(sums.high / sums.median, 1.0)) / Z90
    mean = sums.median * exp(spread * spread / 2)
    return Forecast(paid + mean, paid + sums.low, paid + max(sums.high, mean), from_answers=False)


def view(sums: Sums) -> dict[str, Any]:
    """One submission in its JSON form."""
    found = forecast(sums)
    money = {name: usd(round(getattr(found, name))) if found else None for name in ("expected", "low", "high")}
    return {
        "submission": sums.submission,
        "source": sums.source,
        "submitted_at": iso(sums.submitted_at),
        "rows": sums.rows,
        "finished": sums.finished,
        "paid_usd": usd(sums.paid),
        "unknown_attempts": sums.unknown,
        **{f"{name}_usd": value for name, value in money.items()},
        "from_answers": found is not None and found.from_answers,
    }
