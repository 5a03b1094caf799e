"""What providers tell of their limits, and the arithmetic of living within them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.buckets import SLOWEST, Bucket, Gauge
from db.claims import Claim
from db.ledger import Charge
from db.settle import Held
from db.states import AttemptState
from jobs.errors import Permanent, Transient
from jobs.limits import Lessons, gauges, seconds
from jobs.runner import Ended

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OPENAI = {
    "x-ratelimit-limit-requests": "600",
    "x-ratelimit-remaining-requests": "599",
    "x-ratelimit-reset-requests": "100ms",
    "x-ratelimit-limit-tokens": "90000",
    "x-ratelimit-remaining-tokens": "45000",
    "x-ratelimit-reset-tokens": "30s",
}
CLAUDE = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-22T12:00:02Z",
    "anthropic-ratelimit-input-tokens-limit": "50000",
    "anthropic-ratelimit-input-tokens-remaining": "49000",
    "anthropic-ratelimit-output-tokens-limit": "10000",
    "anthropic-ratelimit-output-tokens-remaining": "9000",
}


# ---- what is told ----


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("20ms", 0.02), ("1s", 1.0), ("6m0s", 360.0), ("1h2m3.5s", 3723.5), ("2d", 172800.0), ("120", 120.0), ("0s", 0.0),
     ("350µs", 350e-6), ("2026-11-22T12:01:00Z", 60.0), ("2026-11-22T11:00:00Z", 0.0), ("2026-11-22T12:00:05", 5.0),
     ("", None), (None, None), ("soon", None), ("5 minutes", None), ("-3", None), ("nan", None), ("1s!", None)],
)  # fmt: skip
def test_resets(text: str | None, wanted: float | None) -> None:
    assert seconds(text, NOW) == (None if wanted is None else pytest.approx(wanted))


def test_in_openais_words() -> None:
    requests, tokens = gauges(OPENAI, NOW)
    assert requests == Gauge(600, 599, 0.1)
    assert tokens == Gauge(90_000, 45_000, 30)


def test_in_anthropics_words_the_nearest_end_counts() -> None:
    requests, tokens = gauges(CLAUDE, NOW)
    assert requests == Gauge(50, 49, 2)
    assert tokens == Gauge(10_000, 9000, None)


def test_through_a_proxy_that_renames_them() -> None:
    assert gauges({f"llm_provider-{name}": value for name, value in OPENAI.items()}, NOW) == gauges(OPENAI, NOW)


@pytest.mark.parametrize("limit", ["", "0", "-1", "unlimited", "inf", "1,000"])
def test_what_is_no_limit(limit: str) -> None:
    assert gauges({"x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": "5"}, NOW) == (None, None)


def test_azure_tells_only_what_is_left() -> None:
    assert gauges({"x-ratelimit-remaining-requests": "5"}, NOW) == (None, None)


def test_a_days_limit_is_spread() -> None:
    assert Gauge(200, 199, 432).a_minute == 200  # one of 200 is missing: its time says too little
    assert Gauge(200, 50, 150 * 432).a_minute == pytest.approx(60 / 432)
    assert Gauge(600, 0, 60).a_minute == 600


# ---- buckets ----


def test_nothing_is_held_back_while_nothing_is_known() -> None:
    free = Bucket()
    assert free.wait_s(10**9) == 0
    assert free.spend(10**9) == free == free.after(60)


def test_a_full_bucket_is_a_minutes_worth_and_time_fills_it() -> None:
    bucket = Bucket().told(Gauge(60, 60), 0)
    for _ in range(60):
        assert bucket.wait_s(1) == 0
        bucket = bucket.spend(1)
    assert bucket.wait_s(1) == pytest.approx(1)
    assert bucket.after(1).wait_s(1) == 0
    assert bucket.after(3600).left == 60


def test_time_saves_up_no_more_than_it_should_and_an_answer_tells_of_more() -> None:
    careful = Bucket(limit=600, left=0, burst_s=1)
    assert careful.after(3600).left == 10
    assert careful.after(3600).told(Gauge(600, 599), 0).left == 599


def test_what_costs_more_than_all_of_it_goes_alone_and_is_paid_for() -> None:
    bucket = Bucket(limit=100, left=100)
    assert bucket.wait_s(250) == 0
    after = bucket.spend(250)
    assert after.wait_s(1) == pytest.approx(151 * 0.6)
    assert after.after(120).wait_s(250) > 0


def test_a_refusal_takes_a_share_and_a_second_one_soon_after_takes_half() -> None:
    once = Bucket(limit=600, left=600).cut(0, soon=False)
    assert (once.rate, once.peak, once.left) == (480, 600, 0)
    assert once.cut(0, soon=True).rate == 240
    assert Bucket().cut(300, soon=False).rate == 240  # of what got through


def test_it_comes_back_bit_by_bit_up_to_what_is_told() -> None:
    cut = Bucket(limit=600, left=0).cut(0, soon=False)
    assert cut.after(1).rate == pytest.approx(492)
    assert cut.after(2).rate == pytest.approx(504)
    assert cut.after(10) == Bucket(600, None, None, 10.0)  # a second's worth: no burst yet
    assert cut.after(11).left == cut.after(10).after(1).left == 20
    unbound = Bucket().cut(600, soon=False)
    assert unbound.after(60).rate == pytest.approx(480 + 12 * 60)  # nobody told where it ends


def test_others_use_it_too() -> None:
    bucket = Bucket(limit=600, left=500)
    assert bucket.told(Gauge(600, 100), 0).left == 100
    assert bucket.told(Gauge(600, 100), 2).left == 120  # an old word: some has come since
    assert bucket.told(Gauge(600, 490), 0).left == 500  # calls on their way
    assert Bucket(limit=600, left=0).told(Gauge(600, 590), 0).left == 590  # a bucket that it does not count as we do


def test_a_new_limit_holds_at_once() -> None:
    assert Bucket(limit=600, left=0).told(Gauge(1200, 0), 0).rate == 1200
    cut = Bucket(limit=600, left=0).cut(0, soon=False)
    assert cut.told(Gauge(300, 0), 0).rate == 300


@given(
    st.lists(st.tuples(st.sampled_from(["after", "spend", "told", "cut"]), st.floats(0, 1e5), st.floats(1, 1e5))),
    st.floats(0.1, 1e4),
)
def test_it_always_lets_something_through_in_the_end(moves: list[tuple[str, float, float]], cost: float) -> None:
    bucket = Bucket()
    for move, number, limit in moves:
        match move:
            case "after":
                bucket = bucket.after(number)
            case "spend":
                bucket = bucket.spend(number)
            case "told":
                bucket = bucket.told(Gauge(limit, min(number, limit)), number)
            case "cut":
                bucket = bucket.cut(limit, soon=number > 5)
        assert bucket.rate is None or bucket.rate >= SLOWEST
        assert bucket.left <= max(bucket.room, bucket.limit or 0.0)
    assert bucket.after(1e9).wait_s(cost) == 0


# ---- what a worker hears ----


def claim(tier: str = "default", model: str = "m") -> Claim:
    return Claim("j", 1, "sync", tier, "openai", model, False, "{}", None, None, 100, 50, "me")


def ended(error: Transient | None = None, headers: dict[str, str] | None = None, tokens: int | None = None) -> Ended:
    charge = Charge(AttemptState.OK, input_tokens=tokens, output_tokens=0 if tokens is not None else None)
    return Ended(1, charge, Held(), headers or {}, error)


def lessons() -> Lessons:
    return Lessons({"openai": "http://u"})


def test_a_word_a_second_is_enough() -> None:
    heard = lessons()
    heard.hear(claim(), NOW, ended(headers=OPENAI, tokens=130))
    heard.hear(claim(), NOW, ended(headers=OPENAI, tokens=100))
    (told,) = heard.due(NOW + timedelta(seconds=2))
    assert (told.provider, told.base_url, told.model) == ("openai", "http://u", "m")
    assert (told.requests, told.age_s, told.unspent) == (Gauge(600, 599, 0.1), 2, 20 + 50)
    heard.hear(claim(), NOW, ended(headers=OPENAI))
    assert heard.due(NOW + timedelta(seconds=2.5)) == []
    assert len(heard.due(NOW + timedelta(seconds=3.1))) == 1


def test_a_refusal_is_told_at_once() -> None:
    heard = lessons()
    heard.due(NOW)
    heard.hear(claim(), NOW, ended(Transient("on tokens per min (TPM)", status=429, retry_after=3, headers={})))
    heard.hear(claim(), NOW, ended(Transient("again", status=429, retry_after=2)))
    (told,) = heard.due(NOW)
    assert (told.refused, told.wait_s, told.sent_at) == ("requests", 3, NOW)
    assert heard.due(NOW) == []


@pytest.mark.parametrize(
    ("status", "code", "away"),
    [(429, "rate_limit_exceeded", True), (529, "overloaded_error", True), (503, "server_is_overloaded", True),
     (429, "slow_down", True), (503, "http_503", False), (500, "server_error", False), (None, "unreachable", False)],
)  # fmt: skip
def test_who_is_turned_away(status: int | None, code: str, away: bool) -> None:
    error = Transient("no", status=status, code=code)
    assert error.turned_away is away
    heard = lessons()
    heard.hear(claim(), NOW, ended(error))
    assert bool(heard.due(NOW)) is away


def test_what_may_have_run_was_not_turned_away() -> None:
    assert not Transient("no", status=429, maybe_billed=True).turned_away
    heard = lessons()
    heard.hear(claim(), NOW, Ended(1, Charge(AttemptState.FAILED), Held(), {}, Permanent("no", status=429)))
    assert heard.due(NOW) == []


def test_flex_without_room_says_nothing_of_a_limit() -> None:
    heard = lessons()
    heard.hear(claim("flex"), NOW, ended(Transient("Resource Unavailable", status=429)))
    assert heard.due(NOW) == []
