"""How long lanes take, by what was seen of them: shares, what was left unanswered, and what is near in time."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.replay import Stay
from router.curves import NEAREST, Curve, History, Kind, curve
from tests.lanes import MODEL, NOW

KIND = Kind("openai", MODEL, "batch", "default", False)


def stay(seconds: float, hours: float = 0, *, answered: bool = True, **more: object) -> Stay:
    facts = {"provider": "openai", "model": MODEL, "lane": "batch", "tier": "default", "interactive": False}
    return Stay(**facts | more, began_at=NOW + timedelta(hours=hours), seconds=seconds, answered=answered)  # type: ignore[arg-type]


def test_the_shares_of_what_was_answered() -> None:
    seen = curve([(30.0, True), (10.0, True), (20.0, True), (20.0, True)])
    assert seen == Curve((10.0, 20.0, 30.0), (0.25, 0.75, 1.0))
    assert [seen.within(seconds) for seconds in (0, 9.9, 10, 20, 29, 30, 1e9)] == [0, 0, 0.25, 0.75, 0.75, 1, 1]
    assert list(seen.parts(20)) == [(10.0, 0.25), (20.0, 0.5)]


def test_what_was_left_counts_as_long_as_it_was_seen() -> None:
    """Of four, one is left after 15 s: the two after it speak for it, as the estimate of Kaplan and Meier has it."""
    seen = curve([(10.0, True), (15.0, False), (20.0, True), (30.0, True)])
    assert seen.seconds == (10.0, 20.0, 30.0)
    assert seen.shares == pytest.approx((1 / 4, 5 / 8, 1.0))
    assert curve([(10.0, True), (20.0, False)]) == Curve((10.0,), (0.5,))  # the rest was never seen to end
    assert curve([(5.0, True), (5.0, False)]).within(5) == 0.5  # an answer at the hour to leave is one


@given(st.lists(st.tuples(st.floats(0.001, 1e6), st.booleans()), max_size=60))
def test_shares_rise_and_are_at_most_all(took: list[tuple[float, bool]]) -> None:
    seen = curve(took)
    assert list(seen.seconds) == sorted(set(seen.seconds))
    assert list(seen.shares) == sorted(seen.shares)
    assert all(0 < share <= 1 for share in seen.shares)
    assert sum(share for _, share in seen.parts(float("inf"))) == pytest.approx(
        seen.shares[-1] if took and seen.shares else 0
    )
    if took and all(answered for _, answered in took):
        assert seen.shares[-1] == 1.0


def test_only_what_was_near_in_time_speaks() -> None:
    count = 3 * NEAREST
    history = History(stay(float(hour), hour) for hour in reversed(range(count)))
    for hour in (0, 50, 140, count - 1):
        near = history.near(KIND, NOW + timedelta(hours=hour))
        assert near is not None
        assert len(near.seconds) == NEAREST
        assert near.seconds[0] <= hour <= near.seconds[-1]
    assert history.near(KIND, NOW + timedelta(hours=140)) == history.near(KIND, NOW + timedelta(hours=140))


def test_a_lane_without_an_answer_has_no_history() -> None:
    history = History([stay(10, answered=False), stay(9, lane="sync", tier="flex")])
    assert history.near(KIND, NOW) is None
    assert history.near(KIND._replace(lane="sync"), NOW) is None
    assert history.near(KIND._replace(lane="sync", tier="flex"), NOW) == Curve((9.0,), (1.0,))
    assert history.near(KIND._replace(lane="sync", tier="flex", model="another"), NOW) is None


def test_those_that_a_person_waits_for_speak_for_themselves_where_there_are_any() -> None:
    live = KIND._replace(lane="sync")
    history = History([stay(60, lane="sync"), stay(2, lane="sync", interactive=True, model="m")])
    assert history.near(live._replace(interactive=True), NOW) == Curve((60.0,), (1.0,))
    assert history.near(live._replace(model="m", interactive=False), NOW) == Curve((2.0,), (1.0,))
    both = History([stay(60, lane="sync"), stay(2, lane="sync", interactive=True)])
    assert both.near(live._replace(interactive=True), NOW) == Curve((2.0,), (1.0,))


@pytest.mark.parametrize("tier", ["", "default", "standard", "auto"])
def test_every_word_for_the_usual_tier_is_one(tier: str) -> None:
    assert Kind.of("openai", MODEL, "sync", tier, True).tier == "default"
    assert Kind.of("openai", MODEL, "batch", "flex", True).tier == "default"
    assert Kind.of("openai", MODEL, "background", "2h", True).words == f"background 2h for {MODEL}"
