"""Responses: events and bodies in, with what servers leave out, repeat or name otherwise."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent

from jobs.chat import Delta, Outcome
from jobs.errors import Transient
from jobs.providers.failures import Told
from jobs.providers.responses_wire import Accumulator, answer_from
from tests.responses_wire import (
    COUNTED,
    USAGE,
    added,
    call,
    done,
    end,
    event,
    joined,
    message,
    refused,
    response,
    text,
)


def test_text_usage_model_and_tier() -> None:
    created = {"type": "response.created", "response": response("in_progress", service_tier="auto", model="m")}
    deltas, answer = joined(
        created,
        {**created, "type": "response.in_progress"},
        added(message()),
        event("content_part.added", content_index=0, part={"type": "output_text", "text": ""}),
        text("he"),
        text("llo"),
        event("output_text.done", content_index=0, text="hello"),
        event("content_part.done", content_index=0, part={"type": "output_text", "text": "hello"}),
        done(message("hello")),
        end("completed", message("hello"), usage=USAGE, service_tier="priority", model="m-2026"),
    )
    assert deltas == [Delta("he"), Delta("llo")]
    assert (answer.first.text, answer.outcome, answer.first.finish_reason) == ("hello", Outcome.COMPLETE, "stop")
    assert (answer.model, answer.tier, answer.usage) == ("m-2026", "priority", COUNTED)


def test_the_sdks_own_events_are_taken_too() -> None:
    facts = {"id": "r", "created_at": 1, "model": "m", "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    piece = ResponseTextDeltaEvent.model_validate({**text("hi"), "item_id": "i", "logprobs": [], "sequence_number": 1})
    whole = Response.model_construct(**facts, object="response", status="completed", output=[message("hi there")])
    last = ResponseCompletedEvent.model_construct(response=whole, type="response.completed", sequence_number=2)
    assert joined(piece, last)[1].first.text == "hi there"


ENDINGS: dict[str, tuple[dict[str, Any], Outcome, str | None]] = {
    "completed": (response("completed", message("x"), usage=USAGE), Outcome.COMPLETE, "stop"),
    "a call": (response("completed", call("f", "{}"), usage=USAGE), Outcome.COMPLETE, "tool_calls"),
    "refused": (response("completed", refused("no"), usage=USAGE), Outcome.REFUSED, "stop"),
    "text and a refusal": (response("completed", message("x"), refused("no"), usage=USAGE), Outcome.COMPLETE, "stop"),
    "too long": (
        response("incomplete", message("x"), usage=USAGE, incomplete_details={"reason": "max_output_tokens"}),
        Outcome.TRUNCATED,
        "length",
    ),
    "filtered": (
        response("incomplete", message("x"), usage=USAGE, incomplete_details={"reason": "content_filter"}),
        Outcome.FILTERED,
        "content_filter",
    ),
    "an unknown reason": (
        response("incomplete", message("x"), usage=USAGE, incomplete_details={"reason": "stop"}),
        Outcome.PROVIDER_ERROR,
        "incomplete",
    ),
    "no reason": (response("incomplete", message("x"), usage=USAGE), Outcome.PROVIDER_ERROR, "incomplete"),
    "failed": (
        response("failed", message("x"), usage=USAGE) | {"error": {"code": "server_error", "message": "why"}},
        Outcome.PROVIDER_ERROR,
        None,
    ),
    "cancelled": (response("cancelled", message("x"), usage=USAGE), Outcome.PROVIDER_ERROR, None),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_has_its_outcome_and_its_bill(ending: str) -> None:
    body, outcome, finish = ENDINGS[ending]
    plain = answer_from(json.dumps(body).encode())
    for streamed in (
        joined({"type": f"response.{body['status']}", "response": body})[1],
        joined(event("reasoning_text.delta", delta="hm"), {"type": f"response.{body['status']}", "response": body})[1],
    ):
        assert (streamed.outcome, streamed.usage, streamed.first.finish_reason) == (outcome, COUNTED, finish)
        assert (streamed.error_code, streamed.error) == (plain.error_code, plain.error)
    assert (plain.outcome, plain.usage, plain.first.finish_reason) == (outcome, COUNTED, finish)
    assert bool(plain.error) == (outcome is Outcome.PROVIDER_ERROR)


def test_a_failure_is_told_with_its_code_and_keeps_what_came() -> None:
    failed = end("failed", error={"code": "server_error", "message": "why"}, usage=USAGE, service_tier="flex")
    _, answer = joined(text("half"), failed)
    assert (answer.outcome, answer.error_code, answer.error) == (Outcome.PROVIDER_ERROR, "server_error", "why")
    assert (answer.first.text, answer.usage, answer.tier) == ("half", COUNTED, "flex")


@pytest.mark.parametrize(
    "error",
    [
        {"type": "error", "code": "server_is_overloaded", "message": "busy", "param": None},
        {"type": "error", "error": {"code": "server_is_overloaded", "message": "busy"}},
        end("failed", error={"code": "server_is_overloaded", "message": "busy"}),
    ],
)
@pytest.mark.parametrize("before", [[], [text("half")]])
def test_an_error_event_of_any_shape_is_raised(error: dict[str, Any], before: list[Any]) -> None:
    wire = Accumulator()
    for each in before:
        wire.feed(each)
    with pytest.raises(Told) as told:
        wire.feed(error)
    assert (told.value.code, told.value.text) == ("server_is_overloaded", "busy")
    assert (wire.begun, wire.whole, wire.over) == (bool(before), False, True)
    answer = wire.finish(Transient("it was busy", code="server_is_overloaded"))
    assert (answer.outcome, answer.error_code, answer.error, answer.first.text, answer.usage) == (
        Outcome.PROVIDER_ERROR,
        "server_is_overloaded",
        "it was busy",
        "half" if before else "",
        None,
    )


def test_a_code_that_is_one_of_our_words_is_still_the_providers() -> None:
    wire = Accumulator()
    with pytest.raises(Told):
        wire.feed({"type": "error", "code": "cut", "message": "x"})
    assert wire.finish(Transient("x", code="cut")).outcome is Outcome.PROVIDER_ERROR


def test_the_status_of_a_completed_event_is_believed() -> None:
    body = response("incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert joined(text("x"), {"type": "response.completed", "response": body})[1].outcome is Outcome.TRUNCATED
    sloppy = {"type": "response.completed", "response": response("in_progress")}
    assert joined(text("x"), sloppy)[1].outcome is Outcome.COMPLETE
    assert joined(text("x"), {"type": "response.completed"})[1].outcome is Outcome.COMPLETE


def test_without_a_terminal_event_it_is_cut() -> None:
    _, answer = joined(
        {"type": "response.created", "response": response("in_progress", model="m", usage=USAGE)}, text("x")
    )
    assert (answer.outcome, answer.first.text, answer.usage, answer.model) == (Outcome.CUT, "x", None, "m")


@pytest.mark.parametrize(
    "before", [[], [{"type": "response.created", "response": response("queued")}, added(message()), text("")]]
)
def test_nothing_has_begun_before_the_first_word(before: list[Any]) -> None:
    wire = Accumulator()
    for each in before:
        wire.feed(each)
    assert not wire.begun
    wire.feed(text("x"))
    assert wire.begun


def test_a_failure_after_the_end_changes_nothing() -> None:
    wire = Accumulator()
    wire.feed(end("completed", message("x"), usage=USAGE))
    answer = wire.finish(Transient("reset", code="cut"))
    assert (answer.outcome, answer.usage, wire.over) == (Outcome.COMPLETE, COUNTED, True)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [("cut", Outcome.CUT), ("malformed", Outcome.MALFORMED), ("server_is_overloaded", Outcome.PROVIDER_ERROR)],
)
def test_a_failure_keeps_all_that_came(code: str, outcome: Outcome) -> None:
    wire = Accumulator()
    wire.feed(text("half"))
    answer = wire.finish(Transient("why", code=code))
    assert (answer.outcome, answer.first.text, answer.usage) == (outcome, "half", None)
    assert (answer.error_code, answer.error) == (code, "why")


def test_parts_and_messages_join_in_their_order() -> None:
    deltas, answer = joined(text("d", 1, 0), text("b", 0, 1), text("a", 0, 0), text("e", 10, 0), text("c", 0, 1), end())
    assert "".join(delta.text for delta in deltas) == "dbaec"
    assert answer.first.text == "abcde"


def test_refusal_deltas() -> None:
    deltas, answer = joined(
        event("refusal.delta", content_index=0, delta="n"),
        event("refusal.delta", content_index=0, delta="o"),
        event("refusal.done", content_index=0, refusal="no"),
        end("completed", refused("no")),
    )
    assert deltas == [Delta(refusal="n"), Delta(refusal="o")]
    assert (answer.outcome, answer.first.refusal) == (Outcome.REFUSED, "no")


def test_reasoning() -> None:
    item = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm, so"}]}
    item["content"] = [{"type": "reasoning_text", "text": "deep"}]
    deltas, answer = joined(
        added({**item, "summary": [], "content": []}),
        event("reasoning_text.delta", content_index=0, delta="deep"),
        event("reasoning_summary_text.delta", summary_index=0, delta="hm, "),
        event("reasoning_summary_text.delta", summary_index=0, delta="so"),
        event("reasoning_summary_text.done", summary_index=0, text="hm, so"),
        event("reasoning_text.done", content_index=0, text="deep"),
        done(item),
        text("x", 1),
        end("completed", item, message("x")),
    )
    assert deltas == [Delta(reasoning="deep"), Delta(reasoning="hm, "), Delta(reasoning="so"), Delta("x")]
    assert (answer.first.reasoning, answer.first.text) == ("hm, sodeep", "x")


WHOLE = message("he", "llo")
MISSED: dict[str, list[dict[str, Any]]] = {
    "only the ends of its parts": [
        event("output_text.done", content_index=0, text="he"),
        event("output_text.done", content_index=1, text="llo"),
    ],
    "only the end of the item": [done(WHOLE)],
    "only the whole": [],
    "only the ends, the item's first": [done(WHOLE), event("output_text.done", content_index=0, text="he")],
    "the last piece": [text("he"), text("l", part=1)],
    "the first part": [text("llo", part=1)],
    "nothing": [text("he"), text("llo", part=1), done(WHOLE)],
    "nothing, without a content index": [event("output_text.delta", delta="he"), text("llo"), done(WHOLE)],
    "nothing, without an index": [added(WHOLE, None), text("hello", None, item_id="msg_0"), done(WHOLE, None)],
    "nothing, under other ids": [added(message(identity="x")), text("hello", item_id="y"), done(message("hello"))],
    "nothing, with words in the opening": [added(WHOLE), text("hello")],
}


@pytest.mark.parametrize("missed", MISSED)
@pytest.mark.parametrize(
    "output", [[WHOLE], [message("hello", identity="z")], [{"type": "reasoning", "id": "r", "summary": []}, WHOLE]]
)
def test_what_no_delta_brought_is_taken_once(missed: str, output: list[dict[str, Any]]) -> None:
    deltas, answer = joined(*MISSED[missed], end("completed", *output))
    assert answer.first.text == "hello"
    assert sum(len(delta.text) for delta in deltas) == 5


def test_words_that_were_mended_later_are_not_taken_twice() -> None:
    deltas, answer = joined(text(" hello "), done(message("hello")), end("completed", message("hello")))
    assert (deltas, answer.first.text) == ([Delta(" hello ")], " hello ")


def test_an_empty_whole_takes_nothing_away() -> None:
    assert joined(text("hello"), end("completed"))[1].first.text == "hello"


def test_unknown_events_and_items_are_nobodys() -> None:
    deltas, answer = joined(
        {"type": "response.new_thing.delta", "delta": "x"},
        {"type": "response.web_search_call.completed", "output_index": 0},
        {"type": "keepalive"},
        {},
        done({"type": "web_search_call", "id": "ws"}),
        end("completed", {"type": "web_search_call", "id": "ws"}, message("x")),
    )
    assert (deltas, answer.first.text, answer.first.finish_reason) == ([Delta("x")], "x", "stop")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"null", Outcome.MALFORMED),
        (b"", Outcome.MALFORMED),
        (b"<html>hello</html>", Outcome.MALFORMED),
        (b'{"output": [{"mess', Outcome.MALFORMED),
        (b"{}", Outcome.MALFORMED),
        (b"[]", Outcome.MALFORMED),
        (b'"text"', Outcome.MALFORMED),
        (b'{"status": "completed"}', Outcome.MALFORMED),
        (b'{"status": "completed", "output": null}', Outcome.MALFORMED),
        (b"\xff\xfe", Outcome.MALFORMED),
        (b"[" * 5000, Outcome.MALFORMED),
        (b'{"error": {"message": "busy", "code": "overloaded"}}', Outcome.PROVIDER_ERROR),
        (b'{"error": "busy"}', Outcome.PROVIDER_ERROR),
        (b'{"status": "failed", "output": null}', Outcome.PROVIDER_ERROR),
        (b'{"status": "in_progress", "output": []}', Outcome.CUT),
        (b'{"output": []}', Outcome.CUT),
    ],
)
def test_a_200_that_is_no_answer_is_no_success(body: bytes, outcome: Outcome) -> None:
    answer = answer_from(body)
    assert answer.outcome is outcome
    assert not answer.usable
    assert answer.usage is None
    assert answer.error


JUNK = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.none() | st.text(), max_size=2)
KINDS = ("message", "reasoning", "function_call", "custom_tool_call", "refusal", "output_text", "summary_text")
STATUSES = ("completed", "incomplete", "failed", "cancelled", "in_progress")
EVENTS = (
    *(f"response.{status}" for status in STATUSES),
    *(f"response.{name}.{step}" for name in ("output_item", "content_part") for step in ("added", "done")),
    *(f"response.{name}.{step}" for name in ("output_text", "refusal", "reasoning_text", "reasoning_summary_text",
      "function_call_arguments", "custom_tool_call_input") for step in ("delta", "done")),
    *("error", "response.created"),
)  # fmt: skip


def bodies(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with these fields or without, or something else altogether."""
    return JUNK | st.fixed_dictionaries({}, optional={name: JUNK | value for name, value in fields.items()})


PARTS = st.lists(bodies(type=st.sampled_from(KINDS), text=JUNK, refusal=JUNK), max_size=2)
ITEM = bodies(
    type=st.sampled_from(KINDS), id=JUNK, call_id=JUNK, name=JUNK, arguments=bodies(x=JUNK), input=JUNK, content=PARTS,
    summary=PARTS,
)  # fmt: skip
ERROR = bodies(code=JUNK, message=JUNK)
RESPONSE = bodies(
    status=st.sampled_from(STATUSES), output=st.lists(ITEM, max_size=2), error=ERROR, model=JUNK, service_tier=JUNK,
    usage=bodies(input_tokens=st.floats(), output_tokens=JUNK, input_tokens_details=bodies(cached_tokens=JUNK)),
    incomplete_details=bodies(reason=JUNK),
)  # fmt: skip
EVENT = bodies(
    type=st.sampled_from(EVENTS), item=ITEM, item_id=JUNK, output_index=JUNK, content_index=JUNK, summary_index=JUNK,
    delta=bodies(x=JUNK), text=JUNK, arguments=bodies(x=JUNK), input=JUNK, response=RESPONSE, error=ERROR, part=ITEM,
)  # fmt: skip


@given(st.lists(EVENT, max_size=6), RESPONSE)
def test_no_event_and_no_body_raises(events: list[Any], body: Any) -> None:
    answer_from(body)
    _, answer = joined(*(each for each in events if isinstance(each, dict)))
    assert answer.usable or answer.error or answer.outcome in (Outcome.FILTERED, Outcome.REFUSED)
