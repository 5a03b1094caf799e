"""When a batch is looked at again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.polling import poll_pause

ages, shares = st.floats(0, 10 * 86_400), st.floats(0, 1)


@given(ages, shares)
def test_a_batch_is_seen_neither_all_the_time_nor_seldom(age: float, done: float) -> None:
    least = 0.1 if done else 0.5
    assert max(least, min(age / 20, 300)) <= poll_pause(age, done) <= min(max(age / 2, least), 300)


@given(st.floats(10, 86_400), st.floats(0.1, 0.9), st.floats(0.01, 0.1))
def test_the_nearer_its_end_the_sooner(age: float, done: float, more: float) -> None:
    assert poll_pause(age, done + more) <= poll_pause(age, done)


def test_a_young_batch_whose_rows_get_done_is_not_kept_waiting() -> None:
    assert poll_pause(2, 0) == 1
    assert poll_pause(0.5, 0) == 0.5
    assert poll_pause(2, 0.95) == pytest.approx(0.105, abs=0.001)


def test_a_batch_that_is_nearly_done_is_seen_when_it_should_be() -> None:
    assert poll_pause(90, 0.9) == pytest.approx(10)
    assert poll_pause(3600, 0.9) == 300
    assert poll_pause(3600, 1) == 180  # it may stand so for ever
