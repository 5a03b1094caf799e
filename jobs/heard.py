"""What a reader has heard of an answer that nobody will finish. No I/O."""

from collections import defaultdict
from dataclasses import dataclass, field

from jobs.chat import Choice, Delta, ToolCall

_WITHIN = "the answer ended within this call"


@dataclass(slots=True)
class _Said:
    text: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, list[str]] = field(
        default_factory=lambda: defaultdict(lambda: ["", "", ""])
    )  # id, name, arguments

    def choice(self) -> Choice:
        """As it stands, without an end."""
        calls = (ToolCall(parts[0], parts[1], parts[2], error=_WITHIN) for _, parts in sorted(self.calls.items()))
        return Choice("".join(self.text), "".join(self.refusal), "".join(self.reasoning), tuple(calls))


class Heard:
    """Deltas in, the choices so far out."""

    def __init__(self) -> None:
        self._said: dict[int, _Said] = defaultdict(_Said)

    def add(self, delta: Delta) -> None:
        """Take in a delta."""
        said = self._said[delta.choice]
        if delta.text:
            said.text.append(delta.text)
        if delta.refusal:
            said.refusal.append(delta.refusal)
        if delta.reasoning:
            said.reasoning.append(delta.reasoning)
        for piece in delta.calls:
            parts = said.calls[piece.index]
            parts[0], parts[1] = parts[0] or piece.id, parts[1] or piece.name
            parts[2] += piece.arguments

    def choices(self) -> tuple[Choice, ...]:
        """What was heard; one empty choice when it was nothing."""
        return tuple(said.choice() for _, said in sorted(self._said.items())) or (Choice(),)
