"""What happens, as values that are told to whoever watches: logs and telemetry do, and nothing here knows of them."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from db.claims import Claim
    from db.rates import Lesson
    from db.settle import Settlement
    from db.tables import Batch
    from jobs.chat import Request
    from jobs.runner import Ended

log = logging.getLogger("shunter")
_SERVER_ERROR = 500


class JobAccepted(NamedTuple):
    """A request became a job; `runs_here`: its first attempt begins at once, in this process."""

    job_id: str
    class_: str
    lane: str
    tier: str
    model: str
    provider: str
    rule: str
    runs_here: bool


class FileTakenIn(NamedTuple):
    """A file of requests was read; its rows."""

    submission: str
    accepted: int
    duplicates: int
    rejected: int


class AttemptSent(NamedTuple):
    """An attempt begins; `address` is the provider's base URL."""

    claim: "Claim"
    request: "Request"
    address: str


class AttemptEnded(NamedTuple):
    """An attempt is over; `kept`: whoever runs the job tries again by itself, where it is to be tried again."""

    claim: "Claim"
    ended: "Ended"
    kept: bool


class JobLeft(NamedTuple):
    """A job that ran here does so no more: after its last attempt, or between two."""

    job_id: str


class BatchPacked(NamedTuple):
    """Queued jobs became a batch."""

    batch_id: str
    provider: str
    model: str
    rows: int


class BatchMoved(NamedTuple):
    """A batch took a step, or stands otherwise at its provider."""

    before: "Batch"
    after: "Batch"


class RowsEnded(NamedTuple):
    """Rows of a batch have ended. An import that is done again, after it was cut off, tells of them again."""

    batch: "Batch"
    settled: Sequence["Settlement"]


class JobsStepped(NamedTuple):
    """So many queued jobs went on to the next lane of their plans."""

    jobs: int
    why: str  # late, no_batch_api


class JobsRescued(NamedTuple):
    """So many jobs of dead owners were ended, or queued again."""

    jobs: int


class TookOver(NamedTuple):
    """A worker or server took over what a silent one had left."""

    dead: str
    owner: str


class WorkerRuns(NamedTuple):
    """A worker has begun, or has ended."""

    owner: str
    runs: bool


class WindowLooked(NamedTuple):
    """When bulk work may be submitted again, None for now; told at each look."""

    opens: datetime | None


class LimitsLearned(NamedTuple):
    """What providers said of their limits."""

    lessons: Sequence["Lesson"]


class GatewayRuns(NamedTuple):
    """The gateway has begun, or has ended."""

    runs: bool


@dataclass(slots=True)
class Served:
    """A request to the gateway, filled in as it is answered; `notes` are the watchers' own."""

    method: str
    route: str | None = None  # as it was declared: it has no id, and nothing of the query
    status: int = 0
    ms: float = 0.0
    job_id: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def broke(self) -> bool:
        """Whether it was not the client's fault that it failed."""
        return self.status >= _SERVER_ERROR


class RequestBegan(NamedTuple):
    """The gateway got a request, with these headers as ASGI has them; told in the task that answers it."""

    served: Served
    headers: Iterable[tuple[bytes, bytes]]


class RequestDone(NamedTuple):
    """The gateway has answered, or has lost its client; told in the task in which it began."""

    served: Served


class Said(NamedTuple):
    """A word to the person at the terminal, where nobody is at one."""

    text: str


class Closing(NamedTuple):
    """Nothing more will come: what is held back is let go, which may take some seconds."""


Event = (
    JobAccepted | FileTakenIn | AttemptSent | AttemptEnded | JobLeft | BatchPacked | BatchMoved | RowsEnded
    | JobsStepped | JobsRescued | TookOver | WorkerRuns | WindowLooked | LimitsLearned | GatewayRuns | RequestBegan
    | RequestDone | Said | Closing
)  # fmt: skip
Watcher = Callable[[Event], None]


class Watchers:
    """Tells each of them. They are called in the way of the work, from any thread: they are quick and never wait."""

    def __init__(self, *each: Watcher) -> None:
        self._each = each

    def __call__(self, event: Event) -> None:
        """Tell of an event; what goes wrong in a watcher is logged, and goes no further."""
        for watcher in self._each:
            try:
                watcher(event)
            except Exception:  # whoever watches must not break what is watched
                log.exception("watcher_failed", extra={"fields": {"on": type(event).__name__}})


NOBODY = Watchers()
