"""Metrics: the conventions' histograms of tokens and times, and our own counters of attempts and money.

Rows of batches count their tokens and their money; how long one took says nothing of the model, so it is not told.
"""

from collections import Counter
from typing import Any

from opentelemetry.metrics import Meter

from db.ledger import Charge
from db.money import NANO
from db.states import Lane
from jobs.observing import AttemptEnded, AttemptSent, RequestDone, RowsEnded
from router.telemetry import words
from router.telemetry.telling import Teller
from router.telemetry.words import Attributes

# As the conventions have them.
_TOKENS = [4**n for n in range(14)]
_SECONDS = [0.01 * 2**n for n in range(14)]
_HTTP = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]


class Meters(Teller):
    """Counts what happens."""

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, what: str, bounds: list[float]) -> Any:
            return meter.create_histogram(name, unit, what, explicit_bucket_boundaries_advisory=bounds)

        self._tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", [*map(float, _TOKENS)]
        )
        self._duration = histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS)
        self._first = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.", _SECONDS
        )
        self._served = histogram(
            "http.server.request.duration", "s", "Duration of HTTP server requests.", [*map(float, _HTTP)]
        )
        self._attempts = meter.create_counter("shunter.attempts", "{attempt}", "Attempts that have ended.")
        self._cost = meter.create_counter("shunter.cost", "USD", "What attempts cost, where that is known.")
        self._addresses: dict[str, str] = {}  # of providers
        super().__init__({
            AttemptSent: self._sent,
            AttemptEnded: self._ended,
            RowsEnded: self._rows,
            RequestDone: self._done,
        })  # fmt: skip

    def _sent(self, sent: AttemptSent) -> None:
        self._addresses[sent.claim.provider] = sent.address

    def _ended(self, event: AttemptEnded) -> None:
        claim, charge = event.claim, event.ended.charge
        address = self._addresses.get(claim.provider, "")
        known = words.call(claim.provider, claim.model, address) | {"shunter.lane": claim.lane}
        known |= words.answering(claim.model, charge)
        self._use(charge, known)
        self._attempts.add(1, known | _wrong(charge) | {"shunter.state": charge.state.value})
        if charge.cost_nano is not None:
            self._cost.add(charge.cost_nano / NANO, known | {"shunter.cost_known": charge.cost_source.value})
        if charge.total_ms is not None:
            self._duration.record(charge.total_ms / 1000, known | _wrong(charge))
        if charge.first_token_ms is not None and claim.lane == Lane.STREAM:
            self._first.record(charge.first_token_ms / 1000, known)

    def _rows(self, event: RowsEnded) -> None:
        batch = event.batch
        plain = words.call(batch.provider, batch.model, batch.base_url) | {"shunter.lane": batch.lane}
        paid: Counter[str] = Counter()
        ends: Counter[tuple[str, str]] = Counter()
        for one in event.settled:
            charge = one.charge
            self._use(charge, plain | words.answering(batch.model, charge))
            ends[charge.state.value, words.failure(charge) or ""] += 1
            if charge.cost_nano is not None:
                paid[charge.cost_source.value] += charge.cost_nano
        for (state, failure), count in ends.items():
            self._attempts.add(count, plain | {"shunter.state": state} | ({"error.type": failure} if failure else {}))
        for source, nano in paid.items():
            self._cost.add(nano / NANO, plain | {"shunter.cost_known": source})

    def _use(self, charge: Charge, known: Attributes) -> None:
        for kind, count in (("input", charge.input_tokens), ("output", charge.output_tokens)):
            if count is not None:
                self._tokens.record(count, known | {"gen_ai.token.type": kind})

    def _done(self, event: RequestDone) -> None:
        self._served.record(event.served.ms / 1000, words.served(event.served))


def _wrong(charge: Charge) -> Attributes:
    failure = words.failure(charge)
    return {"error.type": failure} if failure else {}
