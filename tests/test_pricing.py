"""Prices worked out by hand from api_facts 6.3, and everything against genai-prices' own Decimal result."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal
from random import Random

import pytest

from db.states import CostSource, Lane
from jobs.chat import Usage
from jobs.pricing import Price, Tariff, price

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SEPTEMBER = datetime(2026, 9, 15, tzinfo=UTC)
COMPUTED, ASSUMED = CostSource.COMPUTED, CostSource.ASSUMED


def cost(
    model: str,
    usage: Usage,
    lane: Lane = Lane.SYNC,
    tier: str | None = None,
    at: datetime = NOW,
    own: bool = True,
    provider: str = "",
) -> Price:
    seller = provider or ("anthropic" if model.startswith("claude") else "openai")
    return price(usage, model=model, provider=seller, own=own, lane=lane, tier=tier, at=at)


# Nano-dollars a token are thousandths of a dollar a million tokens: $0.10 / 1 M = 100.
BY_HAND = [
    ("gpt-6-luna", Usage(1000, 500), Lane.SYNC, None, 1000 * 100 + 500 * 500),
    ("gpt-6-luna", Usage(1000, 500), Lane.STREAM, "default", 350_000),
    ("gpt-6-luna", Usage(1000, 500), Lane.BATCH, None, 175_000),
    ("gpt-6-luna", Usage(1000, 500, cached=800), Lane.SYNC, None, 200 * 100 + 800 * 10 + 500 * 500),
    ("gpt-6-luna", Usage(2000, 100, cache_write=1000), Lane.SYNC, None, 1000 * 100 + 1000 * 125 + 100 * 500),
    ("gpt-6-luna", Usage(1000, 500, reasoning=400), Lane.SYNC, None, 350_000),  # reasoning is inside output
    ("gpt-6-luna", Usage(1000, 100), Lane.SYNC, "priority", 1000 * 200 + 100 * 1000),
    ("gpt-6-luna", Usage(1000, 100), Lane.SYNC, "fast", 300_000),
    ("gpt-6-luna", Usage(0, 0), Lane.SYNC, None, 0),
    ("gpt-4o-mini", Usage(1000, 100, cached=400), Lane.SYNC, None, 600 * 150 + 400 * 75 + 100 * 600),
    ("gpt-4o-mini", Usage(1000, 100, cached=400), Lane.BATCH, None, 600 * 75 + 400 * 75 + 100 * 300),
    ("gpt-5", Usage(1000, 100, cached=400), Lane.SYNC, "flex", 600 * 625 + 25_000 + 100 * 5000),
    ("gpt-6-sol", Usage(272_000, 1000), Lane.SYNC, None, 272_000 * 2000 + 1000 * 10_000),
    ("gpt-6-sol", Usage(272_001, 1000), Lane.SYNC, None, 272_001 * 4000 + 1000 * 15_000),
    ("gpt-6-sol", Usage(272_001, 1000), Lane.BATCH, None, (272_001 * 4000 + 1000 * 15_000) // 2),
    ("gpt-6-luna", Usage(1000, 500), Lane.BACKGROUND, "2h", 245_000),
    ("gpt-6-luna", Usage(1000, 500), Lane.BACKGROUND, "8h", 210_000),
    ("gpt-6-luna", Usage(1000, 500), Lane.BACKGROUND, None, 350_000),
    ("gpt-6-luna", Usage(1000, 500), Lane.BACKGROUND, "default", 350_000),
    ("gpt-6-luna", Usage(1000, 500, cached=800), Lane.BACKGROUND, "2h", (200 * 100 + 800 * 10 + 500 * 500) * 7 // 10),
    ("gpt-6-sol", Usage(272_001, 1000), Lane.BACKGROUND, "8h", (272_001 * 4000 + 1000 * 15_000) * 6 // 10),
    ("claude-haiku-5-5", Usage(1000, 100, 500, 300), Lane.SYNC, None, 200 * 100 + 500 * 10 + 300 * 125 + 100 * 500),
    ("claude-haiku-5-5", Usage(1000, 100, 500, 300), Lane.BATCH, "batch", 56_250),
    ("claude-opus-5", Usage(1000, 100), Lane.SYNC, "standard", 1000 * 5000 + 100 * 25_000),
    ("claude-opus-5", Usage(1000, 100), Lane.SYNC, "fast", 1000 * 10_000 + 100 * 50_000),
]


@pytest.mark.parametrize(("model", "usage", "lane", "tier", "nano"), BY_HAND)
def test_by_hand(model: str, usage: Usage, lane: Lane, tier: str | None, nano: int) -> None:
    found = cost(model, usage, lane, tier)
    assert (found.nano, found.source) == (nano, COMPUTED)
    assert found.name.startswith("genai-prices ")
    assert model in found.name


def test_rounds_half_to_even_once() -> None:
    assert cost("gpt-5", Usage(1, 0, cached=1), tier="flex").nano == 62  # 62.5
    assert cost("gpt-5", Usage(3, 0, cached=3), tier="flex").nano == 188  # 187.5
    assert cost("gpt-6-luna", Usage(75, 0, cached=75), Lane.BACKGROUND, "2h").nano == 525
    assert cost("gpt-5.4", Usage(1, 0, cached=1), Lane.BACKGROUND, "2h").nano == 175


def test_a_window_is_a_published_share_of_a_published_price() -> None:
    found = cost("gpt-6-luna", Usage(7, 3), Lane.BACKGROUND, "2h")
    assert (found.nano, found.source) == (1540, COMPUTED)
    assert found.name.endswith("gpt-6-luna standard × 0.7, window 2h")
    assert cost("gpt-6-luna", Usage(7, 3), Lane.BACKGROUND, "8h", own=False).source is ASSUMED
    assert cost("gpt-4.1", Usage(7, 3), Lane.BACKGROUND, "8h").name.endswith("gpt-4.1 standard × 0.6, window 8h")


def test_ten_requests_are_not_one_large_one() -> None:
    ten = 10 * (cost("gpt-6-sol", Usage(50_000, 500)).nano or 0)
    assert ten == 1_050_000_000
    assert cost("gpt-6-sol", Usage(500_000, 5000)).nano == 2_075_000_000


def test_a_batch_before_its_price_was_listed_costs_what_was_listed_then() -> None:
    found = cost("gpt-4o-mini", Usage(1000, 100, cached=400), Lane.BATCH, at=SEPTEMBER)
    assert (found.nano, found.source) == (600 * 75 + 400 * 75 + 100 * 300, ASSUMED)
    assert found.name.endswith("batch as listed from 2026-10-14")
    assert cost("gpt-5", Usage(1000, 100), tier="flex", at=SEPTEMBER)[:2] == (1_125_000, ASSUMED)
    assert cost("gpt-5", Usage(1000, 100), tier="priority", at=SEPTEMBER)[:2] == (4_500_000, ASSUMED)


def test_a_batch_that_is_never_listed_or_only_after_a_new_price_is_half_and_assumed() -> None:
    july = datetime(2026, 7, 29, tzinfo=UTC)  # at five times the price of the day when its batches were listed
    for tier, lane in ((None, Lane.BATCH), ("flex", Lane.SYNC)):
        found = cost("gpt-5.6-luna", Usage(1000, 100), lane, tier, at=july)
        assert (found.nano, found.source) == ((1000 * 1000 + 100 * 6000) // 2, ASSUMED)
        assert "× 0.5" in found.name
    found = cost("gpt-5.3-codex", Usage(1000, 100), Lane.BATCH)
    assert (found.nano, found.source) == ((1000 * 1750 + 100 * 14_000) // 2, ASSUMED)


def test_a_tier_without_a_price_is_standard_and_assumed() -> None:
    assert cost("gpt-4o", Usage(1000, 100), tier="flex").nano == 3_500_000
    assert cost("gpt-4o", Usage(1000, 100), tier="flex").source is ASSUMED
    assert cost("gpt-6-luna", Usage(1000, 500), tier="ultrafast").source is ASSUMED


def test_anthropics_priority_tier_is_not_its_fast_mode() -> None:
    found = cost("claude-opus-5", Usage(1000, 100), tier="priority")
    assert (found.nano, found.source) == (7_500_000, ASSUMED)


def test_the_price_of_the_day_counts() -> None:
    assert cost("o3", Usage(1000, 100), at=datetime(2025, 5, 1, tzinfo=UTC)).nano == 14_000_000
    assert cost("o3", Usage(1000, 100), at=datetime(2025, 7, 1, tzinfo=UTC)).nano == 2_800_000
    start = datetime(2026, 7, 30, tzinfo=UTC)
    assert cost("gpt-5.6-luna", Usage(1000, 0), at=start).nano == 200_000
    assert cost("gpt-5.6-luna", Usage(1000, 0), at=start - timedelta(seconds=1)).nano == 1_000_000
    tokyo = timezone(timedelta(hours=9))
    assert cost("gpt-5.6-luna", Usage(1000, 0), at=datetime(2026, 7, 30, 8, tzinfo=tokyo)).nano == 1_000_000


@pytest.mark.parametrize(
    "model", ["gpt-6.2-sol", "llama3.1:8b", "ft:gpt-4o-mini:me", "whisper-1", "text-embedding-3-small"]
)
def test_an_unknown_price_is_none_and_never_zero(model: str) -> None:
    assert cost(model, Usage(1000, 100)) == Price(None, CostSource.UNKNOWN, "unknown")


def test_a_name_that_only_begins_like_a_known_one_is_assumed_to_be_it() -> None:
    exact = cost("claude-opus-4-5-20251101", Usage(1000, 100))
    near = cost("claude-opus-4-5-foo", Usage(1000, 100))
    assert (exact.source, near.source, near.nano) == (COMPUTED, ASSUMED, exact.nano)
    assert near.name.endswith("taken for claude-opus-4-5-foo")
    newer = cost("gpt-4o-mini-2099-01-01", Usage(1000, 100))
    assert (newer.nano, newer.source) == (210_000, ASSUMED)
    assert cost("ft:gpt-4-0613:me", Usage(1000, 100)).source is ASSUMED
    assert cost("gpt-6-luna-2026-09-22", Usage(1000, 500)).source is COMPUTED


def test_audio_is_never_priced_as_text() -> None:
    assert cost("gpt-audio", Usage(350, 90, audio_input=250, audio_output=60)).nano == (
        100 * 2500 + 250 * 32_000 + 30 * 10_000 + 60 * 64_000
    )
    assert cost("gpt-4o-audio-preview", Usage(350, 90)).nano == 350 * 2500 + 90 * 10_000
    for spoken in (Usage(350, 90, audio_input=1), Usage(350, 90, audio_output=1)):
        assert cost("gpt-4o-audio-preview", spoken).nano is None  # the list has no price of its audio


def test_what_is_kept_for_an_hour_and_what_is_searched_costs_more() -> None:
    hour = cost("claude-opus-5", Usage(1000, 0, cache_write=700, cache_write_1h=300))
    assert hour.nano == 300 * 5000 + 400 * 6250 + 300 * 10_000
    batch = cost("claude-opus-5", Usage(1000, 0, cache_write=700, cache_write_1h=300), Lane.BATCH)
    assert batch.nano == (hour.nano or 0) // 2
    assert cost("claude-opus-5", Usage(10, 0, searches=3)).nano == 50_000 + 3 * 10_000_000  # $10 a thousand
    assert cost("claude-3-haiku-20240307", Usage(10, 0, searches=1)).nano is None


@pytest.mark.parametrize(
    "usage", [Usage(10, 1, audio_input=11), Usage(10, 1, 4, 4, audio_input=3), Usage(10, 1, cache_write_1h=1),
              Usage(10, 1, audio_output=2), Usage(10, 1, searches=-1), Usage(10, 1, audio_input=-1)]
)  # fmt: skip
def test_a_part_that_is_larger_than_the_whole_has_no_price(usage: Usage) -> None:
    assert cost("gpt-audio", usage).nano is None


@pytest.mark.parametrize(
    "usage", [Usage(10, 1, cached=11), Usage(10, 1, 6, 5), Usage(-1, 1), Usage(1, -1), Usage(9, 1, -1)]
)
def test_usage_that_contradicts_itself_has_no_price(usage: Usage) -> None:
    assert cost("gpt-6-luna", usage).nano is None


def test_another_server_is_assumed_to_ask_what_the_seller_asks() -> None:
    assert cost("gpt-6-luna", Usage(1000, 500), own=False).source is ASSUMED
    behind = cost("claude-haiku-5-5", Usage(1000, 100), Lane.BATCH, own=False, provider="openai")
    assert (behind.nano, behind.source) == (75_000, ASSUMED)
    assert cost("claude-haiku-5-5", Usage(1000, 100), own=True, provider="openai").nano is None


def test_a_tariff_says_what_a_call_costs_and_what_a_plain_one_would() -> None:
    prices, usage = Tariff("gpt-6-luna", provider="openai", own=True, lane=Lane.BATCH, at=NOW), Usage(1000, 500)
    plain = cost("gpt-6-luna", usage)
    for served in ("default", "batch", "default"):
        assert prices.price(usage, "gpt-6-luna", served) == (cost("gpt-6-luna", usage, Lane.BATCH), plain)
    assert prices.price(usage, "gpt-6-sol", "batch") == (cost("gpt-6-sol", usage, Lane.BATCH), plain)
    assert prices.price(usage, "deployment-7", "batch") == prices.price(usage, None, "batch")  # a name without a price
    assert prices.price(Usage(1, 5, cached=2), None, "batch")[0].nano is None


def test_a_price_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        cost("gpt-6-luna", Usage(1, 1), at=datetime(2026, 11, 22))  # noqa: DTZ001  that is the mistake


def test_an_off_peak_price_holds_for_its_hours_only() -> None:
    day = datetime(2025, 6, 1, tzinfo=UTC)
    seen = {cost("deepseek-chat", Usage(1000, 100), own=False, at=day + timedelta(hours=h)).nano for h in (12, 18, 12)}
    assert len(seen) == 2


def test_equal_to_genai_prices_on_every_model_and_variant() -> None:
    from genai_prices import Usage as Counts
    from genai_prices import calc_price
    from genai_prices.data_snapshot import get_snapshot

    dice, compared = Random(5), 0
    for seller in get_snapshot().providers:
        for info in seller.models if seller.id in ("openai", "anthropic") else ():
            for context in ({}, *(variant.when for variant in info.price_variants or ())):
                tokens = dice.choice((0, 1, 999, 100_000, 100_001, 272_000, 272_001))
                cached = dice.randint(0, tokens)
                written, output = dice.randint(0, tokens - cached), dice.randint(0, 99_999)
                counts = Counts(
                    input_tokens=tokens,
                    cache_read_tokens=cached,
                    cache_write_tokens=written,
                    output_tokens=output,
                )
                ours = cost(
                    info.id,
                    Usage(tokens, output, cached, written),
                    Lane.BATCH if "processing" in context else Lane.SYNC,
                    context.get("service_tier") or context.get("speed"),
                    provider=seller.id,
                )
                if ours.nano is None:
                    continue
                theirs = calc_price(
                    counts, info.id, provider_id=seller.id, genai_request_timestamp=NOW, price_context=context
                ).total_price
                assert ours.nano == (theirs * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN), (info.id, context)
                assert ours.source is COMPUTED
                compared += 1
    assert compared > 200


def test_the_price_list_is_not_loaded_before_it_is_needed() -> None:
    script = "import sys, jobs.pricing; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
