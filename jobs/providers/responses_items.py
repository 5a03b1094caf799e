"""The output items of a response while they grow: calls, and which item an event is about. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.chat import CallPiece, Delta, ToolCall
from jobs.providers.answers import encode, text_of, tool_call

CALLS = {"function_call": "arguments", "custom_tool_call": "input"}


def raw_of(value: Any) -> str:
    """Arguments as text; some servers send the object itself."""
    return encode(value).decode() if isinstance(value, Mapping) else text_of(value)


@dataclass(slots=True)
class CallItem:
    """A call as it grows; `number` is its place among the calls."""

    number: int
    item_id: str = ""
    call_id: str = ""
    name: str = ""
    free: bool = False  # a custom tool: its input is any text
    opening: str = ""  # what its item began with; the pieces may repeat it
    pieces: list[str] = field(default_factory=list)
    whole: str = ""  # as its end says it

    def learn(self, item: Mapping[str, Any], *, done: bool) -> list[Delta]:
        """Take in the call's item, as it begins or as it ended; what is new of it."""
        known, kind = (self.call_id, self.name), text_of(item.get("type"))
        self.free = self.free or kind == "custom_tool_call"
        self.item_id = self.item_id or text_of(item.get("id"))
        self.call_id = self.call_id or text_of(item.get("call_id"))
        self.name = self.name or text_of(item.get("name"))
        given = raw_of(item.get(CALLS[kind]))
        if not done:
            self.opening = given
        return self._piece("" if known[0] else self.call_id, "" if known[1] else self.name, given if done else "")

    def add(self, piece: str) -> list[Delta]:
        """Take in a piece of its input."""
        if piece:
            self.pieces.append(piece)
        return [Delta(calls=(CallPiece(self.number, arguments=piece),))] if piece else []

    def end(self, name: str, whole: str) -> list[Delta]:
        """Take in its whole input."""
        new, self.name = "" if self.name else name, self.name or name
        return self._piece("", new, whole)

    def _piece(self, identity: str, name: str, whole: str) -> list[Delta]:
        """Its name, and what its whole input has that no piece brought."""
        came = self.whole or "".join(self.pieces)
        self.whole = whole or self.whole
        missed = whole[len(came) :] if whole.startswith(came) else ""
        piece = CallPiece(self.number, identity, name, missed)
        return [Delta(calls=(piece,))] if piece != CallPiece(self.number) else []

    def close(self, whole: bool) -> ToolCall:
        """The call at the end."""
        raw, identity = self.whole or "".join(self.pieces) or self.opening, self.call_id or self.item_id
        return (
            ToolCall(identity, self.name, raw, raw) if self.free else tool_call(identity, self.name, raw, whole=whole)
        )


class Slots:
    """Which output item an event is about: servers leave out or repeat an index, and change an id under way."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._last = 0

    def opened(self, index: Any, identity: str) -> int:
        """A new item's: its index, unless that is another item's."""
        mine = type(index) is int and self._owners.get(index, "") in ("", identity)
        return self._take(index if mine else self._free(), identity)

    def of(self, index: Any, identity: str) -> int:
        """By the id; else by the index; else the item that was last spoken of."""
        behind = self._free() if identity else self._last
        return self._take(index if type(index) is int else behind, identity)

    def _free(self) -> int:
        return max(self._owners, default=-1) + 1

    def _take(self, slot: int, identity: str) -> int:
        self._last = slot = self._of.get(identity, slot)
        self._owners[slot] = self._owners.get(slot) or identity
        if identity:
            self._of[identity] = slot
        return slot
