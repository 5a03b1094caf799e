"""What one sandbox is told; standard library only, so that a command line can import it for nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class SandboxError(Exception):
    """Settings or a fault that the sandbox cannot take; the text says what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """Seconds are real ones for answers and the sandbox clock's (`/_sandbox/clock`) for files and batches."""

    host: str = "127.0.0.1"
    port: int = 0
    folder: Path | None = None
    faults: Sequence[Mapping[str, Any] | str] | Path = ()
    seed: int = 0
    latency_s: float = 0.0
    tokens_per_second: float = 0.0
    answer_tokens: int | None = None
    reasoning_tokens: int = 0
    cached_prefix: bool = False
    batch_seconds: float = 0.3
    background_seconds: float = 0.05
    batch_rows_per_second: float | None = None
    cancel_seconds: float = 0.05
    late_list_s: float = 0.0
    queued_token_limit: int | None = None
    requests_per_minute: float | None = None  # of each model, as tokens_per_minute
    tokens_per_minute: float | None = None
    resold_percent: int | None = None  # live chat answers cost so much of the list's price, and say it in their usage
    burst_seconds: float = 60.0  # how many seconds' worth of these a full bucket holds
    max_body_bytes: int = 64 * 1024 * 1024
    max_file_bytes: int = 512 * 1024 * 1024
    requests_kept: int = 200

    def __post_init__(self) -> None:
        for name in (
            "latency_s",
            "tokens_per_second",
            "reasoning_tokens",
            "batch_seconds",
            "background_seconds",
            "cancel_seconds",
            "late_list_s",
        ):
            if getattr(self, name) < 0:
                raise SandboxError(f"sandbox setting {name} must be 0 or more, not {getattr(self, name)}")
        for name in (
            "answer_tokens",
            "batch_rows_per_second",
            "queued_token_limit",
            "requests_per_minute",
            "tokens_per_minute",
            "resold_percent",
            "burst_seconds",
            "max_body_bytes",
            "max_file_bytes",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SandboxError(f"sandbox setting {name} must be more than 0, not {value}")
        if not 0 <= self.port <= 65535:
            raise SandboxError(f"sandbox port must be between 0 and 65535, not {self.port}")
