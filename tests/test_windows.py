"""The window: its forms, midnight, and the two nights a year on which the clock jumps."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import UsageError
from jobs.windows import Window, local_zone, parse, wait_s

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    """A moment, UTC."""
    return datetime.fromisoformat(f"{text}+00:00")


def window(text: str) -> Window:
    found = parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("01:00-06:00 Europe/Berlin", "01:00-06:00 Europe/Berlin"),
        (" 1:00 – 6:00  UTC ", "01:00-06:00 UTC"),
        ("22:00-06:00 America/New_York", "22:00-06:00 America/New_York"),
        ("12:00-24:00 UTC", "12:00-24:00 UTC"),
        ("00:00-24:00 UTC", "00:00-24:00 UTC"),
    ],
)
def test_what_is_kept_of_it_says_the_same(text: str, kept: str) -> None:
    assert str(window(text)) == kept
    assert parse(kept) == parse(text)


def test_always_is_no_window() -> None:
    assert parse("always") is None
    assert parse(" Always ") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "01:00-06:00"),
        ("nights", "write it as"),
        ("1-6", "write it as"),
        ("01:00", "write it as"),
        ("01:00-06:00 Mars/Phobos", "not a time zone"),
        ("01:00-06:00 ../etc/passwd", "not a time zone"),
        ("01:00-06:00 Europe/Berlin tomorrow", "write it as"),
        ("25:00-06:00", "from 00:00"),
        ("01:60-06:00", "from 00:00"),
        ("01:00-24:01", "from 00:00"),
        ("24:00-06:00", "from 00:00"),
        ("06:00-06:00", "always for the whole day"),
        ("00:00-00:00", "always for the whole day"),
    ],
)
def test_what_is_wrong_is_said(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as raised:
        parse(text)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "now", "wait"),
    [
        ("01:00-06:00 UTC", "2026-11-22T00:59:59", 1),
        ("01:00-06:00 UTC", "2026-11-22T01:00", 0),
        ("01:00-06:00 UTC", "2026-11-22T05:59:59", 0),
        ("01:00-06:00 UTC", "2026-11-22T06:00", 19 * 3600),
        ("22:00-06:00 UTC", "2026-11-22T21:00", 3600),
        ("22:00-06:00 UTC", "2026-11-22T23:59", 0),
        ("22:00-06:00 UTC", "2026-11-22T00:00", 0),
        ("22:00-06:00 UTC", "2026-11-22T06:00", 16 * 3600),
        ("22:00-00:00 UTC", "2026-11-22T23:59:59", 0),
        ("22:00-00:00 UTC", "2026-11-23T00:00", 22 * 3600),
        ("12:00-24:00 UTC", "2026-11-23T00:00", 12 * 3600),
        ("00:00-24:00 UTC", "2026-11-23T00:00", 0),
        ("01:00-06:00 Europe/Berlin", "2026-11-22T00:00", 0),
        ("01:00-06:00 Europe/Berlin", "2026-07-22T04:30", 18.5 * 3600),
        ("01:00-06:00 Asia/Kolkata", "2026-11-22T19:00", 1800),
        # clocks in Berlin go from 02:00 to 03:00 on 2026-03-29 (01:00 UTC)
        ("01:00-06:00 Europe/Berlin", "2026-03-29T00:00", 0),
        ("01:00-06:00 Europe/Berlin", "2026-03-29T03:59", 0),
        ("01:00-06:00 Europe/Berlin", "2026-03-29T04:00", 19 * 3600),
        ("02:30-06:00 Europe/Berlin", "2026-03-29T00:30", 3600),  # 02:30 is skipped: it opens at 03:30
        ("02:30-06:00 Europe/Berlin", "2026-03-29T01:30", 0),
        ("02:15-02:45 Europe/Berlin", "2026-03-29T00:15", 3600),
        ("02:15-02:45 Europe/Berlin", "2026-03-29T01:44", 0),
        ("02:15-02:45 Europe/Berlin", "2026-03-29T01:45", 22.5 * 3600),
        ("01:00-02:30 Europe/Berlin", "2026-03-29T01:29", 0),
        ("01:00-02:30 Europe/Berlin", "2026-03-29T01:30", 21.5 * 3600),
        ("22:00-06:00 Europe/Berlin", "2026-03-28T21:00", 0),
        ("22:00-06:00 Europe/Berlin", "2026-03-29T04:00", 16 * 3600),
        # and from 03:00 back to 02:00 on 2026-10-25 (01:00 UTC)
        ("02:30-06:00 Europe/Berlin", "2026-10-25T00:29", 60),  # it opens at the first 02:30
        ("02:30-06:00 Europe/Berlin", "2026-10-25T01:15", 0),  # and stays open when 02:15 comes again
        ("01:00-02:30 Europe/Berlin", "2026-10-25T01:29", 0),  # it closes at the second 02:30
        ("01:00-02:30 Europe/Berlin", "2026-10-25T01:30", 22.5 * 3600),
        ("02:15-02:45 Europe/Berlin", "2026-10-25T01:00", 0),
        ("22:00-06:00 Europe/Berlin", "2026-10-25T05:00", 16 * 3600),
        # half an hour on Lord Howe Island: from 02:00 to 02:30 on 2026-10-04 (15:30 UTC the day before)
        ("02:10-02:20 Australia/Lord_Howe", "2026-10-03T15:39", 60),
    ],
)
def test_how_long_it_is_waited_for(text: str, now: str, wait: float) -> None:
    assert wait_s(text, at(now)) == wait
    assert window(text).is_open(at(now)) is (wait == 0)
    assert window(text).opens(at(now)) == at(now) + timedelta(seconds=wait)


def test_without_a_window_nothing_is_waited_for() -> None:
    assert wait_s(None, at("2026-11-22T12:00")) == 0
    assert wait_s("always", at("2026-11-22T12:00")) == 0


@pytest.mark.parametrize("zone", [BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
@given(start=st.integers(0, 1439), length=st.integers(1, 1439), minutes=st.integers(0, 366 * 24 * 60))
def test_it_opens_once_a_day_and_closes_again(zone: str, start: int, length: int, minutes: int) -> None:
    one, now = Window(start, (start + length) % 1440, ZoneInfo(zone)), at("2026-01-01T00:00")
    now += timedelta(minutes=minutes)
    opens = one.opens(now)
    assert timedelta(0) <= opens - now <= timedelta(hours=25)
    assert one.is_open(opens)
    assert one.opens(opens) == opens
    if opens > now:
        assert not one.is_open(opens - timedelta(seconds=1))
        local = opens.astimezone(ZoneInfo(zone))
        late = local.hour * 60 + local.minute - start
        assert late in (0, 30, 60)  # later only where the clock skips it


def test_a_window_without_a_zone_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    local_zone.cache_clear()
    monkeypatch.setenv("TZ", "America/New_York")
    assert str(parse("01:00-06:00")) == "01:00-06:00 America/New_York"
    local_zone.cache_clear()
    monkeypatch.setenv("TZ", "nowhere at all")
    assert wait_s("01:00-06:00", at("2026-11-22T01:00")) == 0
    local_zone.cache_clear()


def test_when_it_opens_as_a_cron_line() -> None:
    assert window("01:05-06:00 Europe/Berlin").cron == ("5 1 * * *", BERLIN)
    assert Window(60, 360, UTC).cron is None
