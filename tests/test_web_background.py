"""Streams of responses in the background: left, taken up again by their numbers, stopped; asked by OpenAI's client."""

from typing import Any

import openai
import pytest

from jobs.sandbox.server import Sandbox
from tests.gateways import Served, sandbox_of
from tests.lanes import MODEL

ESSAY = "Write a long essay about rivers."
LONG = 60
sandbox = sandbox_of(answer_tokens=LONG, tokens_per_second=150)


def begin(asked: openai.OpenAI, **more: Any) -> Any:
    return asked.responses.create(model=MODEL, input=ESSAY, background=True, stream=True, **more)


def said(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def resumed(asked: openai.OpenAI, ident: str, after: int | None = None) -> list[Any]:
    more = {} if after is None else {"starting_after": after}
    return list(asked.responses.retrieve(ident, stream=True, **more))


def test_it_is_streamed_with_numbers_that_only_grow(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    events = list(begin(asked))
    kinds, numbers = [event.type for event in events], [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]  # fmt: skip
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") > LONG // 3
    assert events[0].response.background
    assert events[-1].response.output_text == said(events)
    assert len(sandbox.bill()["rows"]) == 1


def test_every_number_goes_on_to_the_same_text_also_later(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    events = list(begin(asked))
    ident, last = events[0].response.id, events[-1].sequence_number
    for after in (-1, 0, 3, 4, *range(7, last, 41), last - 3):
        rest = resumed(asked, ident, after)
        before = [event for event in events if event.sequence_number <= after]
        whole = said(events)
        assert said(rest) == whole[max(after - 3, 0) :]
        assert rest[0].sequence_number > after
        assert rest[-1].type == "response.completed"
        assert rest[-1].sequence_number == last, before
    assert resumed(asked, ident, last) == []
    assert resumed(asked, ident)[0].type == "response.created"
    assert len(sandbox.bill()["rows"]) == 1


def test_who_leaves_comes_back_and_it_went_on(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    stream, before = begin(asked), []
    with stream:
        for event in stream:
            before.append(event)
            if len(said(before)) > 40:
                break
    ident, at = before[0].response.id, before[-1].sequence_number
    rest = resumed(asked, ident, at)
    done = asked.responses.retrieve(ident)
    assert done.status == "completed"
    assert said(before) + said(rest) == done.output_text
    assert len(sandbox.bill()["rows"]) == 1


def test_one_that_is_cancelled_ends_for_its_readers(asked: openai.OpenAI) -> None:
    stream = begin(asked)
    first = next(iter(stream))
    assert asked.responses.cancel(first.response.id).status == "cancelled"
    (*_, last) = stream
    assert (last.type, last.response.status) == ("response.failed", "cancelled")
    assert resumed(asked, first.response.id)[-1].response.status == "cancelled"


def test_one_that_fails_is_an_event_now_and_later(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "cut", "after": 5}])
    events = list(begin(asked))
    assert (events[-1].type, events[-1].response.error.code) == ("response.failed", "cut")
    again = resumed(asked, events[0].response.id)
    assert said(again) == said(events) != ""
    assert again[-1].type == "response.failed"


def test_a_queued_one_is_followed_until_it_has_its_answer(asked: openai.OpenAI, served: Served) -> None:
    made = asked.responses.create(model=MODEL, input="Later", background=True)
    stream = asked.responses.retrieve(made.id, stream=True)
    assert next(iter(stream)).type == "response.created"
    assert asked.responses.cancel(made.id).status == "cancelled"
    (*_, last) = stream
    assert last.response.status == "cancelled"


@pytest.mark.parametrize("query", ["starting_after=x", "starting_after=-9", "stream=maybe"])
def test_what_is_no_number_is_refused(served: Served, query: str) -> None:
    with served.client() as client:
        assert client.get(f"/v1/responses/resp_1?{query}").status_code == 422
