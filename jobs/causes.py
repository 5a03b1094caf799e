"""Why jobs failed, in few words: equal causes are one, and each says whether trying again can help. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from db.triage import Case
from jobs.providers.failures import NO_MONEY, lasting
from jobs.retry import MAX_ATTEMPTS

EXAMPLES = 3

# What in a message is only of one job, and what stands for it. The order matters: long shapes first.
_SHAPES = (
    (re.compile(r"\bhttps?://\S+"), "URL"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "ID"),
    (re.compile(r"\b(?:[a-z]{2,12}[-_])+(?=[\w-]*\d)[\w-]{6,}"), "ID"),  # req_011Ab…, batch_68f1, chatcmpl-7x…
    (re.compile(r"\b[0-9a-fA-F]{12,}(?:_\d+)?\b"), "ID"),
    (re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?![\w-])"), "N"),
)
_BROKEN_OFF = frozenset({"abandoned", "stopped", "owner_died", "cut", "timed_out", "no_response"})
_UNTOLD = frozenset({"batch_lost", "given_up", "held"})
_MAY = frozenset({"schema_mismatch", "malformed"})
_LIMITED = frozenset({"over_cap", "unknown_price"})
_NEVER = frozenset({"refused", "filtered", "refusal", "content_filter"})
_ACCOUNT = re.compile(r"api_key|authentication|permission|no_key|bad_key")


@dataclass(slots=True)
class Cause:
    """Jobs that failed of the same thing; `message` is what one of them was told, `retry` whether that can help."""

    code: str
    message: str
    retry: bool
    why: str
    jobs: int = 0
    examples: list[str] = field(default_factory=list)


def causes(cases: Iterable[Case]) -> list[Cause]:
    """The cases grouped by cause, most frequent first."""
    found: dict[tuple[str, str], Cause] = {}
    for case in cases:
        key = case.code, shape(case.message)
        if key not in found:
            found[key] = Cause(case.code, case.message, *_verdict(case))
        cause = found[key]
        cause.jobs += case.jobs
        cause.examples = sorted({*cause.examples, case.first, case.last})[:EXAMPLES]
    return sorted(found.values(), key=lambda cause: (-cause.jobs, cause.code, cause.message))


def shape(message: str) -> str:
    """The message without what is only of one job: ids, numbers, addresses."""
    for pattern, word in _SHAPES:
        message = pattern.sub(word, message)
    return message


def _verdict(case: Case) -> tuple[bool, str]:
    """Whether the same request can succeed another time."""
    known = (
        (case.code in _MAY, (True, "another answer may fit")),
        (case.code in _BROKEN_OFF, (True, "it was broken off")),
        (case.code in _UNTOLD, (True, "it may have been billed: a retry may pay twice")),
        (case.code == "post_process", (True, "once its command is put right; the answer is paid again")),
        (bool(NO_MONEY.search(case.code)), (True, "once the account has money again")),
        (bool(_ACCOUNT.search(case.code)), (True, "once the key is put right")),
        (case.code == "over_budget", (True, "once a budget has room again")),
        (case.code in _LIMITED, (False, "it would find the same limit again")),
        (case.code in _NEVER or lasting(_status(case.code), case.code), (False, "the same request would fail again")),
    )
    for is_so, verdict in known:
        if is_so:
            return verdict
    if case.tries >= MAX_ATTEMPTS:
        return True, "its tries ran out; what was wrong may be over"
    return False, "it was given up at once as lasting"


def _status(code: str) -> int | None:
    found = re.fullmatch(r"http_(\d{3})", code)
    return int(found[1]) if found else None
