"""Anthropic's Messages on the wire: events and bodies as an Answer, in OpenAI's words. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.chat import Answer, CallPiece, Choice, Delta, Outcome, Usage
from jobs.errors import CallError
from jobs.providers.answers import (
    Head,
    count,
    decode,
    encode,
    ending,
    error_of,
    listed,
    no_answer,
    start_of,
    text_of,
    tool_call,
)

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # more would come if it were sent again: not the whole answer
    "refusal": "content_filter",
}
OUTCOMES = {"stop": Outcome.COMPLETE, "tool_calls": Outcome.COMPLETE, "length": Outcome.TRUNCATED}


def usage_of(raw: Mapping[str, Any]) -> Usage | None:
    """Tokens; Anthropic counts cached input beside `input_tokens`, so that the whole is their sum."""
    if raw.get("input_tokens") is None or raw.get("output_tokens") is None:
        return None
    written, read = count(raw.get("cache_creation_input_tokens")), count(raw.get("cache_read_input_tokens"))
    whole, output = count(raw["input_tokens"]) + written + read, count(raw["output_tokens"])
    details = raw.get("output_tokens_details")
    thought = count(details.get("thinking_tokens")) if isinstance(details, Mapping) else 0
    lasting = min(_inner(raw, "cache_creation", "ephemeral_1h_input_tokens"), written)
    searches = _inner(raw, "server_tool_use", "web_search_requests")
    if not (whole or output):
        return None
    return Usage(whole, output, read, written, min(thought, output), lasting, searches=searches)


def _inner(raw: Mapping[str, Any], part: str, name: str) -> int:
    inner = raw.get(part)
    return count(inner.get(name)) if isinstance(inner, Mapping) else 0


@dataclass(slots=True)
class _Block:
    kind: str
    id: str = ""
    name: str = ""
    given: Any = None  # a tool's input, when it came whole
    number: int = 0  # among the tool calls
    pieces: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        return "".join(self.pieces)


class Accumulator:
    """Events in, deltas out, and one Answer at the end."""

    def __init__(self) -> None:
        self.head = Head()
        self.over = False  # message_stop was seen
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, Any] = {}
        self._calls = 0
        self._model: str | None = None
        self._stop: str | None = None
        self._explained = ""

    @property
    def begun(self) -> bool:
        """Whether anything of an answer has come."""
        return bool(self._stop) or any(b.pieces or b.kind == "tool_use" for b in self._blocks.values())

    @property
    def whole(self) -> bool:
        """Whether a stop reason came."""
        return self._stop is not None

    def feed(self, event: Any) -> list[Delta]:
        """Take in an event (a dict, or the SDK's own); the pieces to show."""
        body = event if isinstance(event, dict) else event.model_dump(warnings=False)
        index = body["index"] if isinstance(body.get("index"), int) else len(self._blocks)
        match body.get("type"):
            case "message_start":
                return self._message(_mapping(body, "message"))
            case "content_block_start":
                return self._start(index, _mapping(body, "content_block"))
            case "content_block_delta":
                return self._piece(index, _mapping(body, "delta"))
            case "message_delta":
                self._end(_mapping(body, "delta"), _mapping(body, "usage"))
            case "message_stop":
                self.over = True
        return []

    def feed_message(self, message: Mapping[str, Any]) -> list[Delta]:
        """Take in a whole message."""
        return self._message(message)

    def _message(self, message: Mapping[str, Any]) -> list[Delta]:
        self._model = text_of(message.get("model")) or self._model
        self._end(message, _mapping(message, "usage"))
        deltas = []
        for index, block in enumerate(listed(message.get("content"))):
            if isinstance(block, Mapping):
                deltas += self._start(index, block)
        return deltas

    def _start(self, index: int, raw: Mapping[str, Any]) -> list[Delta]:
        kind = text_of(raw.get("type"))
        block = self._blocks[index] = _Block(
            kind, text_of(raw.get("id")), text_of(raw.get("name")), raw.get("input"), number=self._calls
        )
        if kind == "tool_use":
            self._calls += 1
            return [Delta(calls=(CallPiece(block.number, block.id, block.name),))]
        return self._add(index, text_of(raw.get("text")) or text_of(raw.get("thinking")))

    def _piece(self, index: int, delta: Mapping[str, Any]) -> list[Delta]:
        kinds = {"text_delta": "text", "input_json_delta": "tool_use", "thinking_delta": "thinking"}
        kind = kinds.get(text_of(delta.get("type")))
        if kind is None:  # signatures and citations are no words of the answer
            return []
        if index not in self._blocks:
            self._blocks[index] = _Block(kind, number=self._calls)
            self._calls += kind == "tool_use"
        names = ("text", "partial_json", "thinking")
        return self._add(index, next((delta[n] for n in names if isinstance(delta.get(n), str)), ""))

    def _add(self, index: int, piece: str) -> list[Delta]:
        block = self._blocks[index]
        if not piece:
            return []
        block.pieces.append(piece)
        if block.kind == "text":
            return [Delta(piece)]
        if block.kind == "tool_use":
            return [Delta(calls=(CallPiece(block.number, arguments=piece),))]
        return [Delta(reasoning=piece)] if block.kind == "thinking" else []

    def _end(self, delta: Mapping[str, Any], usage: Mapping[str, Any]) -> None:
        """The counts are cumulative: the last one of each name holds."""
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        if not delta.get("stop_reason") and not self._stop:
            self._usage.pop("output_tokens", None)  # a count of what had been written so far is no bill
        self._stop = text_of(delta.get("stop_reason")) or self._stop
        self._explained = text_of(_mapping(delta, "stop_details").get("explanation")) or self._explained

    def finish(self, failure: CallError | None = None) -> Answer:
        """The answer with all that came; a failure after the stop reason changes nothing."""
        choice = self._choice()
        choices = (choice,) if self._blocks or self._stop else ()
        outcome, code, error = (_outcome(self._stop or ""), None, None) if self.whole else ending((), failure)
        if outcome is Outcome.PROVIDER_ERROR and code is None:
            code, error = "finish_reason", f"the provider ended with {self._stop}"
        usage = usage_of(self._usage) if self.whole else None
        tier = "fast" if self._usage.get("speed") == "fast" else text_of(self._usage.get("service_tier")) or None
        return Answer(choices, outcome, usage, self._model, tier, self.head.request_id, code, error, self.head.headers)

    def _choice(self) -> Choice:
        blocks = [block for _, block in sorted(self._blocks.items())]
        text = "".join(block.said for block in blocks if block.kind == "text")
        refusal = (self._explained or text or "refused") if self._stop == "refusal" else ""
        thinking = "".join(block.said for block in blocks if block.kind == "thinking")
        whole = self._stop in ("tool_use", "end_turn", "stop_sequence")
        calls = tuple(tool_call(b.id, b.name, _input(b), whole=whole) for b in blocks if b.kind == "tool_use")
        return Choice(text, refusal, thinking, calls, FINISH.get(self._stop or "", self._stop))


def _input(block: _Block) -> str:
    return block.said or (encode(block.given).decode() if block.given else "")


def _outcome(stop: str) -> Outcome:
    if stop == "refusal":
        return Outcome.REFUSED
    return OUTCOMES.get(FINISH.get(stop, ""), Outcome.PROVIDER_ERROR)


def _mapping(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, Mapping) else {}


def answer_from(data: Any, head: Head | None = None, *, tier: str | None = None) -> Answer:
    """A plain answer from its bytes or its decoded message; what is no answer is MALFORMED or PROVIDER_ERROR."""
    head = head or Head()
    try:
        body = decode(data) if isinstance(data, bytes | str) else data
    except ValueError:
        return no_answer(head, Outcome.MALFORMED, "malformed", f"not JSON: {start_of(data)}")
    if told := error_of(body):
        return no_answer(head, Outcome.PROVIDER_ERROR, told[0] or told[1] or "provider_error", told[2])
    if not isinstance(body, dict) or not isinstance(body.get("content"), list):
        return no_answer(head, Outcome.MALFORMED, "malformed", f"no message: {start_of(encode(body))}")
    accumulator = Accumulator()
    accumulator.head = head
    accumulator.feed_message(body)
    answer = accumulator.finish()
    return answer if tier is None else replace(answer, tier=tier)
