"""What an attempt can cost at most: above every bill for it, and with a cap on the answer that it rests on."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.reserving import Sending
from db.rooms import Most
from db.states import Lane
from jobs import pricing
from jobs.bounds import capped, input_most, weigher
from jobs.chat import Usage
from jobs.providers import Endpoint
from tests.lanes import CLAUDE, MODEL, NOW

OWN = {
    "openai": Endpoint("openai", "https://api.openai.com/v1", own=True, key_env="OPENAI_API_KEY"),
    "anthropic": Endpoint("anthropic", "https://api.anthropic.com", own=True, key_env="ANTHROPIC_API_KEY"),
}
PNG = "data:image/png;base64," + "iVBORw0KGgo" * 4000


def body(prompt: Any = "hi", model: str = MODEL, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


def most(asked: dict[str, Any], *, lane: str = "sync", tier: str = "default", p90: int = 50, left: int | None = None,
         usual: int = 4096) -> Most:  # fmt: skip
    provider = "anthropic" if asked["model"].startswith("claude") else "openai"
    text = orjson.dumps(asked).decode()
    sending = Sending(lane, tier, provider, asked["model"], text, 10, p90, left)
    return weigher(OWN, usual)(sending, NOW)


def nano(usage: Usage, model: str = MODEL, lane: Lane = Lane.SYNC, tier: str = "default") -> int:
    provider = "anthropic" if model.startswith("claude") else "openai"
    found = pricing.price(usage, model=model, provider=provider, own=True, lane=lane, tier=tier, at=NOW).nano
    assert found is not None
    return found


def image(url: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": url, **more}}]


# ---- the input ----


@given(st.text(max_size=300), st.lists(st.text(max_size=40), max_size=4))
def test_a_token_is_at_least_a_byte(prompt: str, more: list[str]) -> None:
    asked = body(prompt)
    asked["messages"] += [{"role": "assistant", "content": words} for words in more]
    words = "".join([prompt, *more]).encode("utf-8", "replace")
    found = input_most(asked, orjson.dumps(asked, default=str).decode())
    assert found is not None
    assert found >= len(words) + 8 * len(asked["messages"])


def test_a_picture_counts_as_one_and_not_by_its_bytes() -> None:
    def tokens(asked: dict[str, Any]) -> int:
        found = input_most(asked, orjson.dumps(asked).decode())
        assert found is not None
        return found

    plain, low, high = tokens(body("what is it")), tokens(body(image(PNG, detail="low"))), tokens(body(image(PNG)))
    assert plain < low < high < 6000 < len(PNG)
    assert tokens(body(image("https://x/y.png"))) > 4000
    assert tokens(body(image(PNG), model="gpt-4o-mini")) > 48_000
    claude = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]
    assert 5000 < tokens(body(claude, model=CLAUDE)) < 6000
    told = [{"type": "tool_result", "tool_use_id": "t", "content": claude}]
    assert tokens(body(told, model=CLAUDE)) > 5000


@pytest.mark.parametrize(
    "asked",
    [
        body([{"type": "file", "file": {"file_id": "file_1"}}]),
        body([{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]),
        body([{"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}], CLAUDE),
        body("hi", web_search_options={}),
        body("hi", CLAUDE, tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        body("hi", "nobodys-model-9"),
    ],
)
def test_what_nobody_can_bound_has_no_price(asked: dict[str, Any]) -> None:
    assert most(asked).nano is None


def test_tools_of_ones_own_are_words() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert most(body(tools=[tool])).nano is not None
    assert most(body(model=CLAUDE, tools=[{"type": "bash_20250124", "name": "bash"}])).nano is not None


# ---- the answer ----


def test_an_answer_without_a_cap_gets_one() -> None:
    assert most(body()).output_cap == 4096
    assert most(body(), p90=3000).output_cap == 12_000
    assert most(body(), usual=100, p90=10).output_cap == 100
    assert most(body(n=4), p90=4000).output_cap == 4096, "of each choice"
    assert most(body(model="gpt-4o"), p90=9000).output_cap == 16_384
    assert most(body(model=CLAUDE, thinking={"type": "enabled", "budget_tokens": 9000})).output_cap == 13_096


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_one_with_a_cap_keeps_it(name: str) -> None:
    found = most(body(**{name: 700}))
    assert found.output_cap is None
    assert found.nano is not None
    assert nano(Usage(0, 700)) < found.nano < nano(Usage(0, 700)) + nano(Usage(400, 0, cache_write=400))


def test_the_cap_is_what_is_sent() -> None:
    sent = orjson.loads(capped(orjson.dumps(body(max_completion_tokens=9000, n=2)).decode(), 700))
    assert sent == body(max_tokens=700, n=2)
    assert capped("{}", None) == "{}"


def test_a_cap_on_the_cost_shortens_the_answer_before_it_forbids_it() -> None:
    free = most(body())
    assert free.nano is not None
    assert free.output_cap is not None
    less = most(body(), left=free.nano // 2)
    assert less.nano is not None
    assert less.output_cap is not None
    assert 50 < less.output_cap < free.output_cap
    assert free.nano // 2 - 10_000 < less.nano <= free.nano // 2
    asked = most(body(max_tokens=4096), left=free.nano // 2)
    assert asked.output_cap is not None
    assert asked.output_cap == pytest.approx(less.output_cap, abs=9)
    none = most(body(), left=10)
    assert none.output_cap == 50, "what is expected must fit"
    assert none.nano is not None
    assert none.nano > 10


# ---- the price ----


@given(
    st.sampled_from([MODEL, CLAUDE, "gpt-4o-mini", "gpt-5.5"]),
    st.sampled_from([("sync", "default"), ("stream", "default"), ("sync", "flex"), ("batch", "default"),
                     ("background", "2h")]),
    st.integers(1, 4),
    st.integers(1, 5000),
    st.floats(0, 1),
    st.floats(0, 1),
)  # fmt: skip
def test_no_bill_is_higher(model: str, how: tuple[str, str], choices: int, cap: int, read: float, wrote: float) -> None:
    """Whatever part of the input was cached or written, however long the answers are, and whichever tier was served."""
    lane, tier = how
    asked = body("words " * 200, model, max_tokens=cap, **({} if model == CLAUDE else {"n": choices}))
    choices = asked.get("n", 1)
    found = most(asked, lane=lane, tier=tier).nano
    assert found is not None
    tokens = 1200
    usages = [Usage(tokens, int(cap * choices * wrote), cached=int(tokens * read)),
              Usage(tokens, cap * choices, cache_write=0 if model == CLAUDE else int(tokens * read))]  # fmt: skip
    for usage in usages:
        for served in {tier} if lane == "batch" else {tier, "default"}:
            assert nano(usage, model, Lane(lane), served) <= found


def test_a_batch_sets_half_aside() -> None:
    live, batch = most(body()).nano, most(body(), lane="batch").nano
    assert live is not None
    assert batch is not None
    assert batch * 2 == pytest.approx(live, abs=2)


def test_caching_that_is_asked_for_is_counted() -> None:
    cached = [{"type": "text", "text": "x" * 9000, "cache_control": {"type": "ephemeral"}}]
    plain = [{"type": "text", "text": "x" * 9000}]
    one, other = most(body(cached, CLAUDE)).nano, most(body(plain, CLAUDE)).nano
    assert one is not None
    assert other is not None
    assert one > other + nano(Usage(9000, 0, cache_write=9000), CLAUDE) - nano(Usage(9000, 0), CLAUDE) - 1


def test_what_is_kept_for_an_hour_is_counted_as_that() -> None:
    kept = [{"type": "text", "text": "x" * 9000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    cached = [{"type": "text", "text": "x" * 9000, "cache_control": {"type": "ephemeral"}}]
    hour, minutes = most(body(kept, CLAUDE)).nano, most(body(cached, CLAUDE)).nano
    assert hour is not None
    assert minutes is not None
    more = nano(Usage(9000, 0, cache_write=9000, cache_write_1h=9000), CLAUDE)
    assert hour > minutes + more - nano(Usage(9000, 0, cache_write=9000), CLAUDE) - 1
