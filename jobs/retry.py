"""When to try again, and when not. Pure: the time and the dice are arguments."""

from datetime import datetime, timedelta

from jobs.errors import CallError, Transient
from jobs.providers import Row

MAX_ATTEMPTS = 3  # in all, the first one counted
MOST_TURNED_AWAY = 64
FIRST_WAIT = 0.5  # seconds, doubled by each try
LONGEST_WAIT = 60.0
LONGEST_WISH = 3600.0  # a provider that asks for more is asked again after this


def retry(error: CallError, attempt: int, now: datetime, rand: float = 0.5) -> datetime | None:
    """When try `attempt` (counted from 1), which ended in `error`, is followed by another; None: never.

    The provider's Retry-After is obeyed up to an hour. Without one the wait doubles from 0.5 s to 60 s, times
    0.5 + `rand`, which the caller draws from [0, 1) so that a crowd does not come back at once.
    """
    if not isinstance(error, Transient) or attempt >= MAX_ATTEMPTS:
        return None
    if error.retry_after is not None:
        wait = min(max(error.retry_after, 0.0), LONGEST_WISH) + FIRST_WAIT * rand
    else:
        wait = min(FIRST_WAIT * 2 ** (attempt - 1) * (0.5 + rand), LONGEST_WAIT)
    return now + timedelta(seconds=wait)


def turned_away(error: Transient, times: int, now: datetime, rand: float = 0.5) -> datetime | None:
    """When a job is sent again that a provider without room has turned away so many times; None: not again.

    That is none of its tries, so it goes on for MOST_TURNED_AWAY times, about an hour, as `retry` waits.
    """
    if times >= MOST_TURNED_AWAY:
        return None
    wait = min(FIRST_WAIT * 2 ** min(times - 1, 10) * (0.5 + rand), LONGEST_WAIT)
    return now + timedelta(seconds=max(wait, min(error.retry_after or 0.0, LONGEST_WISH)))


def counts(row: Row) -> bool:
    """Whether a batch row's try is one of the three: rows that expired or were cancelled never ran."""
    return not (row.expired or row.cancelled)


def retry_row(row: Row, attempt: int, now: datetime) -> datetime | None:
    """When a batch row without an answer may be packed again: at once, or None when it has had its tries.

    `attempt` is how many tries of the job have run, this row's among them where `counts(row)` says that it ran.
    """
    if row.answer is not None and row.answer.usable:
        return None
    if counts(row) and (not row.retry or attempt >= MAX_ATTEMPTS):
        return None
    return now
