"""Wire bytes in, outcome out: what a recorded stream is, what a wire format is, and how a call may end."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.chat import Answer, Delta, Outcome, ToolCall, Usage
from jobs.errors import CallError
from jobs.providers import calls
from jobs.providers.answers import ending

EVENT_STREAM = "text/event-stream; charset=utf-8"
TOKENS = Usage(3, 2)  # what every recorded stream says it used
WORDS = ("text", "refusal", "reasoning")


@dataclass(frozen=True, slots=True)
class End:
    """How a call ended and what it left; of several choices the texts with a bar between."""

    outcome: Outcome
    text: str = ""
    code: str | None = None
    usage: Usage | None = None
    calls: tuple[tuple[str, Any], ...] = ()  # name and arguments; what came of them when they are not JSON
    refusal: str = ""
    reasoning: str = ""

    @property
    def late(self) -> bool:
        """Whether it took too long."""
        return self.outcome is Outcome.TIMED_OUT

    @classmethod
    def of(cls, ended: Answer | CallError) -> "End":
        """What is compared of an answer; an error is what an answer with nothing in it would be."""
        if isinstance(ended, CallError):
            outcome, code, _ = ending((), ended)
            return cls(outcome, code=code)
        choices = ended.choices
        made = tuple(_call(call) for choice in choices for call in choice.tool_calls)
        texts = [_bars([getattr(choice, name) for choice in choices]) for name in ("text", "refusal", "reasoning")]
        return cls(ended.outcome, texts[0], ended.error_code, ended.usage, made, *texts[1:])


def _bars(texts: Sequence[str]) -> str:
    return "|".join(texts) if any(texts) else ""


def _call(call: ToolCall) -> tuple[str, Any]:
    return call.name, call.raw if call.error else call.arguments


def complete(text: str = "", usage: Usage | None = TOKENS, **more: Any) -> End:
    return End(Outcome.COMPLETE, text, None, usage, **more)


def truncated(text: str = "", usage: Usage | None = TOKENS, **more: Any) -> End:
    return End(Outcome.TRUNCATED, text, None, usage, **more)


def cut(text: str = "", **more: Any) -> End:
    return End(Outcome.CUT, text, "cut", **more)


def malformed(text: str = "", **more: Any) -> End:
    return End(Outcome.MALFORMED, text, "malformed", **more)


def told(code: str, text: str = "", **more: Any) -> End:
    """The provider said itself that it failed."""
    return End(Outcome.PROVIDER_ERROR, text, code, **more)


def late(code: str, text: str = "") -> End:
    return End(Outcome.TIMED_OUT, text, f"{code}_timeout")


@dataclass(frozen=True, slots=True)
class Case:
    """A recorded stream that the server ended cleanly; `behind`: what the raw SDK leaves of it, where that is less."""

    wire: bytes
    end: End
    behind: End | None = None
    choices: int = 1
    kind: str = EVENT_STREAM


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Format:
    """A wire format: where it is spoken, what reads it, and a small stream of it in pieces that say `hello`."""

    name: str
    provider: str  # a key of PROVIDERS
    api: str
    base: str  # path of the base URL
    accumulator: Callable[[int], calls.Wire]  # for so many choices
    read: calls.ReadBody
    client: Callable[[str, str], Any]  # the SDK's, as the Provider makes it
    create: Callable[[Any, bool], Awaitable[Any]]  # the SDK's own call, streamed or plain
    parts: Mapping[str, bytes]  # start, text, more, finish, end, error, whole
    cases: Mapping[str, Case]

    def __repr__(self) -> str:
        return self.name

    def bytes_of(self, *names: str) -> list[bytes]:
        """Pieces one by one, without those that this format has not."""
        return [self.parts[name] for name in names if self.parts[name]]


def joined(deltas: Sequence[Delta]) -> dict[tuple[int, str], str]:
    """What was shown of each choice: its text, refusal and reasoning."""
    shown: dict[tuple[int, str], str] = defaultdict(str)
    for delta in deltas:
        for name in WORDS:
            if piece := getattr(delta, name):
                shown[delta.choice, name] += piece
    return dict(shown)


def joined_calls(deltas: Sequence[Delta]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each tool call that was shown."""
    shown: dict[tuple[int, int], tuple[str, str, str]] = defaultdict(lambda: ("", "", ""))
    for delta in deltas:
        for piece in delta.calls:
            ident, name, arguments = shown[delta.choice, piece.index]
            shown[delta.choice, piece.index] = ident + piece.id, name + piece.name, arguments + piece.arguments
    return [call for _, call in sorted(shown.items())]


def kept(ended: Answer | CallError, deltas: Sequence[Delta]) -> None:
    """Whatever was shown is in the answer, and nothing else; success only with a reason for every choice."""
    if isinstance(ended, CallError):
        assert not deltas
        return
    held = {(at, name): getattr(choice, name) for at, choice in enumerate(ended.choices) for name in WORDS}
    shown = joined(deltas)
    if ended.first.finish_reason == "content_filter":  # a refusal may be explained at its end
        shown.pop((0, "refusal"), held.pop((0, "refusal")))
    assert shown == {place: text for place, text in held.items() if text}
    if ended.usable:
        assert all(choice.finish_reason for choice in ended.choices)
        assert ended.error_code is None
    else:
        assert ended.error_code or ended.outcome in (Outcome.REFUSED, Outcome.FILTERED)
