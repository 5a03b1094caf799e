"""Times as people write and read them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import UsageError
from router import when

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("90s", 90), ("90m", 5400), ("6h", 21600), ("7d", 604800), ("2w", 1209600), ("1h30m", 5400), (" 1.5H ", 5400)],
)
def test_a_duration_counts_from_now_forward_or_back(words: str, seconds: float) -> None:
    assert when.moment(words, NOW, past=False) == NOW + timedelta(seconds=seconds)
    assert when.moment(words, NOW, past=True) == NOW - timedelta(seconds=seconds)


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("words", "past", "found"),
    [
        ("08:00", False, "2026-11-23T07:00Z"),
        ("08:00", True, "2026-11-22T07:00Z"),
        ("18:00", False, "2026-11-22T17:00Z"),
        ("18:00", True, "2026-11-21T17:00Z"),
        ("13:30", False, "2026-11-23T12:30Z"),  # now: the next one is tomorrow's
        ("13:30", True, "2026-11-22T12:30Z"),
        ("2026-12-01", False, "2026-11-30T23:00Z"),
        ("2026-07-01T08:00", True, "2026-07-01T06:00Z"),  # summer time
        ("2026-12-01T08:00Z", False, "2026-12-01T08:00Z"),
        ("2026-12-01T08:00+05:30", False, "2026-12-01T02:30Z"),
    ],
)
def test_a_time_without_a_zone_is_local(words: str, past: bool, found: str) -> None:
    assert when.moment(words, NOW, past=past) == datetime.fromisoformat(found)


@pytest.mark.usefixtures("berlin")
def test_a_time_of_day_across_the_change_of_the_clocks_is_that_time_on_the_wall() -> None:
    evening = datetime(2026, 10, 24, 20, tzinfo=UTC)  # 22:00 in summer; the clocks go back in the night
    assert when.moment("08:00", evening, past=False) == datetime(2026, 10, 25, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-6h", "negative"), ("0h", "no time at all"), ("11000d", "more than ten years"),
        ("9" * 500 + "d", "ten years"),
        ("soon", "not a time"), ("", "not a time"), ("25:00", "not a time"), ("6 h", "not a time"),
        ("6x", "not a time"),
        ("2026-13-01", "not a time"), ("9999-01-01", "ten years away"), ("0001-01-01T00:00+23:00", "not a time"),
        ("1e3d", "not a time"), ("٣d", "not a time"), ("nan", "not a time"),
    ],
)  # fmt: skip
def test_other_words_are_refused_with_the_forms(words: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        when.moment(words, NOW, past=False)
    assert "90m" in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.text(max_size=20), st.booleans())
def test_any_words_are_a_moment_or_a_usage_error(words: str, past: bool) -> None:
    try:
        found = when.moment(words, NOW, past=past)
    except UsageError:
        return
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 ms"), (0, "0 ms"), (0.000004, "0 ms"), (0.00004, "0.04 ms"), (0.0066, "6.6 ms"), (0.45, "450 ms"),
     (0.9999, "1.0 s"), (3.21, "3.2 s"), (9.96, "10 s"), (99, "99 s"),
     (100, "2 min"), (2400, "40 min"), (7200, "2 h"), (86400, "24 h"), (172800, "2 d")],
)  # fmt: skip
def test_a_span_is_two_words(seconds: float, words: str) -> None:
    assert when.span(seconds) == words


def test_a_moment_is_told_from_now() -> None:
    for seconds, words in ((0, "now"), (3, "in 3 s"), (-3, "3 s ago"), (10800, "in 3 h"), (-172800, "2 d ago")):
        assert when.relative(NOW + timedelta(seconds=seconds), NOW) == words


@pytest.mark.usefixtures("berlin")
def test_a_local_time_names_its_day_unless_it_is_today() -> None:
    assert when.local(NOW, NOW) == "13:30"
    assert when.local(NOW + timedelta(days=1), NOW) == "2026-11-23 13:30"
