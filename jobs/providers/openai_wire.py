"""Chat completions on the wire: chunks and bodies as an Answer. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.chat import USABLE, Answer, CallPiece, Choice, Delta, Outcome, ToolCall, Usage
from jobs.errors import CallError
from jobs.providers.answers import (
    ENDINGS,
    Head,
    count,
    decode,
    encode,
    ending,
    error_of,
    listed,
    no_answer,
    outcome_of,
    start_of,
    text_of,
    tool_call,
)
from jobs.providers.logprobs import Probs, joined, probs_of
from jobs.providers.reported import nano_of

MOST_CHOICES = 1024  # eight times what OpenAI gives; an index beyond is none


def usage_of(raw: Any) -> Usage | None:
    """Tokens as the provider counts them; None when it does not say, which all zeros is too."""
    if not isinstance(raw, dict):
        return None
    asked, written = raw.get("prompt_tokens"), raw.get("completion_tokens")
    asked = raw.get("input_tokens") if asked is None else asked
    written = raw.get("output_tokens") if written is None else written
    total, read = count(raw.get("total_tokens")), count(asked)
    if written is None and total:
        written = max(total - read, 0)
    wrote = count(written)
    if asked is None or written is None or not (read or wrote):
        return None
    ins = _details(raw, "prompt_tokens_details", "input_tokens_details")
    outs = _details(raw, "completion_tokens_details", "output_tokens_details")
    reads, writes = count(ins.get("cached_tokens")), count(ins.get("cache_write_tokens"))
    reasoning = count(outs.get("reasoning_tokens"))
    if reasoning and total == read + wrote + reasoning:
        wrote += reasoning  # some servers keep reasoning out of completion_tokens, and bill it
    cached = min(reads, read)
    stored = min(writes, read - cached)
    heard = min(count(ins.get("audio_tokens")), read - cached - stored)
    spoken = min(count(outs.get("audio_tokens")), wrote)
    cost = nano_of(raw) if "cost" in raw else None
    return Usage(read, wrote, cached, stored, min(reasoning, wrote), 0, heard, spoken, reported=cost)


def _details(raw: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if isinstance(found := raw.get(name), dict):
            return found
    return {}


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    slot: int = 0
    free: bool = False  # a custom tool: its input is any text
    pieces: list[str] = field(default_factory=list)

    def add(self, raw: Mapping[str, Any]) -> CallPiece:
        """Join a fragment; id and name count once, however often they are repeated."""
        known = self.id, self.name
        self.id = self.id or text_of(raw.get("id"))
        self.free = self.free or isinstance(raw.get("custom"), Mapping)
        self.name = self.name or text_of(_function(raw).get("name"))
        piece = _function(raw).get("arguments") or _function(raw).get("input") or ""
        if not isinstance(piece, str):
            piece = encode(piece).decode()
        if piece:
            self.pieces.append(piece)
        return CallPiece(self.slot, "" if known[0] else self.id, "" if known[1] else self.name, piece)

    def close(self, whole: bool) -> ToolCall:
        raw = "".join(self.pieces)
        return ToolCall(self.id, self.name, raw, raw) if self.free else tool_call(self.id, self.name, raw, whole=whole)


def _function(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    function = raw.get("function") or raw.get("custom")
    return function if isinstance(function, Mapping) else {}


class _Part:
    """One choice as it grows."""

    __slots__ = ("_by_slot", "calls", "finish", "legacy", "probs", "reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[_Call] = []
        self.probs: list[Probs] = []
        self.legacy: _Call | None = None  # the old function_call; some servers fill both
        self.finish: str | None = None
        self._by_slot: dict[int, _Call] = {}

    def add(self, delta: Mapping[str, Any], index: int) -> Delta | None:
        """Take in what a delta or a message carries; the piece to show, if any."""
        if len(delta) == 1 and type(said := delta.get("content")) is str:  # nearly every piece
            if not said:
                return None
            self.text.append(said)
            return Delta(said, choice=index)
        text = text_of(delta.get("content"))
        refusal = text_of(delta.get("refusal"))
        reasoning = text_of(delta.get("reasoning_content") or delta.get("reasoning"))
        calls = [
            self._fragment(fragment, position)
            for position, fragment in enumerate(listed(delta.get("tool_calls")))
            if isinstance(fragment, Mapping)
        ]
        if isinstance(delta.get("function_call"), Mapping):
            self.legacy = self.legacy or _Call()
            piece = self.legacy.add({"function": delta["function_call"]})
            calls += [] if self.calls else [piece]
        if not (text or refusal or reasoning or calls):
            return None
        for pieces, said in ((self.text, text), (self.refusal, refusal), (self.reasoning, reasoning)):
            if said:
                pieces.append(said)
        return Delta(text, refusal, reasoning, index, tuple(calls))

    def _fragment(self, raw: Mapping[str, Any], position: int) -> CallPiece:
        slot = raw["index"] if isinstance(raw.get("index"), int) else position
        call = self._by_slot.get(slot)
        other = call is not None and call.id and text_of(raw.get("id")) not in ("", call.id)
        if call is None or (other and _function(raw).get("name")):  # some servers give every call the index 0
            call = self._by_slot[slot] = _Call(slot=slot if call is None else len(self.calls))
            self.calls.append(call)
        return call.add(raw)

    @property
    def begun(self) -> bool:
        return bool(self.text or self.calls or self.finish or self.refusal or self.reasoning or self.legacy)

    def close(self) -> Choice:
        whole = self.finish in ("stop", "tool_calls", "function_call")
        calls = sorted(self.calls, key=lambda call: call.slot) or ([self.legacy] if self.legacy else [])
        return Choice(
            "".join(self.text),
            "".join(self.refusal),
            "".join(self.reasoning),
            tuple(call.close(whole) for call in calls),
            self.finish,
            joined(self.probs) if self.probs else None,
        )


class Accumulator:
    """Chunks in, deltas out, and one Answer at the end."""

    def __init__(self, choices: int = 1) -> None:
        self.head = Head()
        self.over = False  # [DONE] was seen
        self._asked = choices
        self._parts: dict[int, _Part] = {}
        self._usage: Usage | None = None
        self._counted = False  # by this chunk
        self._last = False  # the usage came with or after the last word
        self._model: str | None = None
        self._tier: str | None = None

    @property
    def begun(self) -> bool:
        """Whether anything of an answer has come; a role or a usage alone is nothing."""
        return any(part.begun for part in self._parts.values())

    @property
    def whole(self) -> bool:
        """Whether every choice has a finish reason."""
        finished = [part.finish is not None for part in self._parts.values()]
        return bool(finished) and all(finished) and (self.over or len(finished) >= self._asked)

    def feed(self, chunk: Any) -> list[Delta]:
        """Take in a chunk (a dict, or the SDK's own) or a whole body; the pieces to show."""
        body = chunk if isinstance(chunk, dict) else chunk.model_dump(warnings=False)
        self._counted = False
        if (usage := body.get("usage")) is not None:
            self._usage, self._counted = usage_of(usage) or self._usage, True
        self._model = text_of(body.get("model")) or self._model
        self._tier = text_of(body.get("service_tier")) or self._tier
        deltas = []
        for position, raw in enumerate(listed(body.get("choices"))):
            if isinstance(raw, Mapping) and (delta := self._choice(raw, position)) is not None:
                deltas.append(delta)
        self._last = self._counted or (self._last and not deltas)
        return deltas

    def _choice(self, raw: Mapping[str, Any], position: int) -> Delta | None:
        delta, reason = raw.get("delta") or raw.get("message"), raw.get("finish_reason")
        if not delta and not reason and position not in self._parts:
            return None  # the one empty choice of some usage chunks
        given = raw.get("index")
        index = given if isinstance(given, int) and 0 <= given < MOST_CHOICES else position
        part = self._parts.get(index)
        if part is None:
            part = self._parts[index] = _Part()
        if reason and isinstance(reason, str):
            part.finish = reason
        piece = part.add(delta, index) if isinstance(delta, Mapping) else None
        if probs := probs_of(raw.get("logprobs")):
            part.probs.append(probs)
            return (piece or Delta(choice=index))._replace(logprobs=probs)
        return piece

    def finish(self, failure: CallError | None = None) -> Answer:
        """The answer with all that came; a failure after every finish reason changes nothing."""
        choices = tuple(part.close() for _, part in sorted(self._parts.items()))
        outcome, code, error = (outcome_of(choices), None, None) if self.whole else ending(choices, failure)
        if outcome is Outcome.PROVIDER_ERROR and code is None:
            code, error = "finish_reason", f"the provider ended with {[c.finish_reason for c in choices]}"
        usage = self._usage if self.whole and self._last else None
        return Answer(
            choices, outcome, usage, self._model, self._tier, self.head.request_id, code, error, self.head.headers
        )


def answer_from(data: Any, head: Head | None = None, *, choices: int = 1, tier: str | None = None) -> Answer:
    """A plain answer from its bytes or its decoded body; what is no answer is MALFORMED or PROVIDER_ERROR."""
    head = head or Head()
    try:
        body = decode(data) if isinstance(data, bytes | str) else data
    except ValueError:
        return no_answer(head, Outcome.MALFORMED, "malformed", f"not JSON: {start_of(data)}")
    if (told := error_of(body)) and not body.get("choices"):
        return no_answer(head, Outcome.PROVIDER_ERROR, told[0] or told[1] or "provider_error", told[2])
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        return no_answer(head, Outcome.MALFORMED, "malformed", f"no completion: {start_of(encode(body))}")
    if choices == 1 and (answer := _words(body, head, tier)) is not None:
        return answer
    accumulator = Accumulator(choices)
    accumulator.head = head
    accumulator.feed(body)
    answer = accumulator.finish()
    if not answer.choices:
        return replace(answer, outcome=Outcome.MALFORMED, error_code="malformed", error="the answer has no choices")
    return answer if tier is None else replace(answer, tier=tier)


_MORE = ("refusal", "tool_calls", "reasoning_content", "reasoning")


def _words(body: dict[str, Any], head: Head, tier: str | None) -> Answer | None:
    """What nearly every answer is, one ended choice of nothing but words, in a fifth of the time; None for others."""
    choice = body["choices"][0] if len(body["choices"]) == 1 else None
    message = choice.get("message") if isinstance(choice, dict) and not choice.get("delta") else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None
    if any(map(message.get, _MORE)) or message.get("function_call") is not None:
        return None
    text, reason = message.get("content"), choice.get("finish_reason")
    outcome = ENDINGS.get(reason) if isinstance(reason, str) else None
    if not isinstance(text, str) or outcome not in USABLE:
        return None
    model, served = text_of(body.get("model")), tier or text_of(body.get("service_tier"))
    said = Choice(text, finish_reason=reason, logprobs=probs_of(choice.get("logprobs")))
    return Answer((said,), outcome, usage_of(body.get("usage")), model or None, served or None, head.request_id,
                  headers=head.headers)  # fmt: skip
