"""Tokens, answer lengths and lane times before the call."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.states import Lane
from jobs.chat import Request, Usage
from router.estimate import Estimates, Priors, Size, Spread, estimate, measure
from router.tokens import text_tokens
from router.wording import schema_tokens

PRIORS = Priors(Spread(1, 5), Spread(1 / 50, 1 / 10), Spread(2400, 43_200), batch_lost=0.0)


def ask(prompt: Any, **more: Any) -> Request:
    return Request(model="gpt-6-luna", messages=[{"role": "user", "content": prompt}], **more)


# Texts of this test with their o200k token counts, counted once with rs-bpe.
COUNTED = [
    (
        "The night train left the station an hour late, and nobody on the platform seemed to "
        "mind. A boy counted the lamps along the track until he lost them in the fog.",
        35,
    ),
    (
        "Please read the attached contract and tell me which of the clauses about notice, payment "
        "and liability differ from our usual terms.",
        24,
    ),
    (
        "def pack(rows, limit):\n    batch = []\n    for row in rows:\n        if len(batch) == "
        "limit:\n            yield batch\n            batch = []\n        batch.append(row)\n    if "
        "batch:\n        yield batch\n",
        45,
    ),
    (
        '{"id": 48213, "name": "Ada Lovelace", "active": true, "tags": ["invoice", "priority"], '
        '"amount": 118.25, "city": "London"}',
        44,
    ),
    (
        '{"id":48213,"name":"Ada '
        'Lovelace","active":true,"tags":["invoice","priority"],"amount":118.25,"city":"London"}',
        34,
    ),
    (
        "4711 90210 1815 271828 314159 8080 443 65535 1024 4096",
        28,
    ),
    (
        "Der Nachtzug verließ den Bahnhof eine Stunde zu spät, und niemand auf dem Bahnsteig "
        "schien sich daran zu stören.",
        27,
    ),
    (
        "夜班火车晚了一个小时才离开车站，站台上似乎没有人介意。请用三句话总结下面的合同，并列出所有重要的日期和金额。",
        42,
    ),
    (
        "夜行列車は一時間遅れて駅を出発しましたが、ホームの誰も気にしていないようでした。次の文章を短く要約してください。",
        39,
    ),
    (
        "Ночной поезд отошёл от станции с опозданием на час, но никто на платформе, казалось, не был против.",
        30,
    ),
    (
        "야간 열차는 한 시간 늦게 역을 떠났지만 승강장에 있던 누구도 신경 쓰지 않는 것 같았습니다.",
        32,
    ),
    (
        "aGVsbG8gd29ybGQsIHRoaXMgaXMgYSB0ZXN0IG9mIGEgbG9uZyBlbmNvZGVkIHN0cmluZyB0aGF0IG5vYm9keSByZWFkcw==",
        64,
    ),
]


@pytest.mark.parametrize(("text", "tokens"), COUNTED)
def test_tokens_of_prose_code_json_and_other_scripts(text: str, tokens: int) -> None:
    assert text_tokens(text) == pytest.approx(tokens, rel=0.3)


def test_no_text_is_no_tokens() -> None:
    assert text_tokens("") == 0


@given(st.text())
def test_tokens_stay_within_bounds(text: str) -> None:
    assert 0 <= text_tokens(text) <= len(text.encode("utf-8", "replace")) + 1


def test_lone_surrogates_do_no_harm() -> None:
    assert measure(ask("broken \ud83d half")).input_tokens > 5


def test_tools_schemas_and_images_count() -> None:
    plain = measure(ask("What is this?")).input_tokens
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}
    assert measure(ask("What is this?", tools=[tool])).input_tokens > plain + 20
    assert measure(ask("What is this?", response_format=schema)).input_tokens > plain + 20
    words = {"type": "text", "text": "What is this?"}
    for detail, tokens in (("low", 85), ("auto", 765), ("high", 1105)):
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9999, "detail": detail}}
        assert measure(ask([words, image])).input_tokens == pytest.approx(
            plain + tokens, abs=10 + tokens * 0.1
        )  # a step


SHORT = [
    "Is 91 a prime number? Answer yes or no.",
    "Reply in one word: which sea lies between Greece and Turkey?",
    "What is the capital of Mongolia?",
    "Classify the sentiment of this review: The soup was cold.",
    "True or false: bats are blind.",
    "Translate to French: Where is the station?",
    "Describe the colour green in 20 words.",
    "Summarize the plot of Faust in one sentence.",
]
LONG = [
    "Write an essay about the history of the printing press.",
    "Explain how a heat pump works.",
    "Write a short story about a lighthouse keeper.",
    "Write a Python function that parses INI files, and explain it in detail.",
    "List 20 uses of a brick.",
    "Write a blog post about composting, in 5 paragraphs.",
    "What are the best ways to learn to swim as an adult?",
]


@pytest.mark.parametrize("prompt", SHORT)
def test_wording_tells_short_answers(prompt: str) -> None:
    assert measure(ask(prompt)).output_p50 < 50


@pytest.mark.parametrize("prompt", LONG)
def test_wording_tells_long_answers(prompt: str) -> None:
    assert measure(ask(prompt)).output_p50 > 150


def test_a_stated_length_is_taken_at_its_word() -> None:
    assert measure(ask("Write about rain in 300 words.")).output_p50 == pytest.approx(400, rel=0.05)
    assert measure(ask("Describe rain in three sentences.")).output_p50 == pytest.approx(84, rel=0.05)
    assert measure(ask("Give me 12 names for a cat.")).output_p50 == pytest.approx(340, rel=0.05)


def test_the_system_prompt_counts_too() -> None:
    turns = [{"role": "system", "content": "Answer with yes or no."}, {"role": "user", "content": "Is the sky green?"}]
    assert measure(Request(model="m", messages=turns)).output_p50 < 10


def test_the_cap_binds_both_quantiles() -> None:
    capped = measure(ask("Write an essay about salt.", max_tokens=30))
    assert (capped.output_p50, capped.output_p90) == (30, 30)
    assert measure(ask("Write an essay about salt.", params={"max_completion_tokens": 30})).output_p90 == 30


def test_each_choice_is_paid() -> None:
    one, three = measure(ask("Explain salt.")), measure(ask("Explain salt.", params={"n": 3}))
    assert three.output_p50 == pytest.approx(3 * one.output_p50, rel=0.2)  # two roundings


def test_a_schema_says_how_much_is_written() -> None:
    field = {"type": "string"}
    small, large = ({"type": "object", "properties": {f"f{n}": field for n in range(many)}} for many in (2, 20))
    formats = [{"type": "json_schema", "json_schema": {"name": "a", "schema": schema}} for schema in (small, large)]
    few, many = (measure(ask("Write an essay.", response_format=form)).output_p50 for form in formats)
    assert 20 < few < 60 < 300 < many < 600


def test_a_deep_schema_ends() -> None:
    node: dict[str, Any] = {"$ref": "#/node"}
    for _ in range(2000):
        node = {"type": "object", "properties": {"next": node}}
    assert schema_tokens(node) < 200
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": node}}
    assert measure(ask("Go.", response_format=form)).output_p50 < 200


@pytest.mark.parametrize("wrong", ["x", 7, ["x"], None, {"properties": ["a"]}, {"properties": {"a": 1}}])
def test_a_wrong_tool_or_schema_is_measured_all_the_same(wrong: Any) -> None:
    tools = [{"type": "function", "function": wrong}, {"function": {"parameters": wrong}}, {}]
    assert measure(ask("Go.", tools=tools, tool_choice={"function": wrong})).output_p50 >= 1
    assert schema_tokens({"type": "object", "properties": {"a": wrong, "b": {"type": "array", "items": wrong}}}) > 0


def test_a_forced_tool_writes_its_arguments() -> None:
    def tool(name: str, fields: int) -> dict[str, Any]:
        properties = {f"field_{n}": {"type": "string"} for n in range(fields)}
        return {
            "type": "function",
            "function": {"name": name, "parameters": {"type": "object", "properties": properties}},
        }

    choice = {"type": "function", "function": {"name": "large"}}
    size = measure(ask("Write an essay.", tools=[tool("small", 1), tool("large", 30)], tool_choice=choice))
    assert 400 < size.output_p50 < 800
    small = measure(ask("Write an essay.", tools=[tool("small", 1), tool("large", 30)], tool_choice="required"))
    assert small.output_p50 < 50


@given(st.text(min_size=1, max_size=2000), st.none() | st.integers(1, 10**6))
def test_sizes_are_ordered_steps_within_the_cap(prompt: str, cap: int | None) -> None:
    size = measure(ask(prompt, max_tokens=cap))
    assert 1 <= size.output_p50 <= size.output_p90 <= (cap or size.output_p90)
    for number in (size.input_tokens, size.output_p50, size.output_p90):
        assert number == cap or len(str(number).rstrip("0")) <= 2


def weigh(has_batch: bool | None) -> Estimates:
    def cost(usage: Usage, lane: Lane, window: str | None) -> int:
        return (usage.input + 10 * usage.output) // (2 if lane is Lane.BATCH else 1)

    size = Size(1000, 100, 200)
    return estimate(size, cost=cost, has_batch=has_batch, times=PRIORS.times(size))


def test_each_lane_has_its_cost_and_its_finish() -> None:
    stream, sync, batch = weigh(None).lanes
    assert (stream.lane, sync.lane, batch.lane) == (Lane.STREAM, Lane.SYNC, Lane.BATCH)
    assert (sync.cost_nano, sync.cost_p90_nano) == (2000, 3000)
    assert (batch.cost_nano, batch.cost_p90_nano) == (1000, 1500)
    assert (sync.finish_p50_s, sync.finish_p95_s) == (1 + 100 / 50, 5 + 200 / 10)
    assert (batch.finish_p50_s, batch.finish_p95_s) == (2400, 43_200)


def test_each_window_of_the_background_lane_is_an_estimate_of_its_own() -> None:
    def cost(usage: Usage, lane: Lane, window: str | None) -> int:
        return usage.output * {"2h": 7, "8h": 6}.get(window or "", 10)

    priors = replace(PRIORS, windows_s={"2h": Spread(60, 120), "8h": Spread(200, 480)})
    size = Size(1000, 100, 200)
    there = {"cost": cost, "has_batch": True, "times": priors.times(size)}
    *_, two, eight = estimate(size, **there, has_background=True, batch_wait_s=50.0).lanes
    assert (two.lane, two.window, two.cost_nano, two.finish_p95_s) == (Lane.BACKGROUND, "2h", 700, 120)
    assert (eight.lane, eight.window, eight.cost_p90_nano, eight.finish_p50_s) == (Lane.BACKGROUND, "8h", 1200, 200)
    assert [lane.window for lane in estimate(size, **there).lanes] == [None, None, None]


def test_the_wait_before_a_batch_is_part_of_its_finish() -> None:
    size = Size(1, 1, 1)
    times = PRIORS.times(size)
    batch = estimate(size, cost=lambda *_: 1, has_batch=True, times=times, batch_wait_s=1000.0).lanes[-1]
    assert (batch.finish_p50_s, batch.finish_p95_s) == (3400, 44_200)
    assert batch.chance(1000.0) == 0.0
    assert batch.chance(3400.0) == pytest.approx(0.5)
    assert batch.quantile(0) == 3400


@pytest.mark.parametrize("has_batch", [None, True, False])
def test_only_a_known_absence_rules_the_batch_out(has_batch: bool | None) -> None:
    batch = weigh(has_batch).lanes[-1]
    assert batch.available is (has_batch is not False)
    assert (batch.why_not is None) is batch.available


def test_a_spread_goes_through_its_two_points() -> None:
    spread = Spread(2400, 43_200)
    assert spread.chance(2400) == pytest.approx(0.5)
    assert spread.chance(43_200) == pytest.approx(0.95)
    assert spread.chance(0) == spread.chance(-5) == 0
    assert spread.quantile(0) == 2400
    assert spread.chance(spread.quantile(1.2816)) == pytest.approx(0.9, abs=1e-4)
    assert [Spread(5, 5).chance(at) for at in (4.9, 5.0)] == [0.0, 1.0]
