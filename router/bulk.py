"""A file of requests through the router: checked, decided and queued, a thousand rows a transaction."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Any

from db import queue
from db.ids import new_id
from router.decision import Decision, Facts
from router.dispatch import Decided, Router, Wish, row_of
from router.intake import Reader, Reject, Rejects, Row

ROWS_A_WRITE = 1000
NAMED = 5  # skipped rows that the summary names


@dataclass(slots=True)
class Summary:
    """What became of a file's rows; accepted + duplicates + rejected = rows."""

    submission: str
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    rejects_file: str | None = None
    skipped: list[str] = field(default_factory=list)  # the first few duplicates, by custom_id or line
    lanes: dict[str, int] = field(default_factory=dict)
    first_reject: str | None = None

    @property
    def rows(self) -> int:
        """Rows read so far."""
        return self.accepted + self.duplicates + self.rejected


class Decider:
    """Decisions for the rows of one file: equal facts are decided once, at one time."""

    def __init__(self, router: Router, wish: Wish, now: datetime) -> None:
        self._router, self._wish, self._now = router, wish, now
        self._known: dict[Facts, Decided] = {}

    def __call__(self, row: Row) -> Decided:
        facts = self._router.facts(row.request, self._wish)
        if (decided := self._known.get(facts)) is None:
            decided = self._known[facts] = Decided.of(self._router.decide(facts, self._now), self._now)
        return decided


def submit(
    router: Router, reader: Reader, wish: Wish, rejects: Rejects, name: str, told: Callable[[Summary], None]
) -> Summary:
    """Queue the rows that are new; refused ones go to `rejects`. Each thousand is kept or not, as a whole."""
    now = router.clock.now()
    summary = Summary(new_id(now))
    queue.open_submission(router.store, summary.submission, name, now)
    decide = Decider(router, wish, now)
    with rejects:
        for part in _parts(reader):
            for reject in (item for item in part if isinstance(item, Reject)):
                rejects.add(reject)
                summary.first_reject = summary.first_reject or f"line {reject.line}: {reject.reason}"
            rows = [item for item in part if isinstance(item, Row)]
            _add(router, summary, rows, decide, wish, now)
            if refused := len(part) - len(rows):
                summary.rejected += refused
                queue.reject(router.store, summary.submission, refused)
            told(summary)
    summary.rejects_file = str(rejects.path) if rejects.path else None
    return summary


def dry_run(router: Router, reader: Reader, wish: Wish) -> Iterator[tuple[Row, Decision] | Reject]:
    """What submit would do with each row; keeps nothing."""
    decide = Decider(router, wish, router.clock.now())
    for item in reader:
        yield item if isinstance(item, Reject) else (item, decide(item).decision)


def _parts(reader: Reader) -> Iterator[list[Row | Reject]]:
    rows = iter(reader)
    while part := list(islice(rows, ROWS_A_WRITE)):
        yield part


def _add(router: Router, summary: Summary, rows: list[Row], decide: Decider, wish: Wish, now: datetime) -> None:
    decisions: dict[str, dict[str, Any]] = {}
    jobs = []
    keys: dict[str, Row] = {}
    for row in rows:
        decided = decide(row)
        key = _salted(row.key, summary.submission) if wish.again else row.key
        keys[key] = row
        if decided.id not in decisions:
            decisions[decided.id] = row_of(decided)
        jobs.append(router.new_job(row.request, decided, row.body, key))
    if not jobs:
        return
    known = queue.add(router.store, summary.submission, list(decisions.values()), jobs, now)
    summary.accepted += len(jobs) - len(known)
    summary.duplicates += len(known)
    for job in jobs:
        if job.row_key not in known:
            summary.lanes[job.lane] = summary.lanes.get(job.lane, 0) + 1
        elif len(summary.skipped) < NAMED:
            row = keys[job.row_key]
            summary.skipped.append(row.request.client_key or f"line {row.line}")


def _salted(key: str, submission: str) -> str:
    return sha256(f"{submission} {key}".encode()).hexdigest()[:32]
