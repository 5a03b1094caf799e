"""From how a call ended to what becomes of its job: every outcome, alone."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.claims import Claim
from db.ledger import Charge
from db.settle import Again, Cancelled, Failed, Held, Succeeded
from db.states import AttemptState, CostSource, Lane
from jobs import outcome
from jobs.chat import Answer, Choice, Outcome, Request, ToolCall, Usage
from jobs.errors import Permanent, Transient
from jobs.providers import Endpoint
from tests.lanes import MODEL, NOW

OWN = Endpoint("openai", "https://api.openai.com/v1", own=True, key_env="OPENAI_API_KEY")
PLAIN = Request(model=MODEL, messages=[{"role": "user", "content": "hi"}])  # type: ignore[list-item]
USAGE = Usage(input=1000, output=100)
CLAIM = Claim("j", 1, "sync", "default", "openai", MODEL, False, "{}", None, None, 1, 1, "me")


def answer(text: str = "yes", ended: Outcome = Outcome.COMPLETE, **more: Any) -> Answer:
    return Answer((Choice(text=text, finish_reason="stop"),), ended, **more)


def wanting(schema: Any, kind: str = "json_schema") -> Request:
    wanted = {"type": kind, "json_schema": {"name": "x", "schema": schema}}
    return PLAIN.model_copy(update={"response_format": wanted})


def test_usable_answers_succeed() -> None:
    for ended, truncated in ((Outcome.COMPLETE, False), (Outcome.TRUNCATED, True)):
        end = outcome.ending(answer(ended=ended), PLAIN, 1, NOW)
        assert isinstance(end, Succeeded)
        assert (end.result.text, end.result.truncated, end.result.partial) == ("yes", truncated, False)


@pytest.mark.parametrize("ended", [one for one in Outcome if one not in (Outcome.COMPLETE, Outcome.TRUNCATED)])
def test_every_other_outcome_has_an_end_and_keeps_its_text(ended: Outcome) -> None:
    end = outcome.ending(answer("half", ended), PLAIN, 1, NOW)
    assert isinstance(end, Cancelled if ended is Outcome.CANCELLED else Failed)
    assert end.result is not None
    assert (end.result.text, end.result.partial) == ("half", True)
    if isinstance(end, Failed):
        assert end.error == outcome.WHY[ended]


def test_the_providers_own_words_go_before_ours() -> None:
    end = outcome.ending(answer("", Outcome.PROVIDER_ERROR, error_code="overloaded", error="too busy"), PLAIN, 1, NOW)
    assert isinstance(end, Failed)
    assert (end.code, end.error) == ("overloaded", "too busy")


def test_what_is_charged() -> None:
    paid = outcome.charge(answer(usage=USAGE, model=MODEL), Lane.SYNC, "default", MODEL, OWN, NOW)
    half = outcome.charge(answer(usage=USAGE, model=MODEL), Lane.BATCH, "default", MODEL, OWN, NOW)
    assert (paid.state, paid.cost_source) == (AttemptState.OK, CostSource.COMPUTED)
    assert paid.cost_nano == paid.standard_nano == half.standard_nano == 150_000
    assert half.cost_nano == 75_000


def test_a_failed_answer_with_a_usage_is_charged_as_well() -> None:
    paid = outcome.charge(answer(ended=Outcome.FILTERED, usage=USAGE), Lane.SYNC, "default", MODEL, OWN, NOW)
    assert (paid.state, paid.cost_nano, paid.error_code) == (AttemptState.FAILED, 150_000, "filtered")


def test_no_usage_is_an_unknown_cost_and_never_zero() -> None:
    paid = outcome.charge(answer(), Lane.SYNC, "default", MODEL, OWN, NOW)
    assert (paid.state, paid.cost_nano, paid.cost_source) == (AttemptState.UNKNOWN, None, CostSource.UNKNOWN)


def test_an_unknown_model_has_an_unknown_cost_and_keeps_its_tokens() -> None:
    paid = outcome.charge(answer(usage=USAGE), Lane.SYNC, "default", "llama-of-mine", OWN, NOW)
    assert (paid.cost_nano, paid.cost_source, paid.input_tokens) == (None, CostSource.UNKNOWN, 1000)


def test_the_price_of_what_was_asked_where_the_server_has_a_name_of_its_own() -> None:
    paid = outcome.charge(answer(usage=USAGE, model="deployment-7"), Lane.SYNC, "default", MODEL, OWN, NOW)
    assert paid.cost_nano == 150_000


def test_the_tier_that_was_served_counts() -> None:
    paid = outcome.charge(answer(usage=USAGE, tier="priority"), Lane.SYNC, "default", MODEL, OWN, NOW)
    assert paid.tier == "priority"


def test_calls_without_an_answer() -> None:
    free = outcome.failed_charge(Transient("busy", code="429"))
    assert (free.state, free.cost_nano) == (AttemptState.FAILED, 0)
    lost = outcome.failed_charge(Transient("cut", code="cut", maybe_billed=True, request_id="r"))
    assert (lost.state, lost.cost_nano, lost.request_id) == (AttemptState.UNKNOWN, None, "r")
    assert isinstance(outcome.ending_of(Transient("busy"), 1, NOW), Again)
    assert isinstance(outcome.ending_of(Transient("busy"), 3, NOW), Failed)
    assert isinstance(outcome.ending_of(Permanent("no"), 1, NOW), Failed)


def test_to_be_turned_away_is_free_and_none_of_the_tries_of_bulk() -> None:
    busy = Transient("busy", status=429, code="rate_limit_exceeded")
    assert outcome.failed_charge(busy).outcome == "busy"
    assert isinstance(outcome.ending_of(busy, 3, NOW), Failed)  # somebody waits
    assert isinstance(outcome.ending_of(busy, 1, NOW, CLAIM), Again)
    often, late = replace(CLAIM, turned_away=63), replace(CLAIM, turned_away=2, deadline_at=NOW - timedelta(hours=1))
    for claim in (often, late):
        failed = outcome.ending_of(busy, 1, NOW, claim)
        assert isinstance(failed, Failed)
        assert f"(turned away {claim.turned_away + 1} times)" in failed.error
    assert isinstance(outcome.ending_of(Transient("cut", code="cut"), 3, NOW, CLAIM), Failed)


def test_what_may_have_been_billed_is_not_sent_again_by_itself() -> None:
    again, lost = Again(NOW, "cut", "the connection was cut"), Charge(AttemptState.UNKNOWN)
    held = outcome.unless_billed(again, lost)
    assert isinstance(held, Failed)
    assert (held.code, held.error[:22]) == ("held", "the connection was cut")
    free = Charge.free(AttemptState.FAILED)
    assert outcome.unless_billed(again, free) is again
    assert outcome.unless_billed(Failed("x", "why"), lost) == Failed("x", "why")


def test_a_stopped_worker_gives_the_job_back_while_it_has_tries() -> None:
    assert isinstance(outcome.stopped(None, 1, NOW), Again)
    assert isinstance(outcome.stopped(None, 3, NOW), Failed)


def test_only_another_try_is_held() -> None:
    again, failed = Again(NOW + timedelta(1), "x", "why"), Failed("x", "why")
    assert outcome.held(again) == Held(None)
    assert outcome.held(failed) is failed


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("text", "request_", "wrong"),
    [
        ('{"n": 1}', wanting(NUMBER), None),
        ('{"n": "1"}', wanting(NUMBER), "does not fit the schema at $.n"),
        ("{}", wanting(NUMBER), "does not fit the schema at $"),
        ('{"n": 1', wanting(NUMBER), "is not JSON"),
        ("", wanting(NUMBER), "is not JSON"),
        ("[1]", wanting(None, "json_object"), "not a JSON object"),
        ("{}", wanting(None, "json_object"), None),
        ("anything", PLAIN, None),
        ("{}", wanting({"type": "objekt"}), "schema cannot be used"),
        ('{"a": 1}', wanting({"properties": {"a": {"$ref": "#/nowhere"}}}), "schema cannot be used"),
        ('{"a": "x"}', wanting({"properties": {"a": {"pattern": "("}}}), "schema cannot be used"),
        ('{"a": 1}', wanting({"properties": {"a": {"$ref": "https://example.com/s"}}}), "schema cannot be used"),
    ],
)
def test_structured_answers(text: str, request_: Request, wrong: str | None) -> None:
    said = outcome.mismatch(Choice(text=text), request_)
    assert (said is None) if wrong is None else wrong in str(said)


def test_a_tool_call_in_place_of_a_structured_answer_is_no_mismatch() -> None:
    assert outcome.mismatch(Choice(tool_calls=(ToolCall("1", "f", "{}", {}),)), wanting(NUMBER)) is None


def test_a_mismatch_is_asked_once_more_and_no_more() -> None:
    bad = answer("{}")
    for n, answered, kind in ((1, 0, Again), (2, 0, Again), (2, 1, Failed), (3, 0, Failed)):
        assert isinstance(outcome.ending(bad, wanting(NUMBER), n, NOW, answered), kind)


@given(st.text(), st.sampled_from(list(Outcome)), st.integers(1, 4))
def test_there_is_always_an_end(text: str, ended: Outcome, n: int) -> None:
    end = outcome.ending(answer(text, ended), wanting(NUMBER), n, NOW)
    assert end.result is not None
    assert end.result.text == text
