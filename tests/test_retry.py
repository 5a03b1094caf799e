"""Three tries, the provider's wish first, and rows that never ran are not counted."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.chat import Answer, Choice, Outcome
from jobs.errors import Permanent, Transient
from jobs.providers import Row
from jobs.retry import (
    FIRST_WAIT,
    LONGEST_WAIT,
    LONGEST_WISH,
    MAX_ATTEMPTS,
    MOST_TURNED_AWAY,
    counts,
    retry,
    retry_row,
    turned_away,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def wait(error: Transient, attempt: int, rand: float = 0.5) -> float:
    when = retry(error, attempt, NOW, rand)
    assert when is not None
    return (when - NOW).total_seconds()


def test_permanent_never() -> None:
    assert retry(Permanent("bad schema"), 1, NOW) is None


def test_three_tries_in_all() -> None:
    assert MAX_ATTEMPTS == 3
    assert retry(Transient("busy"), 2, NOW) is not None
    assert retry(Transient("busy"), 3, NOW) is None
    assert retry(Transient("busy", retry_after=1), 3, NOW) is None


@pytest.mark.parametrize(("asked", "least"), [(0, 0), (7, 7), (600, 600), (3600, 3600), (90_000, 3600), (-5, 0)])
def test_the_providers_wish_is_obeyed_up_to_an_hour(asked: float, least: float) -> None:
    assert least <= wait(Transient("busy", retry_after=asked), 1, 0.99) <= least + 0.5


def test_without_a_wish_the_wait_doubles_with_jitter() -> None:
    error = Transient("cut")
    assert [wait(error, n) for n in (1, 2)] == [0.5, 1.0]
    assert [wait(error, 1, rand) for rand in (0.0, 0.999)] == pytest.approx([0.25, 0.75], rel=0.01)


@given(st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 1e9))
def test_waits_grow_and_are_bounded(rand: float, asked: float | None) -> None:
    error = Transient("busy", retry_after=asked)
    first, second = wait(error, 1, rand), wait(error, 2, rand)
    assert 0 <= first <= second <= (LONGEST_WAIT if asked is None else LONGEST_WISH + FIRST_WAIT)


def test_a_row_that_never_ran_is_packed_again_without_counting() -> None:
    for row in (Row("a", None, "batch_expired", expired=True), Row("a", None, "batch_cancelled", cancelled=True)):
        assert not counts(row)
        assert retry_row(row, 99, NOW) == NOW


def test_a_row_that_ran_counts() -> None:
    row = Row("a", None, "server_error")
    assert counts(row)
    assert retry_row(row, 2, NOW) == NOW
    assert retry_row(row, 3, NOW) is None
    assert retry_row(Row("a", None, "invalid_request", retry=False), 1, NOW) is None


def test_a_usable_answer_needs_no_retry() -> None:
    good = Row("a", Answer((Choice("yes"),), Outcome.COMPLETE))
    cut = Row("a", Answer((Choice("y"),), Outcome.CUT))
    assert retry_row(good, 1, NOW) is None
    assert retry_row(cut, 1, NOW) == NOW


def test_who_was_turned_away_waits_longer_each_time_and_not_for_ever() -> None:
    error = Transient("busy", status=429)
    times = [turned_away(error, n, NOW) for n in range(1, MOST_TURNED_AWAY)]
    waits = [(time - NOW).total_seconds() for time in times if time]
    assert len(waits) == len(times)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.5, LONGEST_WAIT)
    assert 1800 < sum(waits) < 7200
    assert turned_away(error, MOST_TURNED_AWAY, NOW) is None


def test_and_as_long_as_the_provider_says() -> None:
    asked = turned_away(Transient("busy", status=429, retry_after=90), 1, NOW)
    assert asked == NOW + timedelta(seconds=90)
