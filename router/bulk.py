"""A file of requests through the router: checked, decided and queued, a thousand rows a transaction."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import islice

from db import queue
from db.ids import new_id
from db.queue import NewJob
from jobs import collector
from jobs.errors import ShunterError
from jobs.observing import FileTakenIn
from router.budgeting import Means
from router.decided import Decided, Wish, row_of
from router.decision import Decision, Facts
from router.dispatch import Router
from router.intake import Reader, Reject, Rejects, Row, canonical

ROWS_A_WRITE = 1000
BYTES_A_WRITE = 32 * 1024 * 1024  # a thousand rows may be a thousand times 16 MiB
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
    lanes: Counter[str] = field(default_factory=Counter)
    first_reject: str | None = None
    exit_code: int = 2  # what a file ends with that has nothing but rejects: 3 where a cap or the policy said no

    @property
    def rows(self) -> int:
        """Rows read so far."""
        return self.accepted + self.duplicates + self.rejected


@dataclass(slots=True)
class _Part:
    """Rows that are kept together or not at all."""

    jobs: list[NewJob] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the jobs: custom_id or line
    decisions: dict[str, Decided] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    exit_code: int = 2


class Decider:
    """Decisions for the rows of one file: equal facts are decided once, at one time."""

    def __init__(self, router: Router, wish: Wish, now: datetime, group: int) -> None:
        self._router, self._wish, self._now, self._group = router, wish, now, group
        router.answers.load()
        self._known: dict[Facts, Decided] = {}
        self._means = Means(router, now)

    def __call__(self, row: Row) -> tuple[Row, Decided]:
        """The row as the policy changes it, and how it was decided."""
        request, facts = self._router.routed(row.request, self._wish, self._now, self._group)
        if (decided := self._known.get(facts)) is None:
            decided = self._known[facts] = Decided.of(self._router.decide(facts, self._now), facts, self._now)
            self._wish.check(decided.decision)
        if request is not row.request:
            row = row._replace(request=request, body=canonical(request.body()))
        self._means.check(row.request, row.body, decided)
        return row, decided


def submit(
    router: Router, reader: Reader, wish: Wish, rejects: Rejects, name: str, told: Callable[[Summary], None]
) -> Summary:
    """Queue the rows that are new; refused ones go to `rejects`. Each thousand is kept or not, as a whole."""
    now = router.clock.now()
    summary = Summary(new_id(now))
    queue.open_submission(router.store, summary.submission, name, now)
    decide = Decider(router, wish, now, reader.expected)
    with rejects, _unhurried_gc():
        for part in _parts(reader, decide, summary.submission if wish.again else None):
            _write(router, summary, part, rejects, now)
            told(summary)
    counts = summary.accepted, summary.duplicates, summary.rejected
    router.context().tell(FileTakenIn(summary.submission, *counts))
    summary.rejects_file = str(rejects.path) if rejects.path else None
    return summary


def dry_run(router: Router, reader: Reader, wish: Wish) -> Iterator[tuple[Row, Decision, bool] | Reject]:
    """What submit would do with each row, and whether it is known already; keeps nothing."""
    decide, items = Decider(router, wish, router.clock.now(), reader.expected), iter(reader)
    looks = router.exists() and not wish.again
    while chunk := list(_chunk(items)):
        keys = [item.key for item in chunk if isinstance(item, Row)]
        known = queue.known(router.store, keys) if looks else set()
        for item in chunk:
            if isinstance(item, Row):
                try:
                    row, decided = decide(item)
                    yield row, decided.decision, item.key in known
                except ShunterError as error:
                    yield _refused(item, error)
            else:
                yield item


def _parts(reader: Reader, decide: Decider, salt: str | None) -> Iterator[_Part]:
    """A file in parts, each of which is read, decided and let go before the next."""
    items = iter(reader)
    while chunk := list(_chunk(items)):
        part = _part(chunk, decide, salt)
        chunk.clear()
        yield part


def _part(chunk: Sequence[Row | Reject], decide: Decider, salt: str | None) -> _Part:
    """In stages, each over the whole part: a processor that does one thing at a time does it a third faster."""
    part = _Part(rejects=[item for item in chunk if isinstance(item, Reject)])
    decided = []
    for row in (item for item in chunk if isinstance(item, Row)):
        try:
            decided.append(decide(row))
        except ShunterError as error:  # the policy's no, or a deadline that has passed
            part.rejects.append(_refused(row, error))
            part.exit_code = error.exit_code
    part.jobs = [one.job(row.request, row.body, _key(row, salt)) for row, one in decided]
    part.names = [row.request.client_key or f"line {row.line}" for row, _ in decided]
    part.decisions = {one.id: one for _, one in decided}
    return part


def _chunk(items: Iterator[Row | Reject]) -> Iterator[Row | Reject]:
    size = 0
    for item in islice(items, ROWS_A_WRITE):
        yield item
        size += len(item.body) if isinstance(item, Row) else len(item.raw)
        if size >= BYTES_A_WRITE:
            return


def _key(row: Row, salt: str | None) -> str:
    return f"{row.key[:8]}{sha256(f'{salt} {row.key}'.encode()).hexdigest()[:32]}" if salt else row.key


def _refused(row: Row, error: ShunterError) -> Reject:
    return Reject(row.line, str(error), row.body.encode(), row.request.client_key)


def _write(router: Router, summary: Summary, part: _Part, rejects: Rejects, now: datetime) -> None:
    for reject in part.rejects:
        rejects.add(reject)
        summary.first_reject = summary.first_reject or f"line {reject.line}: {reject.reason}"
    known: set[str] = set()
    if part.jobs:
        known = queue.add(router.store, summary.submission, [*map(row_of, part.decisions.values())], part.jobs, now)
    if part.rejects:
        queue.reject(router.store, summary.submission, len(part.rejects))
    summary.rejected += len(part.rejects)
    summary.exit_code = max(summary.exit_code, part.exit_code)
    summary.accepted += len(part.jobs) - len(known)
    summary.duplicates += len(known)
    if known:
        old = (name for name, job in zip(part.names, part.jobs, strict=True) if job.row_key in known)
        summary.skipped = [*summary.skipped, *old][:NAMED]
    summary.lanes.update(job.lane for job in part.jobs if job.row_key not in known)


@contextmanager
def _unhurried_gc() -> Iterator[None]:
    """Look for cycles seldom, and never at the modules, which alone takes a quarter of the whole."""
    gc.freeze()
    try:
        with collector.seldom():
            yield
    finally:
        gc.unfreeze()
