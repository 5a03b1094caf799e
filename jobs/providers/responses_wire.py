"""OpenAI's Responses on the wire: events and bodies as an Answer, in chat's words. No I/O."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from jobs.chat import Answer, Choice, Delta, Outcome, Usage
from jobs.errors import CallError
from jobs.providers.answers import (
    Head,
    decode,
    encode,
    ending,
    error_of,
    listed,
    no_answer,
    outcome_of,
    start_of,
    text_of,
)
from jobs.providers.failures import Told
from jobs.providers.openai_wire import usage_of
from jobs.providers.responses_items import CALLS, CallItem, Slots, raw_of

ENDS = ("completed", "incomplete", "failed", "cancelled")
REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
REASONING = ("reasoning_text", "reasoning_summary_text")
WORDS = {"output_text": "text", "refusal": "refusal", **dict.fromkeys(REASONING, "reasoning")}  # to a Delta's field
KINDS = ("text", "refusal", "reasoning")
INPUTS = {"function_call_arguments": "arguments", "custom_tool_call_input": "input"}
SUMMARY, CONTENT, REST = range(3)  # the lists of an item, in the answer's order; then what no event gave a place

Place = tuple[int, int, int]  # output index, list, index in it
FRONT: Place = (-1, SUMMARY, 0)
BACK: Place = (sys.maxsize, REST, 0)


class Accumulator:
    """Events in, deltas out, and one Answer at the end."""

    def __init__(self) -> None:
        self.head = Head()
        self.over = False  # the terminal event was seen
        self._slots = Slots()
        self._pieces: dict[tuple[str, Place], list[str]] = {}
        self._calls: dict[int, CallItem] = {}
        self._usage: Usage | None = None
        self._model: str | None = None
        self._tier: str | None = None
        self._finish: str | None = None
        self._reason = ""
        self._told: Told | None = None

    @property
    def begun(self) -> bool:
        """Whether anything of an answer has come; a failed response that was billed is something, too."""
        return bool(self._pieces or self._calls or self._finish or self._usage)

    @property
    def whole(self) -> bool:
        """Whether the response was completed, or ended by a limit that it names."""
        return self._finish is not None

    def feed(self, event: Any) -> list[Delta]:
        """Take in an event (a dict, or the SDK's own); the pieces to show. Told when it says that the call failed."""
        body = event if isinstance(event, dict) else event.model_dump(warnings=False)
        name, _, step = text_of(body.get("type")).removeprefix("response.").rpartition(".")
        if not name:
            return self._response(step, _mapping(body, "response"), body)
        if name == "output_item" and step in ("added", "done"):
            return self._item(body, _mapping(body, "item"), done=step == "done")
        if name in WORDS and step in ("delta", "done"):
            return self._words(name, body, done=step == "done")
        if name in INPUTS and step in ("delta", "done"):
            return self._input(INPUTS[name], body, done=step == "done")
        return []

    def feed_response(self, response: Mapping[str, Any]) -> None:
        """Take in a plain body, likewise."""
        status = text_of(response.get("status"))
        self._response("failed" if error_of(response) and status not in ENDS else status, response, response)
        if not self.over:
            self._output(listed(response.get("output")))

    def _response(self, step: str, response: Mapping[str, Any], event: Mapping[str, Any]) -> list[Delta]:
        self._model = text_of(response.get("model")) or self._model
        if step == "error":
            self._fail(error_of(event) or error_of({"error": event}))
        status = text_of(response.get("status"))
        if step == "completed" and status in ENDS:
            step = status
        return self._end(step, response) if step in ENDS else []

    def _end(self, status: str, response: Mapping[str, Any]) -> list[Delta]:
        """Only the last word says the usage, and the tier that was served."""
        self.over = True
        self._tier = text_of(response.get("service_tier")) or None
        self._usage = usage_of(response.get("usage"))
        deltas = self._output(listed(response.get("output")))
        match status:
            case "completed":
                self._finish = "tool_calls" if self._calls else "stop"
            case "incomplete":
                self._reason = text_of(_mapping(response, "incomplete_details").get("reason"))[:100]
                self._finish = REASONS.get(self._reason, "incomplete")
            case "failed":
                self._fail(error_of(response))
            case "cancelled":
                self._fail(("cancelled", "", "the response was cancelled there"))
        return deltas

    def _fail(self, told: tuple[str, str, str] | None) -> None:
        """Raised, to end as every error in a stream does: tried again if nothing came, its text without the key."""
        self.over = True
        self._told = Told(*(told or ("", "", "an error without a word")))
        raise self._told

    def _item(self, body: Mapping[str, Any], item: Mapping[str, Any], *, done: bool) -> list[Delta]:
        find = self._slots.of if done else self._slots.opened
        slot = find(body.get("output_index"), text_of(item.get("id")))
        if text_of(item.get("type")) in CALLS:
            return self._call(slot).learn(item, done=done)
        if done:  # before that its words come in events of their own
            words = list(_words_of(item))
            return [delta for kind in KINDS for delta in self._missed(kind, words, slot)]
        return []

    def _words(self, name: str, body: Mapping[str, Any], *, done: bool) -> list[Delta]:
        kind, summary = WORDS[name], name == "reasoning_summary_text"
        slot = self._slots.of(body.get("output_index"), text_of(body.get("item_id")))
        index = body.get("summary_index" if summary else "content_index")
        place = (slot, SUMMARY if summary else CONTENT, index if type(index) is int else 0)
        if not done:
            return self._add(kind, place, text_of(body.get("delta")))
        text = text_of(body.get("refusal" if kind == "refusal" else "text"))
        came = "".join(self._pieces.get((kind, place), ()))
        missed = text.startswith(came) and (kind, (slot, REST, 0)) not in self._pieces
        return self._add(kind, place, text[len(came) :] if missed else "")

    def _call(self, slot: int) -> CallItem:
        return self._calls.setdefault(slot, CallItem(len(self._calls)))

    def _input(self, name: str, body: Mapping[str, Any], *, done: bool) -> list[Delta]:
        slot = self._slots.of(body.get("output_index"), text_of(body.get("item_id")))
        call = self._call(slot)
        call.free = call.free or name == "input"
        return (
            call.end(text_of(body.get("name")), raw_of(body.get(name))) if done else call.add(raw_of(body.get("delta")))
        )

    def _output(self, output: list[Any]) -> list[Delta]:
        """What the whole response holds and no event brought; its ids and indexes may be others than the events'."""
        items = [item for item in output if isinstance(item, Mapping)]
        left, deltas = [call for _, call in sorted(self._calls.items())], []
        for item in items:
            if text_of(item.get("type")) in CALLS:
                same = [call for call in left if call.call_id == text_of(item.get("call_id"))]
                call = next(iter(same or [call for call in left if not call.call_id]), None)
                if call is None:
                    call = self._call(self._slots.opened(None, ""))
                left = [each for each in left if each is not call]
                deltas += call.learn(item, done=True)
        words = [said for item in items for said in _words_of(item)]
        return [*(delta for kind in KINDS for delta in self._missed(kind, words)), *deltas]

    def _missed(self, kind: str, words: list[tuple[str, str]], slot: int | None = None) -> list[Delta]:
        """What a whole item, or the whole output, has before or behind that which came."""
        came, whole = self._joined(kind, slot), "".join(text for of, text in words if of == kind)
        if whole.startswith(came):
            return self._add(kind, BACK if slot is None else (slot, REST, 0), whole[len(came) :])
        return self._add(kind, FRONT, whole[: -len(came)]) if slot is None and whole.endswith(came) else []

    def _add(self, kind: str, place: Place, piece: str) -> list[Delta]:
        if not piece:
            return []
        self._pieces.setdefault((kind, place), []).append(piece)
        return [Delta(**{kind: piece})]  # type: ignore[arg-type]

    def _joined(self, kind: str, slot: int | None = None) -> str:
        places = sorted(place for of, place in self._pieces if of == kind and slot in (None, place[0]))
        return "".join(piece for place in places for piece in self._pieces[kind, place])

    def finish(self, failure: CallError | None = None) -> Answer:
        """The answer with all that came; a failure after its end changes nothing."""
        calls = tuple(call.close(self._finish == "tool_calls") for _, call in sorted(self._calls.items()))
        text, refusal, reasoning = map(self._joined, KINDS)
        choice = Choice(text, refusal, reasoning, calls, self._finish)
        choices = (choice,) if self._pieces or calls or self.whole else ()
        outcome, code, error = self._ending(choices, failure)
        return Answer(
            choices, outcome, self._usage, self._model, self._tier, self.head.request_id, code, error, self.head.headers
        )

    def _ending(self, choices: tuple[Choice, ...], failure: CallError | None) -> tuple[Outcome, str | None, str | None]:
        if (told := self._told) is not None:
            facts = (failure.code, str(failure)) if failure else (told.code or told.kind or "provider_error", told.text)
            return Outcome.PROVIDER_ERROR, *facts
        if not self.whole:
            return ending(choices, failure)
        if (outcome := outcome_of(choices)) is Outcome.PROVIDER_ERROR:
            return outcome, "incomplete", f"the provider ended incomplete: {self._reason or 'it does not say why'}"
        return outcome, None, None


def _words_of(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The words of a whole item, each with its field of a Delta."""
    kind = {"message": "text", "reasoning": "reasoning"}.get(text_of(item.get("type")))
    for part in (*listed(item.get("summary")), *listed(item.get("content"))) if kind else ():
        if isinstance(part, Mapping):
            refused = part.get("type") == "refusal"
            yield "refusal" if refused else str(kind), text_of(part.get("refusal" if refused else "text"))


def _mapping(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, Mapping) else {}


def answer_from(data: Any, head: Head | None = None) -> Answer:
    """A plain answer from its bytes or its decoded body; what is no answer is MALFORMED or PROVIDER_ERROR."""
    head = head or Head()
    try:
        body = decode(data) if isinstance(data, bytes | str) else data
    except ValueError:
        return no_answer(head, Outcome.MALFORMED, "malformed", f"not JSON: {start_of(data)}")
    ended_badly = error_of(body) or (isinstance(body, dict) and text_of(body.get("status")) in ENDS[1:])
    if not isinstance(body, dict) or not (ended_badly or isinstance(body.get("output"), list)):
        return no_answer(head, Outcome.MALFORMED, "malformed", f"no response: {start_of(encode(body))}")
    accumulator = Accumulator()
    accumulator.head = head
    with suppress(Told):  # it says so again at the end
        accumulator.feed_response(body)
    return accumulator.finish()
