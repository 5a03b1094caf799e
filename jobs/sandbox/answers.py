"""What the sandbox answers: the same for the same seed, prompt and model, and plainly its own (pure)."""

import re
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import orjson

from jobs.sandbox import schemas, tokens
from jobs.sandbox.bill import Usage
from jobs.sandbox.errors import invalid
from jobs.sandbox.models import REASONING
from jobs.sandbox.settings import SandboxSettings

MARK = "[sandbox]"
PROSE = (
    "The wagons arrive in the evening and every one of them has to find its own track before the morning. "
    "A dispatcher reads the list, looks at the clock and sets the points one after the other. "
    "Some of the freight is urgent and goes straight through to the platform where somebody is waiting for it. "
    "Most of it is patient: it may stand in the siding until the night, when the line is quiet and cheap. "
    "Nothing is lost on the way, because each wagon has a number and each number is written down twice. "
    "If a signal fails the train stops, the driver calls, and the same wagon is never sent a second time. "
    "This text is made up by a server on your own machine; no model has thought about your question. "
    "It only has the length and the shape of an answer, so that the road it took can be tried and measured. "
)
WORDS = [f" {word}" for word in PROSE.split()]
STARTS = [at for at, before in enumerate([".", *WORDS[:-1]]) if before.endswith((".", ":"))]
LENGTHS = (
    (
        (
            "one word",
            "one-word",
            "single word",
            "yes or no",
            "true or false",
            "only the number",
            "only the letter",
            "only the label",
        ),
        2,
        4,
    ),
    (("one sentence", "one-sentence", "single sentence", "briefly", "in short", "classify", "translate"), 12, 36),
    (("essay", "story", "article", "detailed", "in detail", "long ", "chapter", "step by step", "guide"), 240, 600),
)
USUAL = (40, 160)
COUNTED = re.compile(r"\b(\d{1,4}) words\b")


@dataclass(slots=True)
class Ask:
    """A request of any of the three APIs, as far as its answer depends on it."""

    api: str
    model: str
    prompt: str
    last: str
    last_is_user: bool
    input_tokens: int
    cap: int | None = None
    schema: Any = None
    json_object: bool = False
    tools: dict[str, Any] = field(default_factory=dict)
    tool_choice: str = "auto"
    parallel: bool = True
    choices: int = 1
    stream: bool = False
    include_usage: bool = False
    tier: str = "default"
    logprobs: int | None = None  # wanted, with so many other tokens each


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    pieces: list[str]

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return 1 + len(self.pieces)


@dataclass(frozen=True, slots=True)
class Answer:
    """`finish` is stop, length, tool_calls, content_filter or refusal; a refusal's text is in `pieces` too."""

    pieces: list[str]
    calls: tuple[ToolCall, ...] = ()
    finish: str = "stop"
    reasoning: int = 0

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return self.reasoning + len(self.pieces) + sum(call.tokens for call in self.calls)


def seed_of(ask: Ask, settings: SandboxSettings, choice: int = 0) -> int:
    text = f"{settings.seed}\0{ask.model}\0{choice}\0{ask.prompt}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def answer(ask: Ask, settings: SandboxSettings, choice: int = 0) -> Answer:
    """The whole answer, cut to the cap exactly as a model's would be."""
    seed = seed_of(ask, settings, choice)
    reasoning = settings.reasoning_tokens if REASONING.match(ask.model) else 0
    named = called(ask)
    if named:
        calls = tuple(
            ToolCall(name, tokens.pieces(_fitting(ask.tools[name], seed + at, "tools")))
            for at, name in enumerate(named)
        )
        return capped(Answer([], calls, "tool_calls", reasoning), ask.cap)
    if ask.schema is not None:
        return capped(
            Answer(tokens.pieces(_fitting(ask.schema, seed, "response_format")), reasoning=reasoning), ask.cap
        )
    length = _length(ask, settings, seed)
    if ask.json_object:
        text = orjson.dumps({"sandbox": prose(max(1, length // 2), seed)}).decode()
        return capped(Answer(tokens.pieces(text), reasoning=reasoning), ask.cap)
    limit = length if ask.cap is None else min(length, max(0, ask.cap - reasoning))
    finish = "length" if ask.cap is not None and length + reasoning > ask.cap else "stop"
    return Answer(_words(limit, seed), (), finish, reasoning if ask.cap is None else min(reasoning, ask.cap))


def prose(words: int, seed: int) -> str:
    return "".join(_words(words, seed))


def _words(length: int, seed: int) -> list[str]:
    if length <= 0:
        return []
    start = STARTS[seed % len(STARTS)]
    found = (WORDS[start:] + WORDS * (length // len(WORDS) + 1))[: length - 1]
    return [MARK, *found]


def _length(ask: Ask, settings: SandboxSettings, seed: int) -> int:
    if settings.answer_tokens is not None:
        return settings.answer_tokens
    said = (ask.last if len(ask.last) < 2000 else ask.last[:1000] + ask.last[-1000:]).lower()
    if " words" in said and (counted := COUNTED.search(said)):
        return max(1, int(counted[1]))
    low, high = next(((low, high) for phrases, low, high in LENGTHS if any(one in said for one in phrases)), USUAL)
    return low + seed % (high - low + 1)


def called(ask: Ask) -> list[str]:
    """The tools the answer calls: the forced one, the ones the last user message names, or the first if one must be."""
    if not ask.tools or ask.tool_choice == "none":
        return []
    if ask.tool_choice not in ("auto", "required"):
        return [ask.tool_choice]
    named = [name for name in ask.tools if ask.last_is_user and name in ask.last]
    if not named and ask.tool_choice == "required":
        named = [next(iter(ask.tools))]
    return named if ask.parallel else named[:1]


def _fitting(schema: Any, seed: int, param: str) -> str:
    try:
        return orjson.dumps(schemas.instance(schema, seed)).decode()
    except (schemas.Unfittable, TypeError, AttributeError) as error:
        raise invalid(
            f"Invalid schema: the sandbox found no value that fits it: {error}", param, "invalid_json_schema"
        ) from error


def capped(whole: Answer, cap: int | None) -> Answer:
    """The first `cap` tokens of it: reasoning, then text, then tool calls; finish `length` if some are missing."""
    if cap is None or whole.tokens <= cap:
        return whole
    reasoning = min(whole.reasoning, cap)
    left = cap - reasoning
    kept = whole.pieces[:left]
    left -= len(kept)
    calls = []
    for call in whole.calls:
        if left <= 0:
            break
        calls.append(ToolCall(call.name, call.pieces[: left - 1]))
        left -= calls[-1].tokens
    return Answer(kept, tuple(calls), "length", reasoning)


def bent(whole: Answer, kind: str) -> Answer:
    """The answer under a drill that changes what is said: refusal, length, content_filter, malformed_arguments."""
    match kind:
        case "refusal":
            return Answer([MARK, " I", " cannot", " help", " with", " that."], (), "refusal", whole.reasoning)
        case "length":
            return replace(capped(whole, max(1, whole.tokens // 2)), finish="length")
        case "content_filter":
            return replace(capped(whole, max(1, whole.tokens // 2)), finish="content_filter")
        case "malformed_arguments":
            calls = tuple(
                ToolCall(call.name, [*call.pieces[: max(1, len(call.pieces) // 2)], '"oops']) for call in whole.calls
            )
            return replace(whole, calls=calls)
    return whole


def usage(ask: Ask, made: list[Answer], cached: int = 0) -> Usage:
    return Usage(ask.input_tokens, sum(one.tokens for one in made), cached, sum(one.reasoning for one in made))
