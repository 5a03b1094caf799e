"""Expected length after some answers of the same template were seen."""

import random
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.lengths import WITHIN, Z90, Seen, from_history

PRIOR = (200.0, 600.0)
SPREAD = log(PRIOR[1] / PRIOR[0]) / Z90
COUNTS = st.lists(st.integers(0, 10**6), max_size=40)


def answers(chance: random.Random, many: int, within: float = WITHIN) -> list[int]:
    """Answers of a template that the prior is right about: `within` is its share of the variance."""
    middle = log(PRIOR[0]) + chance.gauss(0, SPREAD * (1 - within) ** 0.5)
    return [round(exp(middle + chance.gauss(0, SPREAD * within**0.5))) for _ in range(many)]


@pytest.mark.parametrize("within", [0.2, WITHIN, 0.5])
@pytest.mark.parametrize("seen", [0, 1, 3, 20])
def test_half_stay_under_the_median_and_nine_tenths_under_the_other(seen: int, within: float) -> None:
    chance, runs = random.Random(7), 4000
    below = [0, 0]
    for _ in range(runs):
        *earlier, last = answers(chance, seen + 1, within)
        for n, quantile in enumerate(from_history(PRIOR, Seen.of(earlier))):
            below[n] += last <= quantile
    assert below[0] / runs == pytest.approx(0.5, abs=0.05)
    assert below[1] / runs == pytest.approx(0.9, abs=0.05)


def test_nothing_seen_is_the_prior() -> None:
    assert from_history(PRIOR, Seen()) == PRIOR
    assert from_history((80.0, 80.0), Seen.of([])) == (80.0, 80.0)


def test_one_answer_moves_it_and_twenty_settle_it() -> None:
    medians = [from_history(PRIOR, Seen.of([9] * many))[0] for many in (0, 1, 3, 20)]
    assert medians == sorted(medians, reverse=True)
    assert medians[0] == 200
    assert 9 < medians[1] < 60
    assert medians[3] == pytest.approx(9, rel=0.1)
    assert from_history(PRIOR, Seen.of([9] * 20))[1] < 30
    assert from_history(PRIOR, Seen.of([9] * 3))[1] > 15


def test_a_prior_that_is_certain_listens_all_the_same() -> None:
    p50, p90 = from_history((5.0, 5.0), Seen.of([400] * 20))
    assert 330 < p50 < 420
    assert p50 < p90 < 2000


def test_twenty_earlier_answers_tell_short_templates_from_long_ones() -> None:
    chance = random.Random(3)
    told: list[tuple[float, bool]] = []
    for _ in range(400):
        middle = log(60) + chance.gauss(0, 1.2)
        *earlier, _ = tokens = [round(exp(middle + chance.gauss(0, 0.4))) for _ in range(21)]
        told.append((from_history(PRIOR, Seen.of(earlier))[0], sorted(tokens)[10] < 50))
    short, long = ([p50 for p50, is_short in told if is_short is kind] for kind in (True, False))
    assert sum(one < other for one in short for other in long) / (len(short) * len(long)) >= 0.95


@given(COUNTS, COUNTS)
def test_summaries_add_up(ones: list[int], others: list[int]) -> None:
    both, whole = Seen.of(ones) + Seen.of(others), Seen.of(ones + others)
    assert both.count == whole.count
    assert both.logs == pytest.approx(whole.logs)
    assert both.squares == pytest.approx(whole.squares)


@given(COUNTS, st.floats(0, 10**6), st.floats(1, 50))
def test_any_history_gives_ordered_lengths(seen: list[int], p50: float, ratio: float) -> None:
    low, high = from_history((p50, p50 * ratio), Seen.of(seen))
    assert low <= high
    assert not seen or 1 <= low <= high < 10**12
