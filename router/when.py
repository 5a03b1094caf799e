"""Times as people write and read them: "7d", "08:00", an ISO time; "in 3 h", "2 min ago"."""

import re
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from jobs.errors import UsageError

FORMS = "write a duration (90m, 6h, 7d), a time of day (08:00) or an ISO time (2027-01-31T08:00)"
LONGEST = timedelta(days=3653)  # ten years: what is further away is a slip of the hand

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


def moment(text: str, now: datetime, *, past: bool) -> datetime:
    """The moment that the words mean, aware UTC; a duration and a time of day count back from `now` if `past`.

    A time without a zone is local. UsageError names the forms, and refuses what lies more than ten years ahead.
    """
    words = text.strip()
    if clock := _CLOCK.fullmatch(words):
        return _clock(time(int(clock[1]), int(clock[2])), now, past)
    if words[:1].isdigit() and words[-1:].lower() in _SECONDS:
        return now - duration(words) if past else now + duration(words)
    try:
        found = datetime.fromisoformat(words).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _not_understood(text) from None
    if found - now > LONGEST:
        raise UsageError(f"{_quoted(text)} is more than ten years away; {FORMS}", code="time")
    return found


def period(since: str | None, until: str | None, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The two moments of the past that the words mean; UsageError also where the second is not after the first."""
    start, end = (None if text is None else moment(text, now, past=True) for text in (since, until))
    if start and end and end <= start:
        raise UsageError(f"--until {_quoted(until or '')} is not after --since {_quoted(since or '')}", code="time")
    return start, end


def duration(text: str) -> timedelta:
    """How long the words mean: "90m", "1h30m", "7d"; UsageError when it is nothing, or more than ten years."""
    words = text.strip().lower()
    if not _DURATION.fullmatch(words):
        raise _not_understood(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(words))
    if seconds <= 0:
        raise UsageError(f"{_quoted(text)} is no time at all; {FORMS}", code="time")
    if seconds > LONGEST.total_seconds():
        raise UsageError(f"{_quoted(text)} is more than ten years; {FORMS}", code="time")
    return timedelta(seconds=seconds)


def zone_of(name: str) -> str:
    """The time zone of this name; UsageError where there is none."""
    try:
        return ZoneInfo(name).key
    except (OSError, ValueError, KeyError):
        raise UsageError(f"--tz is {name!r}: write a time zone like Europe/Berlin") from None


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _not_understood(text: str) -> UsageError:
    if text.strip().startswith("-"):
        return UsageError(f"{_quoted(text)} is negative; {FORMS}", code="time")
    return UsageError(f"{_quoted(text)} is not a time; {FORMS}", code="time")


def _clock(wanted: time, now: datetime, past: bool) -> datetime:
    """The next such local time, or the last one; each day is looked at by itself, for the hour may change between."""
    today = now.astimezone().date()
    for day in (0, -1) if past else (0, 1):
        found = datetime.combine(today + timedelta(days=day), wanted).astimezone(UTC)
        if (found <= now) if past else (found > now):
            break
    return found


def span(seconds: float) -> str:
    """A length of time in at most two words: "0.04 ms", "450 ms", "3.2 s", "40 min", "5 h", "3 d"."""
    if 0.000005 <= seconds < 0.00995:
        return f"{seconds * 1000:.{1 if seconds >= 0.00095 else 2}f} ms"
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, size, unit in ((99.5, 1, "s"), (99.5 * 60, 60, "min"), (47.5 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def relative(found: datetime, now: datetime) -> str:
    """How far it is from now: "in 3 h", "2 min ago", "now"."""
    seconds = (found - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    away = span(abs(seconds)) if abs(seconds) >= 10 else f"{abs(seconds):.0f} s"
    return f"in {away}" if seconds > 0 else f"{away} ago"


def local(found: datetime, now: datetime) -> str:
    """The local time, with the day where it is not today."""
    here = found.astimezone()
    return f"{here:%H:%M}" if here.date() == now.astimezone().date() else f"{here:%Y-%m-%d %H:%M}"
