"""The three chat APIs under one set of names (pure)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jobs.sandbox import chat, messages, responses
from jobs.sandbox.answers import Answer, Ask
from jobs.sandbox.bill import Usage
from jobs.sandbox.frames import Frame

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """One request with its answer, and what both APIs' shapes need of it; `usage` None is the drill no_usage."""

    ask: Ask
    body: Body
    answers: list[Answer]
    usage: Usage | None
    ident: str
    created: int
    tier: str = "standard"


@dataclass(frozen=True, slots=True)
class Voice:
    read: Callable[[Body, str], Ask]
    whole: Callable[[Made], Body]
    frames: Callable[[Made], Iterator[Frame]]


VOICES = {
    "chat": Voice(
        lambda body, _: chat.read(body),
        lambda made: chat.whole(made.ask, made.answers, made.usage, made.ident, made.created),
        lambda made: chat.frames(made.ask, made.answers, made.usage, made.ident, made.created),
    ),
    "responses": Voice(
        lambda body, _: responses.read(body),
        lambda made: responses.whole(made.ask, made.body, made.answers[0], made.usage, made.ident, made.created),
        lambda made: responses.frames(made.ask, made.body, made.answers[0], made.usage, made.ident, made.created),
    ),
    "messages": Voice(
        messages.read,
        lambda made: messages.whole(made.ask, made.answers[0], made.usage, made.ident, made.tier),
        lambda made: messages.frames(made.ask, made.answers[0], made.usage, made.ident),
    ),
}
ENDPOINTS = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}
