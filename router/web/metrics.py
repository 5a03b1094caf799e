"""/metrics for Prometheus, and for whatever reads its text or OpenMetrics: the reports' own numbers."""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response

from db.metrics import KIND, MEASURED, Reader, Reading, summed
from db.money import NANO
from db.sketches import value_of
from db.states import AttemptState
from router.dispatch import Router

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

FRESH_S = 2.0  # whoever asks again sooner gets the same numbers,
SHARE = 10  # and whoever does so within so many times as long as it took to read them
_OPEN = (AttemptState.SENT.value, AttemptState.UNKNOWN.value)  # states that an attempt can still leave
_TOKENS = {
    "input": "of requests, cached ones and those written to a cache included",
    "cached": "of requests that were read from a cache",
    "cache_write": "of requests that were written to a cache",
    "output": "of answers, reasoning included",
    "reasoning": "of answers that were reasoning",
}
_TIMES = {
    "first_token": "From the request of a live call to its first token",
    "call": "From the request of a live call to its end",
    "wait": "From submit to the first attempt of a job",
    "turnaround": "From submit to the answer of a job",
}
_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 7200, 14400, 28800, 43200, 86400)  # seconds


def routes() -> APIRouter:
    """What a collector asks for."""
    made = APIRouter(tags=["metrics"])
    made.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)
    return made


def metrics(request: Request) -> Response:
    """The numbers in the form that is preferred: Prometheus' text or OpenMetrics. For the installation's own token."""
    from prometheus_client.exposition import choose_encoder

    encode, kind = choose_encoder(request.headers.get("accept", ""))
    numbers = request.app.state.numbers
    return Response(encode(numbers), media_type=kind)


class Numbers:
    """What prometheus_client collects from: read now and then, by one thread at a time."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._turn = threading.Lock()
        self._reader: Reader | None = None
        self._last: Reading | None = None
        self._until = 0.0

    def collect(self) -> Iterator["Metric"]:
        """Every family, with what there is of it."""
        return families(self._read())

    def _read(self) -> Reading:
        with self._turn:
            if self._last is None or time.monotonic() > self._until:
                self._reader, began = self._reader or Reader(self._router.store), time.monotonic()
                self._last = self._reader.read(self._router.clock.now(), self._router.settings.dead_seconds)
                ended = time.monotonic()
                self._until = ended + max(FRESH_S, (ended - began) * SHARE)
            return self._last


def families(reading: Reading) -> Iterator["Metric"]:
    """The numbers under their names."""
    from prometheus_client.metrics_core import InfoMetricFamily

    yield InfoMetricFamily("shunter_build", "The version that answers", {"version": version("shunter")})
    yield from _attempts(reading)
    yield from _money(reading)
    yield from _latencies(reading)
    yield from _standing(reading)


def _attempts(reading: Reading) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    ended = CounterMetricFamily("shunter_attempts", "Attempts that have ended for good", labels=[*KIND, "state"])
    unsettled = GaugeMetricFamily(
        "shunter_attempts_open", "Attempts under way, and those that may have been billed: nobody can tell yet",
        labels=[*KIND, "state"],
    )  # fmt: skip
    for (*kind, state), values in sorted(reading.sums.items()):
        (unsettled if state in _OPEN else ended).add_metric([*kind, state], summed(values)["attempts"])
    yield ended
    yield unsettled
    whole = _by_kind(reading)
    for name, what in _TOKENS.items():
        counted = CounterMetricFamily(f"shunter_{name}_tokens", f"Tokens {what}", labels=KIND)
        for place, found in whole.items():
            counted.add_metric(place, found[f"{name}_tokens"])
        yield counted


def _money(reading: Reading) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    paid = CounterMetricFamily("shunter_cost_usd", "Paid in USD, as first charged", labels=KIND)
    repriced = GaugeMetricFamily(
        "shunter_cost_adjustments_usd", "What re-pricings changed in USD; shunter_cost_usd_total and this are the cost "
        "that `report cost` shows", labels=KIND,
    )  # fmt: skip
    unpriced = GaugeMetricFamily("shunter_attempts_unpriced", "Attempts whose cost is not known (yet)", labels=KIND)
    risk = GaugeMetricFamily("shunter_at_risk_usd", "The most that attempts of unknown cost may have cost", labels=KIND)
    for kind, values in _by_kind(reading).items():
        adjusted = reading.adjusted.get(tuple(kind), 0)
        paid.add_metric(kind, (values["cost_nano"] - adjusted) / NANO)
        repriced.add_metric(kind, adjusted / NANO)
        unpriced.add_metric(kind, values["attempts"] - values["priced"])
        risk.add_metric(kind, values["at_risk_nano"] / NANO)
    yield from (paid, repriced, unpriced, risk)


def _by_kind(reading: Reading) -> Mapping[tuple[str, ...], dict[str, int]]:
    """The sums without their states."""
    whole: dict[tuple[str, ...], dict[str, int]] = {}
    for (*kind, _), values in sorted(reading.sums.items()):
        same = whole.setdefault(tuple(kind), {})
        for name, value in summed(values).items():
            same[name] = same.get(name, 0) + value
    return whole


def _latencies(reading: Reading) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import HistogramMetricFamily

    for name in MEASURED:
        family = HistogramMetricFamily(f"shunter_{name}_seconds", _TIMES[name], labels=KIND)
        for kind, measured in sorted(reading.times.items()):
            bins = measured.get(name)
            if bins and any(bins.values()):
                family.add_metric(kind, *_histogram(bins))
        yield family


def _histogram(bins: Mapping[int, int]) -> tuple[Sequence[tuple[str, float]], float]:
    """Cumulative buckets and the sum, in seconds; both as near as the sketch is to the values."""
    counts = [0] * (len(_BOUNDS) + 1)
    for number, count in bins.items():
        counts[_bucket(number)] += count
    names = [*(f"{float(bound)}" for bound in _BOUNDS), "+Inf"]
    whole = sum(value_of(number) * count for number, count in bins.items()) / 1000
    return list(zip(names, accumulate(counts), strict=True)), whole


@lru_cache(8192)
def _bucket(number: int) -> int:
    return bisect_left(_BOUNDS, value_of(number) / 1000)


def _standing(reading: Reading) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    jobs = GaugeMetricFamily("shunter_jobs", "Jobs in each state", labels=["state"])
    for state, count in reading.jobs.items():
        jobs.add_metric([state], count)
    yield jobs
    yield GaugeMetricFamily("shunter_workers", "Workers that are alive", value=reading.workers)
    names = ("shunter_batches_open", "shunter_batch_rows_open", "shunter_batch_rows_done")
    whats = ("Batches that are not imported yet", "Their rows", "Rows of theirs that the provider says are done")
    for n, (name, what) in enumerate(zip(names, whats, strict=True)):
        batches = GaugeMetricFamily(name, what, labels=["state", "model", "provider"])
        for place, counts in sorted(reading.batches.items()):
            batches.add_metric(place, counts[n])
        yield batches
    yield from _budgets(reading)


def _budgets(reading: Reading) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    labels = ["budget", "per"]
    limit = GaugeMetricFamily("shunter_budget_limit_usd", "What a budget allows in its period", labels=labels)
    spent = GaugeMetricFamily("shunter_budget_spent_usd", "Spent in the period of now", labels=labels)
    held = GaugeMetricFamily("shunter_budget_reserved_usd", "Set aside for what is under way", labels=labels)
    for one in reading.budgets:
        place = [one.budget.name, one.budget.period]
        limit.add_metric(place, one.budget.limit_nano / NANO)
        spent.add_metric(place, one.spent_nano / NANO)
        held.add_metric(place, one.reserved_nano / NANO)
    yield from (limit, spent, held)
