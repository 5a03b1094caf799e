"""Which events the log tells of, at which level and in which fields. Named as in the JSON of the commands."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from db.buckets import Gauge
from db.ledger import Charge
from db.money import usd
from db.settle import Again
from db.states import BatchState, Lane
from db.tables import Batch
from db.words import iso
from jobs.observing import (
    AttemptEnded,
    AttemptSent,
    BatchMoved,
    BatchPacked,
    Event,
    FileTakenIn,
    GatewayRuns,
    JobAccepted,
    JobsRescued,
    JobsStepped,
    LimitsLearned,
    RequestDone,
    RowsEnded,
    Said,
    TookOver,
    WindowLooked,
    WorkerRuns,
    log,
)
from router.imported import Imported
from router.logs import tell

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


class Journal:
    """Writes what happens to the log, from the level on that it has."""

    def __init__(self) -> None:
        self._imports: dict[str, Imported] = {}
        self._limits: dict[tuple[str, str], tuple[float | None, float | None]] = {}
        self._opens: datetime | None = None
        self._tellers: dict[type, tuple[int, Callable[[Any], None]]] = {
            JobAccepted: (INFO, self._accepted),
            FileTakenIn: (INFO, self._taken_in),
            AttemptSent: (DEBUG, self._sent),
            AttemptEnded: (INFO, self._ended),
            BatchPacked: (INFO, self._packed),
            BatchMoved: (INFO, self._moved),
            RowsEnded: (INFO, self._rows),
            JobsStepped: (INFO, self._stepped),
            JobsRescued: (WARNING, self._rescued),
            TookOver: (WARNING, self._took_over),
            WorkerRuns: (INFO, self._worker),
            WindowLooked: (INFO, self._window),
            LimitsLearned: (INFO, self._learned),
            GatewayRuns: (INFO, self._gateway),
            RequestDone: (INFO, self._served),
            Said: (INFO, self._said),
        }

    def __call__(self, event: Event) -> None:
        """Tell of it; where nobody wants its level it costs a look and no more."""
        level, teller = self._tellers.get(type(event), (ERROR, None))
        if teller is not None and log.isEnabledFor(level):
            teller(event)

    # ---- jobs ----

    def _accepted(self, job: JobAccepted) -> None:
        tell(INFO, "job_accepted", {
            "job_id": job.job_id, "class": job.class_, "lane": job.lane, "tier": job.tier, "model": job.model,
            "provider": job.provider, "rule": job.rule,
        })  # fmt: skip

    def _taken_in(self, file: FileTakenIn) -> None:
        tell(INFO, "file_accepted", file._asdict())

    def _sent(self, sent: AttemptSent) -> None:
        claim = sent.claim
        tell(DEBUG, "attempt_sent", {
            "job_id": claim.job_id, "n": claim.n, "lane": claim.lane, "tier": claim.tier, "model": claim.model,
            "provider": claim.provider,
        })  # fmt: skip

    def _ended(self, event: AttemptEnded) -> None:
        claim, charge, ending = event.claim, event.ended.charge, event.ended.ending
        where = {"job_id": claim.job_id, "n": claim.n, "lane": claim.lane}
        tell(INFO, "attempt_ended", where | {
            "tier": charge.tier or claim.tier, "model": claim.model, "provider": claim.provider,
            **_told(charge), "first_token_ms": _ms(charge.first_token_ms), "total_ms": _ms(charge.total_ms),
            "job": type(ending).__name__.lower(),
        })  # fmt: skip
        if isinstance(ending, Again):
            onto = {"onto_lane": ending.onto.lane} if ending.onto else {}
            tell(INFO, "job_retry", where | onto | {"code": ending.code, "run_after": iso(ending.run_after)})

    def _stepped(self, event: JobsStepped) -> None:
        tell(INFO, "jobs_stepped", event._asdict())

    def _rescued(self, event: JobsRescued) -> None:
        tell(WARNING, "jobs_rescued", event._asdict())

    # ---- batches ----

    def _packed(self, event: BatchPacked) -> None:
        tell(INFO, "batch_packed", event._asdict())

    def _moved(self, event: BatchMoved) -> None:
        before, after = event
        for name in _steps(before, after):
            fields = {"batch_id": after.id, "lane": after.lane, "model": after.model, "provider": after.provider,
                      "provider_batch_id": after.provider_batch_id, "status": after.status, "rows": after.rows,
                      "done": after.done}  # fmt: skip
            if name == "batch_imported":
                fields |= self._came_to(after.id)
            tell(INFO, name, fields)

    def _rows(self, event: RowsEnded) -> None:
        """A batch is summed up at its end; a response in the background is a batch of one, which tells for itself."""
        batch, level = event.batch, DEBUG
        if batch.lane == Lane.BACKGROUND:
            level = INFO
        else:
            so_far = self._imports.setdefault(batch.id, Imported())
            for one in event.settled:
                so_far.add(one.charge)
        for one in event.settled if log.isEnabledFor(level) else ():
            tell(level, "attempt_ended", {
                "job_id": one.job_id, "n": one.n, "lane": batch.lane, "model": batch.model,
                "provider": batch.provider, "batch_id": batch.id, **_told(one.charge),
                "job": type(one.ending).__name__.lower(),
            })  # fmt: skip

    def _came_to(self, batch_id: str) -> dict[str, Any]:
        found = self._imports.pop(batch_id, Imported())
        return {
            "ended": dict(found.states),
            "codes": dict(found.codes) or None,
            "input_tokens": found.input_tokens,
            "output_tokens": found.output_tokens,
            "cost_usd": usd(found.cost_nano),
            "unknown_attempts": found.unknown,
        }

    # ---- processes ----

    def _took_over(self, event: TookOver) -> None:
        tell(WARNING, "lease_taken_over", {"worker": event.owner, "from": event.dead})

    def _worker(self, event: WorkerRuns) -> None:
        tell(INFO, "worker_started" if event.runs else "worker_stopped", {"worker": event.owner})

    def _gateway(self, event: GatewayRuns) -> None:
        tell(INFO, "server_started" if event.runs else "server_stopped", {})

    def _window(self, event: WindowLooked) -> None:
        """Once, and then when it changes; that there is no window is not worth a word."""
        opened, shut = event.opens is None, self._opens is not None
        if event.opens is not None and not shut:
            tell(INFO, "window_closed", {"opens_at": iso(event.opens)})
        elif opened and shut:
            tell(INFO, "window_open", {})
        self._opens = event.opens

    def _learned(self, event: LimitsLearned) -> None:
        """Limits that are new, and every refusal."""
        for one in event.lessons:
            limits = _limit(one.requests), _limit(one.tokens)
            known = self._limits.get((one.provider, one.model))
            new = any(limits) and limits != known
            if new:
                self._limits[one.provider, one.model] = limits
            if new or one.refused:
                tell(INFO, "rate_limit_learned", {
                    "provider": one.provider, "model": one.model, "requests_per_minute": limits[0],
                    "tokens_per_minute": limits[1], "refused": one.refused, "wait_s": one.wait_s,
                })  # fmt: skip

    def _served(self, event: RequestDone) -> None:
        served = event.served
        level = ERROR if served.broke else INFO
        tell(level, "request_done", {
            "method": served.method, "route": served.route, "status": served.status, "ms": _ms(served.ms),
            "job_id": served.job_id,
        })  # fmt: skip

    def _said(self, event: Said) -> None:
        tell(INFO, "said", event._asdict())


def _told(charge: Charge) -> dict[str, Any]:
    """What an attempt came to; where its cost is unknown it says so, and what may have been spent."""
    unknown = charge.cost_nano is None
    return {
        "state": charge.state.value,
        "code": charge.error_code,
        "input_tokens": charge.input_tokens,
        "output_tokens": charge.output_tokens,
        "cost_usd": None if unknown else usd(charge.cost_nano or 0),
        "cost_source": charge.cost_source.value,
        "at_risk_usd": usd(charge.at_risk_nano) if unknown and charge.at_risk_nano is not None else None,
    }


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _limit(gauge: Gauge | None) -> float | None:
    return gauge.limit if gauge else None


def _steps(before: Batch, after: Batch) -> list[str]:
    """What happened to a batch in one step; a create that found what an earlier one had made has adopted it."""
    steps = []
    if after.provider_batch_id and not before.provider_batch_id:
        adopted = before.create_intent_at is not None and after.create_tries == before.create_tries
        steps.append("batch_adopted" if adopted else "batch_created")
    elif before.provider_batch_id and not after.provider_batch_id:
        steps.append("batch_held_up")
    elif after.status != before.status and after.state == before.state:
        steps.append("batch_polled")
    if after.cancel_at and not before.cancel_at:
        steps.append("batch_cancelling")
    for state, name in ((BatchState.UNSURE, "batch_unsure"), (BatchState.ENDED, "batch_ended"),
                        (BatchState.IMPORTED, "batch_imported")):  # fmt: skip
        if after.state == state != before.state:
            steps.append(name)
    return steps
