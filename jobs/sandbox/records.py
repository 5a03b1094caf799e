"""Files and batches as the sandbox keeps them, and as each API shows them (pure)."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

DAY = 86_400
MONTH = 30 * DAY
FINAL = ("completed", "failed", "expired", "cancelled")
STAMPS = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")


@dataclass(slots=True)
class FileRecord:
    """`content` names the blob with its bytes; `listed_at` is when lists begin to show it."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created: float
    listed_at: float
    content: str
    expires_at: int | None = None

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "expires_at": self.expires_at,
            "status_details": None,
        }


@dataclass(slots=True)
class Batch:
    """One batch of either API; `drills` are its faults, `input` names the blob with its rows."""

    id: str
    api: str
    endpoint: str
    input: str
    input_file_id: str
    created: float
    listed_at: float
    metadata: dict[str, str] | None = None
    output_expires: int | None = None
    drills: list[dict[str, Any]] = field(default_factory=list)
    status: str = "validating"
    model: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    stamps: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"total": 0, "completed": 0, "failed": 0})
    input_tokens: int = 0
    usage: dict[str, int] = field(default_factory=lambda: {"input": 0, "cached": 0, "output": 0, "reasoning": 0})
    cancel_at: float | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def expires(self) -> float:
        return self.created + DAY

    @property
    def outputs(self) -> str:
        return f"{self.id}.out"

    @property
    def failures(self) -> str:
        return f"{self.id}.err"

    def drill(self, kind: str) -> dict[str, Any] | None:
        return next((drill for drill in self.drills if drill["kind"] == kind), None)

    def view(self) -> dict[str, Any]:
        """OpenAI's batch object."""
        errors = {"object": "list", "data": self.errors} if self.errors else None
        shown: dict[str, Any] = {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created),
            "expires_at": int(self.expires),
            "request_counts": dict(self.counts),
            "metadata": self.metadata,
        }
        shown |= {name: int(self.stamps[name]) if name in self.stamps else None for name in STAMPS}
        shown["usage"] = {
            "input_tokens": self.usage["input"],
            "input_tokens_details": {"cached_tokens": self.usage["cached"]},
            "output_tokens": self.usage["output"],
            "output_tokens_details": {"reasoning_tokens": self.usage["reasoning"]},
            "total_tokens": self.usage["input"] + self.usage["output"],
        }
        return shown

    def message_view(self, base: str) -> dict[str, Any]:
        """Anthropic's batch object: all counts but `processing` stay 0 until the end."""
        total, done, failed = (self.counts[name] for name in ("total", "completed", "failed"))
        left = total - done - failed
        counts = {"processing": total, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        if self.final:
            ended_as = {"cancelled": "canceled", "expired": "expired"}.get(self.status, "")
            counts |= {"processing": 0, "succeeded": done, "errored": failed} | ({ended_as: left} if ended_as else {})
        ended = next(
            (self.stamps[name] for name in ("completed_at", "expired_at", "cancelled_at") if name in self.stamps), None
        )
        state = "ended" if self.final else "canceling" if self.status == "cancelling" else "in_progress"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": state,
            "request_counts": counts,
            "ended_at": iso(ended),
            "created_at": iso(self.created),
            "expires_at": iso(self.expires),
            "archived_at": None,
            "cancel_initiated_at": iso(self.stamps.get("cancelling_at")),
            "results_url": f"{base}/v1/messages/batches/{self.id}/results" if self.final else None,
        }


@dataclass(slots=True)
class Stored:
    """A response that is made in the background: `body` asked for it, `drills` are its faults, at `due` it is over."""

    id: str
    body: dict[str, Any]
    request_id: str
    created: float
    due: float
    drills: list[dict[str, Any]] = field(default_factory=list)
    status: str = "queued"  # until it is over: whether its turn has come is told by the clock
    ended: float | None = None

    @property
    def final(self) -> bool:
        return self.ended is not None

    def drill(self, kind: str) -> dict[str, Any] | None:
        return next((drill for drill in self.drills if drill["kind"] == kind), None)


def iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
