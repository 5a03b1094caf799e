"""The sandbox's bill: exact prices, one row for each paid thing, equal to what was reported."""

import json
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.sandbox.bill import Usage, cost_nano_usd, price_table
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings

HELLO: Any = [{"role": "user", "content": "Tell me about timetables."}]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running() as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("model", "tier", "usage", "nano"),
    [
        ("gpt-6-luna", "default", Usage(1000, 100), 150_000),
        ("gpt-6-luna", "batch", Usage(1000, 100), 75_000),
        ("gpt-6-luna", "flex", Usage(1000, 100, cached=400), 57_000),
        ("gpt-6-luna", "priority", Usage(1000, 100), 300_000),
        ("gpt-5.4-mini", "batch", Usage(1, 0), 375),
        ("gpt-5.4-mini", "batch", Usage(1, 0, cached=1), 38),
        ("gpt-5.4-mini", "batch", Usage(3, 0, cached=3), 112),
        ("gpt-4o", "batch", Usage(1000, 0, cached=1000), 1_250_000),
        ("gpt-4o-mini", "priority", Usage(1000, 1000), 1_250_000),
        ("gpt-6-sol", "default", Usage(272_000, 1000), 554_000_000),
        ("gpt-6-sol", "default", Usage(272_001, 1000), 1_103_004_000),
        ("gpt-4.1", "default", Usage(300_000, 0), 600_000_000),
        ("claude-opus-5-5", "batch", Usage(1000, 1000), 12_000_000),
        ("claude-haiku-5-5", "default", Usage(100, 10, cached=100), 6_000),
        ("sandbox-1", "default", Usage(1000, 100), None),
        ("gpt-4o", "default", Usage(0, 0), 0),
    ],
)
def test_prices(model: str, tier: str, usage: Usage, nano: int | None) -> None:
    assert cost_nano_usd(usage, model, tier) == nano


@given(
    st.sampled_from(sorted(price_table()["models"])),
    st.sampled_from(["default", "batch", "flex"]),
    st.integers(0, 272_000),
    st.integers(0, 100_000),
)
def test_costs_are_exact_and_rounded_once(model: str, tier: str, given_tokens: int, output: int) -> None:
    own = price_table()["models"][model]
    factor = Decimal(1) if tier == "default" else Decimal("0.5")
    exact = (own["input"] * given_tokens + own["output"] * output) * 1000 * factor
    assert cost_nano_usd(Usage(given_tokens, output), model, tier) == int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))


def test_the_bill_is_what_was_reported(client: Any, sandbox: Sandbox) -> None:
    plain = client.chat.completions.create(model="gpt-4o", messages=HELLO, n=2)
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    answer = client.responses.create(model="gpt-6-luna", input="hello", service_tier="flex")
    with anthropic.Anthropic(base_url=sandbox.url, api_key="sk-x", max_retries=0) as claude:
        message = claude.messages.create(model="claude-haiku-5-5", max_tokens=50, messages=HELLO)
    rows = sandbox.bill()["rows"]
    assert [(row["api"], row["kind"]) for row in rows] == [
        ("chat", "plain"),
        ("chat", "stream"),
        ("responses", "plain"),
        ("messages", "plain"),
    ]
    assert plain.usage
    assert chunks[-1].usage
    assert answer.usage
    assert [(row["usage"]["input"], row["usage"]["output"]) for row in rows] == [
        (plain.usage.prompt_tokens, plain.usage.completion_tokens),
        (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens),
        (answer.usage.input_tokens, answer.usage.output_tokens),
        (message.usage.input_tokens, message.usage.output_tokens),
    ]
    assert [row["request_id"] for row in rows][::2] == [plain._request_id, answer._request_id]
    assert [row["tier"] for row in rows] == ["default", "default", "flex", "default"]
    assert not any(row["disconnected"] for row in rows)
    assert sandbox.bill(api="chat")["totals"]["rows"] == 2
    assert sandbox.bill(kind="stream")["totals"]["rows"] == 1
    assert sandbox.bill()["totals"]["cost_nano_usd"] == sum(row["cost_nano_usd"] for row in rows)


def test_refusals_are_not_billed(client: Any, sandbox: Sandbox) -> None:
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="nope", messages=HELLO)
    assert sandbox.bill()["totals"] == dict.fromkeys(sandbox.bill()["totals"], 0)


@pytest.mark.parametrize("repeat", range(3))
def test_a_stream_read_to_its_end_is_never_disconnected(client: Any, sandbox: Sandbox, repeat: int) -> None:
    for words in range(25, 37):
        with client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": f"Write {words} words, {repeat}"}], stream=True
        ) as stream:
            list(stream)
    totals = sandbox.billed(12)["totals"]
    assert totals["disconnected"] == 0
    assert totals["output"] == sum(range(25, 37))


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_who_leaves_early_pays_for_what_was_said(api: str) -> None:
    settings = SandboxSettings(tokens_per_second=100, answer_tokens=2000)
    with running(settings) as sandbox:
        with openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x", max_retries=0) as client:
            stream: Any
            if api == "chat":
                stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            elif api == "responses":
                stream = client.responses.create(model="gpt-4o", input="x", stream=True)
            else:
                with anthropic.Anthropic(base_url=sandbox.url, api_key="sk-x", max_retries=0) as claude:
                    stream = claude.messages.create(
                        model="claude-haiku-5-5", max_tokens=3000, messages=HELLO, stream=True
                    )
                    [next(iter(stream)) for _ in range(8)]
                    stream.close()
            if api != "messages":
                [next(stream) for _ in range(8)]
                stream.close()
        (row,) = sandbox.billed(1)["rows"]
    assert row["disconnected"]
    assert row["usage"]["input"] > 0
    assert 3 <= row["usage"]["output"] < 100
    assert row["cost_nano_usd"] == cost_nano_usd(
        Usage(row["usage"]["input"], row["usage"]["output"]), row["model"], "default"
    )


def test_cached_prefixes() -> None:
    with (
        running(SandboxSettings(cached_prefix=True)) as sandbox,
        openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        long = "The same long beginning of every prompt. " * 200
        counts = []
        for end in ("one", "two"):
            got = client.chat.completions.create(model="gpt-6-luna", messages=[{"role": "user", "content": long + end}])
            assert got.usage
            assert got.usage.prompt_tokens_details
            counts.append(got.usage.prompt_tokens_details.cached_tokens)
        assert counts == [0, 2048]
        rows = sandbox.bill()["rows"]
        assert rows[1]["usage"]["cached"] == 2048
        assert rows[0]["cost_nano_usd"] - rows[1]["cost_nano_usd"] > 2048 * 80


def test_batch_rows_are_each_on_the_bill(client: Any, sandbox: Sandbox) -> None:
    body = '{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
    one = '{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":' + body + "}"
    file = client.files.create(file=("a.jsonl", "\n".join(one % n for n in range(300)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    sandbox.advance(1)
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert done.usage
    assert done.output_file_id
    found = [json.loads(line) for line in client.files.content(done.output_file_id).content.splitlines()]
    bill = sandbox.bill(batch_id=batch.id)
    assert [row["custom_id"] for row in bill["rows"]] == [line["custom_id"] for line in found]
    assert [row["usage"]["output"] for row in bill["rows"]] == [
        line["response"]["body"]["usage"]["completion_tokens"] for line in found
    ]
    assert (bill["totals"]["input"], bill["totals"]["output"]) == (done.usage.input_tokens, done.usage.output_tokens)
