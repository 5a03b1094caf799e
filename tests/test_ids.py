"""Ids: sorted by time, within what every Batch API takes, and read back."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from db.ids import custom_id, new_id, parse_custom_id
from tests.lanes import NOW


def test_ids_of_one_process_grow_strictly_even_when_the_clock_does_not() -> None:
    times = [NOW, NOW, NOW - timedelta(hours=1), NOW + timedelta(seconds=1), NOW]
    ids = [new_id(at) for at in times * 200]
    assert ids == sorted(set(ids))


def test_threads_get_different_ids() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id(NOW), range(4000)))
    assert len(set(ids)) == 4000


def test_later_processes_have_later_ids() -> None:
    early, late = new_id(datetime(2099, 1, 1, tzinfo=UTC)), new_id(datetime(2099, 1, 2, tzinfo=UTC))
    assert early < late


@given(st.integers(1, 10**6))
def test_a_custom_id_comes_back_and_fits_every_batch_api(n: int) -> None:
    job_id = new_id(NOW)
    text = custom_id(job_id, n)
    assert parse_custom_id(text) == (job_id, n)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", text)


@given(st.text())
def test_anything_else_is_not_ours(text: str) -> None:
    key = parse_custom_id(text)
    assert key is None or len(key[0]) == 26
