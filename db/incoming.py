"""Jobs as they come in, and their rows: the job, its words, and the decision that it shares."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select

from db.bulk import insert_rows
from db.ledger import DECISION, JOB
from db.states import JobState
from db.tables import Body, table

BODY = table(Body)

_KEYS_A_SELECT = 500
_CACHED = 4096  # characters: about 1,024 tokens


class NewJob(NamedTuple):  # a tuple: a file makes hundreds of thousands of them
    """A job as it comes in; `body` is canonical JSON, `row_key` what makes a second submit of it add nothing."""

    id: str
    row_key: str
    client_key: str | None
    decision_id: str
    lane: str
    tier: str
    provider: str
    model: str
    interactive: bool
    priority: int
    tags: dict[str, str] | None
    deadline_at: datetime | None
    leave_by: datetime | None
    body: str
    post_process: str | None
    handling: str | None = None
    max_cost_nano: int | None = None

    @property
    def prefix(self) -> str | None:
        """Equal for bodies that begin alike; None for those that no provider's prompt cache looks at (1,024 tokens)."""
        return blake2b(self.body[:_CACHED].encode(), digest_size=8).hexdigest() if len(self.body) > _CACHED else None


_SAME_KEYS = select(JOB.c.row_key).where(JOB.c.row_key.in_(bindparam("keys", expanding=True)))


def known(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Those of the row keys that have a job."""
    found: set[str] = set()
    for first in range(0, len(keys), _KEYS_A_SELECT):
        part = keys[first : first + _KEYS_A_SELECT]
        found.update(connection.scalars(_SAME_KEYS, {"keys": part}))
    return found


_QUEUED = {"state": JobState.QUEUED.value, "attempts": 0}


def insert(connection: Connection, submissions: Iterable[str], decisions: Sequence[dict[str, Any]],
           jobs: Sequence[NewJob], now: datetime, state: dict[str, Any] = _QUEUED) -> None:  # fmt: skip
    """Add jobs with their submissions, bodies and decisions, all in one state."""
    if not jobs:
        return
    names = list(decisions[0])
    insert_rows(connection, DECISION, {}, names, [tuple(one[name] for name in names) for one in decisions],
                skip_known=True)  # fmt: skip
    same = {"step": 0, "submitted_at": now, "run_after": now}
    rows = ((one, *_job_values(job)) for one, job in zip(submissions, jobs, strict=False))
    insert_rows(connection, JOB, same | state, ("submission_id", *_OF_JOB), rows)
    insert_rows(connection, BODY, {}, _OF_BODY, map(_body_values, jobs))


_OF_JOB = ("id row_key client_key decision_id lane tier provider model interactive priority tags deadline_at "
           "leave_by prefix max_cost_nano").split()  # fmt: skip
_OF_BODY = {"job_id": "id", "body": "body", "post_process": "post_process", "handling": "handling"}
_job_values = attrgetter(*_OF_JOB)
_body_values = attrgetter(*_OF_BODY.values())
