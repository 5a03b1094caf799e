"""The hours in which bulk work may be submitted, in a time zone, over midnight and over the changes of its clock."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from jobs.errors import UsageError

KEY = "window"  # of the setting in the database
ALWAYS = "always"

_FORM = re.compile(r"(\d{1,2}):(\d{2})\s*[-–]\s*(\d{1,2}):(\d{2})(?:\s+(\S+))?")
_DAY = 24 * 60
_UNKNOWN = (OSError, ValueError, KeyError)  # what ZoneInfo raises for a name that is no zone


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to `end`, minutes of the local day; an end that is not later lies on the next day."""

    start: int
    end: int
    zone: tzinfo

    def __str__(self) -> str:
        hours = f"{_clock(self.start)}-{_clock(self.end)}"
        return f"{hours} {self.zone.key}" if isinstance(self.zone, ZoneInfo) and self.zone.key else hours

    def is_open(self, at: datetime) -> bool:
        """Whether bulk work may be submitted at this time."""
        return self.opens(at) <= at

    def opens(self, at: datetime) -> datetime:
        """When it opens next; `at` itself while it is open."""
        today = at.astimezone(self.zone).date()
        days = (today + timedelta(days=number) for number in (-1, 0, 1, 2))
        return next(max(opens, at) for opens, closes in map(self._span, days) if at < closes)

    def last(self, at: datetime) -> tuple[datetime, datetime]:
        """When the last one opened that is over, and when it closed."""
        today = at.astimezone(self.zone).date()
        spans = (self._span(today - timedelta(days=number)) for number in range(4))
        return next((opened, closed) for opened, closed in spans if closed <= at)

    def _span(self, day: date) -> tuple[datetime, datetime]:
        """One night's opening and closing.

        An hour that the clock shows twice counts whole. A time that it skips is as much later as the clock jumps.
        """
        after = timedelta(days=self.end <= self.start)
        return self._instant(day, self.start, fold=0), self._instant(day + after, self.end, fold=1)

    def _instant(self, day: date, minutes: int, *, fold: int) -> datetime:
        local = datetime.combine(day + timedelta(days=minutes // _DAY), time(minutes % _DAY // 60, minutes % 60))
        exact = local.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)
        if exact.astimezone(self.zone).replace(tzinfo=None, fold=0) == local:
            return exact
        return local.replace(tzinfo=self.zone, fold=0).astimezone(UTC)  # skipped: by the clock before the jump

    @property
    def cron(self) -> tuple[str, str] | None:
        """When it opens, as a cron line and the name of its zone; None where the zone has no name."""
        zone = getattr(self.zone, "key", None)
        return (f"{self.start % 60} {self.start // 60} * * *", zone) if zone else None


def parse(text: str) -> Window | None:
    """`01:00-06:00`, with or without a time zone; None for `always`. UsageError says what is wrong with it."""
    if text.strip().lower() == ALWAYS:
        return None
    form = _FORM.fullmatch(text.strip())
    if not form:
        raise _wrong(text, "write it as 01:00-06:00, 22:00-06:00 Europe/Berlin, or always")
    start, end = (int(hour) * 60 + int(minute) for hour, minute in (form.group(1, 2), form.group(3, 4)))
    if int(form[2]) > 59 or int(form[4]) > 59 or start >= _DAY or end > _DAY:
        raise _wrong(text, "hours go from 00:00 to 23:59, an end may be 24:00")
    if start == end:
        raise _wrong(text, "it ends when it starts; write always for the whole day")
    return Window(start, end, _zone(text, form[5]) if form[5] else local_zone())


def wait_s(text: str | None, at: datetime) -> float:
    """Seconds that bulk work waits at this time for the window kept as `text`; 0 without one, or while it is open."""
    window = parse(text) if text else None
    return (window.opens(at) - at).total_seconds() if window else 0.0


@cache
def local_zone() -> tzinfo:
    """The machine's time zone, with its name where that can be told."""
    path = Path("/etc/localtime")
    try:
        if name := os.environ.get("TZ", "").lstrip(":"):
            return ZoneInfo(name)
        _, inside, name = str(path.resolve()).partition("zoneinfo/")
        if inside:
            return ZoneInfo(name)
        with path.open("rb") as file:
            return ZoneInfo.from_file(file)
    except _UNKNOWN:
        return UTC


def _zone(text: str, name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except _UNKNOWN:
        raise _wrong(text, f"{name!r} is not a time zone; write one like Europe/Berlin") from None


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"the window is {text!r}: {why}", code="bad_window")


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
