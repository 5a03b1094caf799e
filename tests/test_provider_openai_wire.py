"""Chat completions: bodies out, chunks and bodies in, with the quirks of real servers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from jobs.chat import Answer, Delta, Outcome, Usage
from jobs.errors import Transient
from jobs.providers.openai_wire import Accumulator, answer_from

USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4, "audio_tokens": None},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def choice(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "choices": list(choices), **more}


def joined(*chunks: Any, choices: int = 1) -> tuple[list[Delta], Answer]:
    wire = Accumulator(choices)
    deltas = [delta for piece in chunks for delta in wire.feed(piece)]
    return deltas, wire.finish()


def fragment(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return {"index": index, "function": function, **more}


def test_text_usage_model_and_tier() -> None:
    deltas, answer = joined(
        chunk(choice(role="assistant", content="", refusal=None), model="m-2026", service_tier="priority", usage=None),
        chunk(choice(content="he"), usage=None),
        chunk(choice(content="llo"), usage=None),
        chunk(choice(finish="stop"), usage=None),
        chunk(usage=USAGE),
    )
    assert deltas == [Delta("he"), Delta("llo")]
    assert (answer.first.text, answer.outcome, answer.model, answer.tier) == (
        "hello",
        Outcome.COMPLETE,
        "m-2026",
        "priority",
    )
    assert answer.usage == Usage(20, 9, cached=8, cache_write=4, reasoning=5)


def test_the_sdks_own_chunks_are_taken_too() -> None:
    raw = chunk(choice(content="hi", finish="stop"), created=1, model="m")
    assert joined(ChatCompletionChunk.model_validate(raw))[1].first.text == "hi"


@pytest.mark.parametrize("choices", [None, [], [{}], [{"index": 0, "delta": {}, "finish_reason": None}]])
def test_the_usage_chunk_of_any_server(choices: Any) -> None:
    _, answer = joined(chunk(choice(content="x", finish="stop")), {"choices": choices, "usage": USAGE})
    assert (answer.outcome, answer.usage and answer.usage.input) == (Outcome.COMPLETE, 20)


def test_the_last_usage_that_says_something_wins() -> None:
    early = {"prompt_tokens": 20, "completion_tokens": 1}
    _, answer = joined(
        chunk(choice(content="x"), usage=early), chunk(choice(finish="stop"), usage=USAGE), chunk(usage=None)
    )
    assert answer.usage is not None
    assert answer.usage.output == 9


def test_usage_of_a_cut_stream_is_unknown() -> None:
    _, answer = joined(chunk(choice(content="x"), usage={"prompt_tokens": 20, "completion_tokens": 1}))
    assert (answer.outcome, answer.usage, answer.first.text) == (Outcome.CUT, None, "x")


def test_choices_interleave() -> None:
    deltas, answer = joined(
        chunk(choice(1, content="b")),
        chunk(choice(0, content="a")),
        chunk(choice(1, content="B", finish="stop"), choice(0, finish="length")),
        choices=2,
    )
    assert [c.text for c in answer.choices] == ["a", "bB"]
    assert [d.choice for d in deltas] == [1, 0, 1]
    assert answer.outcome is Outcome.TRUNCATED


def test_a_choice_that_never_came_cuts_the_stream() -> None:
    assert joined(chunk(choice(0, content="a", finish="stop")), choices=2)[1].outcome is Outcome.CUT


@pytest.mark.parametrize(
    ("delta", "finish", "outcome"),
    [
        ({"content": "x"}, "stop", Outcome.COMPLETE),
        ({"content": "x"}, "eos_token", Outcome.COMPLETE),
        ({"content": "x"}, "length", Outcome.TRUNCATED),
        ({"content": "x"}, "content_filter", Outcome.FILTERED),
        ({"refusal": "no"}, "stop", Outcome.REFUSED),
        ({"refusal": "no", "content": "x"}, "stop", Outcome.COMPLETE),
        ({"content": "x"}, "error", Outcome.PROVIDER_ERROR),
        ({"content": "x"}, "", Outcome.CUT),
        ({"content": "x"}, None, Outcome.CUT),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "function_call", Outcome.COMPLETE),
    ],
)
def test_outcomes(delta: dict[str, Any], finish: str | None, outcome: Outcome) -> None:
    streamed = joined(chunk(choice(finish=finish, **delta)))[1]
    plain = answer_from({"choices": [{"index": 0, "message": delta, "finish_reason": finish}]})
    assert (streamed.outcome, plain.outcome) == (outcome, outcome)
    assert streamed.choices == plain.choices
    assert (streamed.error_code is None) == streamed.usable or outcome in (Outcome.REFUSED, Outcome.FILTERED)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning(name: str) -> None:
    deltas, answer = joined(chunk(choice(**{name: "hmm"})), chunk(choice(content="x", finish="stop")))
    assert deltas[0] == Delta(reasoning="hmm")
    assert (answer.first.reasoning, answer.first.text) == ("hmm", "x")


def test_done_without_a_finish_reason_is_cut() -> None:
    wire = Accumulator()
    wire.feed(chunk(choice(content="x")))
    wire.over = True
    assert wire.finish().outcome is Outcome.CUT


def test_a_failure_after_the_finish_reason_changes_nothing() -> None:
    wire = Accumulator()
    wire.feed(chunk(choice(content="x", finish="stop")))
    answer = wire.finish(Transient("reset", code="cut"))
    assert (answer.outcome, answer.usage) == (Outcome.COMPLETE, None)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("cut", Outcome.CUT),
        ("timed_out", Outcome.TIMED_OUT),
        ("malformed", Outcome.MALFORMED),
        ("server_is_overloaded", Outcome.PROVIDER_ERROR),
    ],
)
def test_a_failure_keeps_all_that_came(code: str, outcome: Outcome) -> None:
    wire = Accumulator()
    wire.feed(chunk(choice(content="half"), usage=USAGE))
    answer = wire.finish(Transient("why", code=code))
    assert (answer.outcome, answer.first.text, answer.usage) == (outcome, "half", None)
    assert (answer.error_code, answer.error) == (code, "why")


@given(
    arguments=st.lists(
        st.dictionaries(st.text(max_size=4), st.text(max_size=8) | st.integers(), max_size=3), min_size=1, max_size=3
    ),
    cuts=st.lists(st.integers(1, 60), max_size=12),
    repeated=st.booleans(),
    data=st.data(),
)
def test_any_split_of_tool_calls_joins_the_same(
    arguments: list[dict[str, Any]], cuts: list[int], repeated: bool, data: st.DataObject
) -> None:
    queues: list[list[dict[str, Any]]] = []
    for index, value in enumerate(arguments):
        text = json.dumps(value)
        edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
        pieces = [fragment(index, text[a:b]) for a, b in zip(edges, edges[1:], strict=False)]  # noqa: RUF007
        for place, piece in enumerate(pieces):
            if repeated or not place:
                piece["id"] = f"call_{index}"
                piece["function"]["name"] = f"tool_{index}"
        queues.append(pieces)
    wire = Accumulator()
    while any(queues):
        turn = data.draw(st.sampled_from([queue for queue in queues if queue]))
        wire.feed(chunk(choice(tool_calls=[turn.pop(0)])))
    wire.feed(chunk(choice(finish="tool_calls")))
    calls = wire.finish().first.tool_calls
    wanted = [(f"call_{i}", f"tool_{i}", value, None) for i, value in enumerate(arguments)]
    assert [(call.id, call.name, call.arguments, call.error) for call in calls] == wanted


def test_malformed_arguments_keep_their_text_and_the_others_survive() -> None:
    _, answer = joined(
        chunk(choice(tool_calls=[fragment(0, "{", id="a", name="f"), fragment(1, '{"x": 1}', id="b", name="g")])),
        chunk(choice(finish="length")),
    )
    broken, good = answer.first.tool_calls
    assert (broken.raw, broken.arguments) == ("{", None)
    assert "not JSON" in (broken.error or "")
    assert (good.arguments, good.error) == ({"x": 1}, None)


def test_no_arguments_are_none_wanted_only_when_the_call_was_ended() -> None:
    ended = joined(chunk(choice(tool_calls=[fragment(0, id="a", name="f")], finish="tool_calls")))[1]
    cut = joined(chunk(choice(tool_calls=[fragment(0, id="a", name="f")])))[1]
    assert ended.first.tool_calls[0].arguments == {}
    assert cut.first.tool_calls[0].error


def test_calls_that_all_have_the_index_0() -> None:
    _, answer = joined(
        chunk(choice(tool_calls=[fragment(0, "{}", id="a", name="f")])),
        chunk(choice(tool_calls=[fragment(0, "{}", id="b", name="f")], finish="tool_calls")),
    )
    assert [call.id for call in answer.first.tool_calls] == ["a", "b"]


def test_plain_tool_calls_and_the_old_function_call_beside_them() -> None:
    calls = [{"id": i, "function": {"name": i, "arguments": "{}"}} for i in ("a", "b")]
    message = {"content": None, "tool_calls": calls, "function_call": {"name": "a", "arguments": "{}"}}
    answer = answer_from({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert [call.name for call in answer.first.tool_calls] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"null", Outcome.MALFORMED),
        (b"", Outcome.MALFORMED),
        (b"<html>hello</html>", Outcome.MALFORMED),
        (b'{"choices": [{"mess', Outcome.MALFORMED),
        (b"{}", Outcome.MALFORMED),
        (b"[]", Outcome.MALFORMED),
        (b'"text"', Outcome.MALFORMED),
        (b'{"choices": []}', Outcome.MALFORMED),
        (b'{"choices": null}', Outcome.MALFORMED),
        (b'{"choices": [null]}', Outcome.MALFORMED),
        (b'{"choices": 3}', Outcome.MALFORMED),
        (b"\xff\xfe", Outcome.MALFORMED),
        (b"[" * 5000, Outcome.MALFORMED),
        (b'{"error": {"message": "busy", "code": "overloaded"}}', Outcome.PROVIDER_ERROR),
        (b'{"error": "busy"}', Outcome.PROVIDER_ERROR),
        (b'{"choices": [{"message": {"content": "x"}}]}', Outcome.CUT),
    ],
)
def test_a_200_that_is_no_answer_is_no_success(body: bytes, outcome: Outcome) -> None:
    answer = answer_from(body)
    assert answer.outcome is outcome
    assert not answer.usable
    assert answer.usage is None
    assert answer.error


JUNK = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.none() | st.text(), max_size=2)


def bodies(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with these fields or without, or something else altogether."""
    return JUNK | st.fixed_dictionaries({}, optional={name: JUNK | value for name, value in fields.items()})


FUNCTION = bodies(name=JUNK, arguments=bodies(x=JUNK))
CALLS = st.lists(bodies(index=JUNK, id=JUNK, function=FUNCTION, custom=FUNCTION), max_size=2)
SAID = bodies(
    content=st.lists(bodies(text=JUNK)), tool_calls=CALLS, function_call=FUNCTION, refusal=JUNK, reasoning=JUNK
)
CHOICES = st.lists(bodies(index=JUNK, delta=SAID, message=SAID, finish_reason=JUNK), max_size=2)
COUNTS = bodies(prompt_tokens=st.floats(), completion_tokens=JUNK, prompt_tokens_details=bodies(cached_tokens=JUNK))


@given(bodies(choices=CHOICES, usage=COUNTS, model=JUNK, service_tier=JUNK, error=bodies(code=JUNK, message=JUNK)))
def test_no_body_raises(body: Any) -> None:
    answer_from(body)
    if isinstance(body, dict):
        joined(body)
