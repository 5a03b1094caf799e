"""Server-sent events by the WHATWG rules, fed with bytes split anywhere. No I/O."""

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event; comments, ids and events without data are none."""

    data: bytes
    name: bytes = b""


class Decoder:
    """Bytes in, events out; lines end with LF, CR or CRLF."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of a line that has no end yet
        self._after_cr = False
        self._first = True
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in piece:
            self._parts.append(piece)
            return []
        *lines, tail = b"".join((*self._parts, piece)).split(b"\n")
        self._parts = [tail]
        return [event for line in lines if (event := self._line(line)) is not None]

    def rest(self) -> list[Event]:
        """What is left at a clean end: servers forget the last blank line, and the event is whole all the same."""
        tail, self._parts = b"".join(self._parts), []
        return [event for line in (tail, b"") if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> Event | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        event = Event(b"\n".join(self._data), self._name) if any(self._data) else None
        self._data, self._name = [], b""
        return event
