"""The most that an attempt of unknown cost can have cost: above any bill for what was heard, and not absurd."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.queue import Claim
from db.states import Lane
from jobs import pricing, risk
from jobs.chat import Answer, Choice, Message, Outcome, Request, ToolCall, Usage
from jobs.clock import Timing
from jobs.providers import Endpoint
from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxSettings
from router import estimate
from router.intake import canonical
from tests.lanes import NOW, World
from tests.stream_wire import run
from tests.streams import all_of, claim, process, until

OWN = Endpoint("openai", "https://api.openai.com/v1", own=True, key_env="OPENAI_API_KEY")
PLAIN, THINKER = "gpt-4o-mini", "gpt-6-luna"
P90 = 500
SLOWLY = Timing(total_ms=10_000.0)
BROKEN = [Outcome.CUT, Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.MALFORMED, Outcome.PROVIDER_ERROR]


def request(prompt: Any = "hi", model: str = PLAIN, **more: Any) -> Request:
    return Request(model=model, messages=[Message(role="user", content=prompt)], **more)


def claimed(asked: Request, *, input_tokens: int = 10**6, lane: str = "stream", model: str = "") -> Claim:
    body = canonical(asked.body())
    facts = {"provider": "openai", "interactive": True, "post_process": None, "handling": None, "lease_by": "me"}
    return Claim("j", 1, lane, "default", model=model or asked.model, body=body, input_tokens=input_tokens,
                 output_p90=P90, **facts)  # type: ignore[arg-type]  # fmt: skip


def at_risk(answer: Answer | None, asked: Request | None = None, timing: Timing = SLOWLY, **more: Any) -> int:
    asked = asked or request()
    found = risk.at_risk(claimed(asked, **more), asked, answer, timing, OWN, NOW)
    assert found is not None
    return found


def bill(output: int, input_: int = 0, model: str = PLAIN) -> int:
    """What so many tokens cost at most."""
    paid = pricing.price(Usage(input_, output), model=model, provider="openai", own=True, lane=Lane.STREAM,
                         tier="default", at=NOW)  # fmt: skip
    assert paid.nano is not None
    return paid.nano


def said(*choices: Choice, outcome: Outcome = Outcome.CUT) -> Answer:
    return Answer(choices or (Choice(),), outcome)


def weight(choice: Choice) -> int:
    """A token is at least one byte: no tokeniser can have made more of these words."""
    words = [choice.text, choice.refusal, choice.reasoning, *(call.name + call.raw for call in choice.tool_calls)]
    return len("".join(words).encode())


texts = st.text(max_size=60)
calls = st.builds(ToolCall, id=texts, name=texts, raw=texts)
choices = st.builds(Choice, texts, texts, texts, st.lists(calls, max_size=2).map(tuple), logprobs=st.none())
answers = st.builds(Answer, st.lists(choices, max_size=3).map(tuple), st.sampled_from(Outcome))
timings = st.builds(Timing, total_ms=st.floats(0, 1e6), chunks=st.integers(0, 500))


# ---- never too little ----


@given(answers, timings)
def test_never_below_any_bill_for_what_was_heard(answer: Answer, timing: Timing) -> None:
    heard = max(sum(map(weight, answer.choices)), timing.chunks)
    assert at_risk(answer, timing=timing) >= bill(heard)


@given(st.text(min_size=1, max_size=300), texts)
def test_never_below_any_bill_for_what_was_asked(prompt: str, system: str) -> None:
    asked = Request(model=PLAIN, messages=[Message(role="system", content=system),
                                           Message(role="user", content=f"?{prompt}")])  # fmt: skip
    assert at_risk(said(), asked) >= bill(0, len((prompt + system).encode()))


@settings(max_examples=30)
@given(choices, st.floats(1, 1e5))
@pytest.mark.parametrize("outcome", BROKEN)
def test_hearing_more_never_risks_less(outcome: Outcome, choice: Choice, ms: float) -> None:
    one, two = (choice._replace(text=choice.text + word) for word in ("x", "xx"))
    less, more = said(one, outcome=outcome), said(two, outcome=outcome)
    assert at_risk(less, timing=Timing(ms)) <= at_risk(more, timing=Timing(ms))


def test_tokens_that_show_nothing_count_as_chunks() -> None:
    assert at_risk(said(Choice("a")), timing=Timing(1000.0, chunks=90)) >= bill(90)


def test_a_stream_that_we_ended_may_have_been_written_on() -> None:
    words = Choice("word " * 100)
    fast, slow = Timing(500.0, chunks=100), Timing(50_000.0, chunks=100)
    cut, left = said(words), said(words, outcome=Outcome.CANCELLED)
    assert at_risk(left, timing=fast) > at_risk(left, timing=slow) > at_risk(cut, timing=slow)
    assert at_risk(cut, timing=fast) == at_risk(cut, timing=slow), "what the other side ended it wrote no more of"


def test_the_wait_for_the_first_token_says_nothing_of_the_speed() -> None:
    """Four seconds of silence, then sixty tokens in a fifth of one: it may have gone on at that speed."""
    left = said(Choice("x" * 60), outcome=Outcome.CANCELLED)
    assert at_risk(left, timing=Timing(total_ms=4200.0, first_token_ms=4000.0, chunks=60)) >= bill(60 + 300)


def test_a_call_without_any_answer_may_have_been_written_whole() -> None:
    assert at_risk(None) >= bill(P90)


@pytest.mark.parametrize(("reasoning", "unseen"), [("", P90), ("Let me see.", 0)])
def test_reasoning_that_is_not_shown_is_billed_too(reasoning: str, unseen: int) -> None:
    asked = request(model=THINKER)
    without = at_risk(said(Choice("no")), replace_model(asked, PLAIN), model=THINKER)
    assert at_risk(said(Choice("no", reasoning=reasoning)), asked) >= bill(2 + unseen, model=THINKER)
    assert without >= bill(2 + P90, model=THINKER), "by the model that was claimed"


def replace_model(asked: Request, model: str) -> Request:
    return asked.model_copy(update={"model": model})


# ---- and not absurd ----


@given(answers, timings, st.integers(1, 2000), st.sampled_from([None, 1, 2, 5]))
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_never_above_what_the_cap_allows(name: str, answer: Answer, timing: Timing, cap: int, n: int | None) -> None:
    params = ({"n": n} if n else {}) | ({name: cap} if name == "max_completion_tokens" else {})
    asked = request(params=params, max_tokens=cap if name == "max_tokens" else None)
    body = len(canonical(asked.body()).encode())
    assert at_risk(answer, asked, timing) <= bill(cap * (n or 1), body + risk.FRAMING)


def test_an_image_weighs_its_tokens_and_not_its_bytes() -> None:
    url = "data:image/png;base64," + "A" * 1_000_000
    asked = request([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}])
    tokens = estimate.measure(asked).input_tokens
    assert bill(0, 1105) <= at_risk(said(), asked, input_tokens=tokens) < bill(0, 10_000), "1105 is the most for one"


def test_a_model_without_a_price_has_no_number() -> None:
    asked = request(model="llama-of-my-own")
    own = Endpoint("openai", "http://localhost:8000/v1", own=False, key_env="OPENAI_API_KEY")
    assert risk.at_risk(claimed(asked), asked, said(Choice("a")), SLOWLY, own, NOW) is None


# ---- where nothing was heard ----


def test_nothing_heard_may_be_a_whole_answer() -> None:
    assert at_risk(said(outcome=Outcome.CANCELLED)) >= bill(P90)


def test_the_bill_of_a_plain_call_that_was_left_is_within_what_is_at_risk(world: World) -> None:
    async def test() -> None:
        async with process(world) as context:
            call = claim(world, context, "Explain it in 900 words.", lane="sync", model=PLAIN, output_p90=1200)
            reading = asyncio.create_task(all_of(context, call))
            await until(lambda: world.sandbox.requests()["count"])
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    with running(SandboxSettings(latency_s=0.3)) as server:
        world.sandbox = server
        run(test)
        server.billed(1)
        assert (world.states(), world.attempts()) == ({"cancelled": 1}, {"unknown": 1})
        world.at_risk()
