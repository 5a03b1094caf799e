"""When each row of a batch is done, in which order, and how the batch ends (pure)."""

from dataclasses import dataclass, field
from random import Random

from jobs.sandbox.records import Batch
from jobs.sandbox.settings import SandboxSettings

VALIDATING, RUNNING = 0.1, 0.8
Span = tuple[int, int]


@dataclass(slots=True)
class Run:
    """`order` is the rows, shuffled; those before `position` are done; at `limit` the run ends as `ending` says."""

    batch: Batch
    spans: list[Span]
    order: list[int]
    limit: int
    ending: str
    begin: float
    step: float
    failing: set[int] = field(default_factory=set)
    billed: set[str | None] = field(default_factory=set)
    position: int = 0

    def time_of(self, position: int) -> float:
        return self.begin + self.step * position

    def due(self, now: float) -> int:
        """How many rows should be done by now; the small part of a step makes up for float rounding."""
        return self.limit if self.step <= 0 else max(0, min(self.limit, int((now - self.begin) / self.step + 1e-6)))


def seconds_of(batch: Batch, settings: SandboxSettings) -> float:
    drill = batch.drill("batch_takes")
    return settings.batch_seconds if drill is None else float(drill["seconds"])


def begin_of(batch: Batch, settings: SandboxSettings) -> float:
    return batch.created + (0.0 if batch.api == "messages" else seconds_of(batch, settings) * VALIDATING)


def planned(batch: Batch, spans: list[Span], settings: SandboxSettings) -> Run:
    """The same plan for the same batch, also after a restart."""
    total = len(spans)
    begin = begin_of(batch, settings)
    rate = settings.batch_rows_per_second
    share = 1.0 if batch.api == "messages" else RUNNING
    step = 1 / rate if rate else seconds_of(batch, settings) * share / max(1, total)
    random = Random(f"{settings.seed}{batch.id}")  # noqa: S311 - an order, not a secret
    order = random.sample(range(total), total)
    limit, ending = total, "completed"
    if step > 0 and (in_time := int((batch.expires - begin) / step)) < total:
        limit, ending = in_time, "expired"
    for kind, how in (("expire", "expired"), ("stall", "stalled")):
        if (drill := batch.drill(kind)) is not None:
            limit, ending = min(limit, int(total * drill["fraction"])), how
    failing: set[int] = set()
    if (drill := batch.drill("fail_rows")) is not None and drill["custom_ids"] is None:
        failing = set(random.sample(order, round(total * drill["fraction"])))
    return Run(batch, spans, order, limit, ending, begin, step, failing)
