"""Tool calls of the Responses API: joined by item, however their pieces and their ends come."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.chat import Outcome
from jobs.providers.responses_wire import Accumulator
from tests.responses_wire import (
    added,
    arguments,
    call,
    done,
    end,
    event,
    joined,
    text,
)


@given(
    given_=st.lists(
        st.dictionaries(st.text(max_size=4), st.text(max_size=8) | st.integers(), max_size=3), min_size=1, max_size=3
    ),
    cuts=st.lists(st.integers(1, 60), max_size=12),
    indexed=st.booleans(),
    ended=st.booleans(),
    data=st.data(),
)
def test_any_split_of_calls_joins_the_same(
    given_: list[dict[str, Any]], cuts: list[int], indexed: bool, ended: bool, data: st.DataObject
) -> None:
    queues, output = [], []
    for number, value in enumerate(given_):
        raw, index = json.dumps(value), number if indexed else None
        edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
        place = {"index": index, "item_id": f"fc_{number}"}
        pieces = [arguments(raw[a:b], **place) for a, b in zip(edges, edges[1:], strict=False)]  # noqa: RUF007
        whole = event("function_call_arguments.done", arguments=raw, **place)
        queues.append([added(call(str(number)), index), *pieces, *([whole] if ended else [])])
        output.append(call(str(number), raw))
    if not indexed:  # then the order of the items is all there is
        opened = [queue.pop(0) for queue in queues]
        queues.insert(0, [])
    else:
        opened = []
    wire = Accumulator()
    for each in opened:
        wire.feed(each)
    while any(queues):
        wire.feed(data.draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    wire.feed(end("completed", *(output if ended else [])))
    calls = wire.finish().first.tool_calls
    wanted = [(f"call_{n}", str(n), value, None) for n, value in enumerate(given_)]
    assert [(each.id, each.name, each.arguments, each.error) for each in calls] == wanted


CALLS: dict[str, list[dict[str, Any]]] = {
    "in its opening": [added(call("f", '{"x": 1}'))],
    "in its opening and again in pieces": [added(call("f", '{"x": 1}')), arguments('{"x": '), arguments("1}")],
    "in pieces and at their end": [
        added(call("f")),
        arguments('{"x": 1}'),
        event("function_call_arguments.done", arguments='{"x": 1}'),
    ],
    "only at their end": [added(call("f")), event("function_call_arguments.done", arguments='{"x": 1}')],
    "only at the item's end": [added(call("f")), done(call("f", '{"x": 1}'))],
    "without an opening": [arguments('{"x": 1}'), done(call("f", '{"x": 1}'))],
    "as an object": [done(call("f", {"x": 1}))],
    "only in the whole": [],
    "under ids that change": [added(call("f", id="a")), arguments('{"x"', item_id="b"), arguments(": 1}", item_id="c")],
    "without an index": [added(call("f"), None), arguments('{"x": 1}', None, item_id="fc_f")],
    "without anything": [added(call("f"), None), arguments('{"x": 1}', None)],
}


@pytest.mark.parametrize("how", CALLS)
def test_arguments_wherever_they_come(how: str) -> None:
    _, answer = joined(*CALLS[how], end("completed", call("f", '{"x": 1}', id="another")))
    (only,) = answer.first.tool_calls
    assert (only.id, only.name, only.arguments, only.error) == ("call_f", "f", {"x": 1}, None)
    assert (answer.first.finish_reason, answer.outcome) == ("tool_calls", Outcome.COMPLETE)


def test_calls_that_all_have_the_index_0() -> None:
    events = [
        added(call("f")),
        arguments("[1]", item_id="fc_f"),
        added(call("g")),
        arguments("[2]", item_id="fc_g"),
        arguments(" ", item_id="fc_f"),
    ]
    _, answer = joined(*events, end())
    assert [(each.id, each.arguments) for each in answer.first.tool_calls] == [("call_f", [1]), ("call_g", [2])]


def test_malformed_arguments_keep_their_text_and_the_others_survive() -> None:
    _, answer = joined(
        text("x"),
        added(call("f"), 1),
        arguments("{", 1),
        done(call("g", '{"x": 1}'), 2),
        end("incomplete", incomplete_details={"reason": "max_output_tokens"}),
    )
    broken, good = answer.first.tool_calls
    assert (broken.raw, broken.arguments) == ("{", None)
    assert "not JSON" in (broken.error or "")
    assert (good.arguments, good.error) == ({"x": 1}, None)
    assert (answer.outcome, answer.first.text) == (Outcome.TRUNCATED, "x")


def test_no_arguments_are_none_wanted_only_when_the_call_was_ended() -> None:
    assert joined(added(call("f")), end())[1].first.tool_calls[0].arguments == {}
    cut = joined(added(call("f")))[1]
    assert (cut.outcome, bool(cut.first.tool_calls[0].error)) == (Outcome.CUT, True)


def test_a_custom_tools_input_is_any_text() -> None:
    item = {"type": "custom_tool_call", "id": "ct", "call_id": "call_1", "name": "sh", "input": ""}
    _, answer = joined(
        added(item),
        event("custom_tool_call_input.delta", delta="ls "),
        event("custom_tool_call_input.delta", delta="-l"),
        event("custom_tool_call_input.done", input="ls -l"),
        end(),
    )
    (only,) = answer.first.tool_calls
    assert (only.id, only.arguments, only.error, answer.first.finish_reason) == ("call_1", "ls -l", None, "tool_calls")
