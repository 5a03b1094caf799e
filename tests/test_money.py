"""Money for people and programs."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.money import usd


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0"), (1, "0.000000001"), (350_000, "0.00035"), (10**9, "1"), (12_500_000_000, "12.5"), (-5 * 10**8, "-0.5")],
)
def test_plain_decimals(nano: int, text: str) -> None:
    assert usd(nano) == text


def test_unknown_stays_unknown() -> None:
    assert usd(None) is None


@given(st.integers(-(10**18), 10**18))
def test_exact_and_without_exponent(nano: int) -> None:
    text = usd(nano)
    assert text is not None
    assert Decimal(text) * 10**9 == nano
    assert "e" not in text.lower()
