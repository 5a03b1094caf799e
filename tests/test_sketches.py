"""Sketches of times: within the error that they state of the exact percentiles, however they were put together."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.sketches import PERCENTILES, RELATIVE_ERROR, Bins, bin_of, merged, packed, percentiles, pour

times = st.lists(st.floats(0.01, 1e9), min_size=1, max_size=80)


def sketch(values: list[float]) -> Bins:
    return Counter(bin_of(value) for value in values)


@given(values=times)
def test_a_percentile_is_within_the_error_of_the_value_of_its_rank(values: list[float]) -> None:
    found, ranked = percentiles(sketch(values)), sorted(values)
    assert found is not None
    assert found["count"] == len(values)
    for p in PERCENTILES:
        exact = ranked[-(-p * len(ranked) // 100) - 1]
        assert found[f"p{p}"] == pytest.approx(
            exact, rel=0, abs=exact * RELATIVE_ERROR * 1.000001 + 0.0005
        )  # and it is rounded


@given(values=times, more=times)
def test_sketches_add_up_stored_or_not(values: list[float], more: list[float]) -> None:
    stored: Bins = Counter()
    for part in (values, more):
        pour(packed(sketch(part)), stored)
    assert stored == sketch(values + more) == merged([sketch(values), sketch(more)])


def test_nothing_measured_has_no_percentiles_and_no_time_at_all_has() -> None:
    assert percentiles({}) is None
    assert percentiles(sketch([0.0, -3.0]), ms_a_unit=1000) == {"count": 2, "p50": 0, "p90": 0, "p95": 0, "p99": 0}


def test_a_year_is_in_reach_and_units_are_kept() -> None:
    year = 366 * 86_400_000.0
    found = percentiles(sketch([year]), ms_a_unit=1000)
    assert found is not None
    assert found["p99"] == pytest.approx(year / 1000, rel=RELATIVE_ERROR)
