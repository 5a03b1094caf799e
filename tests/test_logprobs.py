"""How likely each token was: through the wire, the ledger and the gateway, for whoever asked for it."""

import math
from typing import Any

import openai
import orjson
import pytest

from db import lookup
from jobs.providers.logprobs import joined, probs_of
from router.dispatch import Router
from tests.gateways import Served, sandbox_of
from tests.lanes import CLAUDE, MODEL

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Write a long essay about rivers."}]}
WANTED: dict[str, Any] = {**ASK, "logprobs": True, "top_logprobs": 3}
sandbox = sandbox_of(answer_tokens=12)


def token(word: str) -> dict[str, Any]:
    return {"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": []}


# ---- parsing ----


@pytest.mark.parametrize("raw", [None, "x", {}, {"content": None}, {"content": [], "refusal": None}, {"content": "x"}])
def test_what_says_nothing_is_none(raw: Any) -> None:
    assert probs_of(raw) is None


def test_pieces_are_joined_and_hold_nothing_that_no_database_takes() -> None:
    first = probs_of({"content": [{**token("a"), "logprob": math.nan}], "more": 1})
    second = probs_of({"content": [token("b")], "refusal": [token("c")]})
    assert first
    assert second
    whole = joined([first, second])
    assert whole
    assert [one["token"] for one in whole["content"]] == ["a", "b"]
    assert whole["content"][0]["logprob"] is None
    assert whole["refusal"] == [token("c")]


# ---- through the gateway ----


def test_a_whole_answer_has_them(asked: openai.OpenAI) -> None:
    (choice,) = asked.chat.completions.create(**WANTED).choices
    assert choice.logprobs
    assert choice.logprobs.content
    assert "".join(one.token for one in choice.logprobs.content) == choice.message.content
    assert {len(one.top_logprobs) for one in choice.logprobs.content} == {3}
    assert all(one.logprob <= 0 for one in choice.logprobs.content)


def test_a_stream_has_those_of_each_piece(asked: openai.OpenAI) -> None:
    said, told = "", ""
    for chunk in asked.chat.completions.create(**WANTED, n=2, stream=True):
        for choice in chunk.choices:
            piece = "".join(one.token for one in (choice.logprobs and choice.logprobs.content) or ())
            assert piece == (choice.delta.content or "")
            if choice.index == 1:
                said, told = said + (choice.delta.content or ""), told + piece
    assert said == told != ""


def test_the_client_s_own_helper_puts_them_together(asked: openai.OpenAI) -> None:
    with asked.chat.completions.stream(**WANTED) as stream:
        (choice,) = stream.get_final_completion().choices
    assert choice.logprobs
    assert choice.logprobs.content
    assert "".join(one.token for one in choice.logprobs.content) == choice.message.content


def test_who_asks_for_none_gets_none(asked: openai.OpenAI) -> None:
    assert asked.chat.completions.create(**ASK).choices[0].logprobs is None
    assert all(choice.logprobs is None for chunk in asked.chat.completions.create(**ASK, stream=True)
               for choice in chunk.choices)  # fmt: skip


def test_the_kept_answer_has_them_too_and_a_stream_that_is_taken_up_again_has_none(asked: openai.OpenAI) -> None:
    body = {**WANTED, "extra_headers": {"X-Shunter-Key": "twice"}}
    first, again = (asked.chat.completions.create(**body) for _ in range(2))
    assert again.choices[0].logprobs == first.choices[0].logprobs is not None
    assert again.choices[0].message == first.choices[0].message
    replayed = [choice for chunk in asked.chat.completions.create(**body, stream=True) for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in replayed) == first.choices[0].message.content
    assert all(choice.logprobs is None for choice in replayed)


def test_a_structured_answer_that_is_held_back_comes_with_them(asked: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    said, told = "", ""
    for chunk in asked.chat.completions.create(**WANTED, response_format=wanted, stream=True):
        for choice in chunk.choices:
            said += choice.delta.content or ""
            told += "".join(one.token for one in (choice.logprobs and choice.logprobs.content) or ())
    assert told == said
    assert orjson.loads(said)


def test_a_job_keeps_them_beside_its_text(asked: openai.OpenAI, served: Served) -> None:
    raw = asked.chat.completions.with_raw_response.create(**WANTED)
    router: Router = served.router
    job = lookup.job(router.store, raw.headers["x-shunter-job"])
    assert job
    (choice,) = job["choices"]
    assert job["text"] == choice["text"] == "".join(one["token"] for one in choice["logprobs"]["content"])


def test_a_provider_that_has_none_says_so(asked: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        asked.chat.completions.create(**{**WANTED, "model": CLAUDE})


def test_top_logprobs_alone_are_refused_by_the_provider_s_own_words(asked: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="only allowed when 'logprobs' is enabled"):
        asked.chat.completions.create(**ASK, top_logprobs=2)
