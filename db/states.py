"""The words for where things stand, and the moves between them."""

from enum import StrEnum


class Lane(StrEnum):
    """How a request is sent."""

    STREAM = "stream"
    SYNC = "sync"
    BACKGROUND = "background"
    BATCH = "batch"


class Tier(StrEnum):
    """The provider's service tier of a stream or sync call."""

    DEFAULT = "default"
    FLEX = "flex"
    FAST = "fast"


class JobState(StrEnum):
    """Where a job stands; a retry is `queued` again with a later `run_after`."""

    QUEUED = "queued"
    RUNNING = "running"
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

MOVES: dict[JobState, frozenset[JobState]] = {
    # To succeeded: the late answer of an attempt that was given up. To failed: no budget will ever have room for it.
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.SUBMITTED, *FINAL}),
    JobState.RUNNING: frozenset({JobState.QUEUED, *FINAL}),
    JobState.SUBMITTED: frozenset({JobState.QUEUED, *FINAL}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.SUBMITTED}),  # only when a person asks: `jobs retry`
    JobState.CANCELLED: frozenset({JobState.QUEUED, JobState.SUBMITTED}),
}


class AttemptState(StrEnum):
    """Where one try stands; `unknown` may have been billed and nobody can tell yet."""

    SENT = "sent"
    OK = "ok"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class CostSource(StrEnum):
    """How a cost is known; `unknown` means the cost is NULL, never 0."""

    REPORTED = "reported"
    COMPUTED = "computed"
    ASSUMED = "assumed"
    UNKNOWN = "unknown"


class BatchState(StrEnum):
    """Where a provider batch stands; `unsure` has an unclear create and is not sent again."""

    PACKED = "packed"
    UPLOADED = "uploaded"
    SUBMITTED = "submitted"
    UNSURE = "unsure"
    ENDED = "ended"
    IMPORTED = "imported"


class DeltaKind(StrEnum):
    """What a piece of a streaming answer is."""

    TEXT = "text"
    REFUSAL = "refusal"
    REASONING = "reasoning"
