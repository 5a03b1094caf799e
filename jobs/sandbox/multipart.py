"""A multipart/form-data body read as it comes, the file part passed on piece by piece (no I/O of its own)."""

import re
from collections.abc import Callable
from email.message import Message

from jobs.sandbox.errors import ApiError, invalid

MAX_HEAD = 16 * 1024
MAX_FIELD = 64 * 1024
BOUNDARY = re.compile(r'boundary="?([^";,]{1,200})"?', re.I)


def boundary_of(content_type: str) -> bytes:
    found = BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        raise invalid("We expected a multipart/form-data body with a boundary.", None)
    return found[1].encode("latin-1")


class Multipart:
    """`fields` are complete, and the file has all its bytes, when `finished` is true."""

    def __init__(self, boundary: bytes, limit: int, file: Callable[[bytes], None]) -> None:
        self.mark = b"\r\n--" + boundary
        self.limit = limit
        self.file = file
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None
        self.has_file = False
        self.size = 0
        self.finished = False
        self._buffer = bytearray(b"\r\n")
        self._name: str | None = None
        self._field = bytearray()
        self._in_part = False
        self._is_file = False

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while not self.finished and (self._part() if self._in_part else self._head()):
            pass

    def _part(self) -> bool:
        """Passes on what cannot be the start of a boundary; true if the part is over."""
        at = self._buffer.find(self.mark)
        if at < 0:
            safe = len(self._buffer) - len(self.mark)
            if safe > 0:
                self._take(bytes(self._buffer[:safe]))
                del self._buffer[:safe]
            return False
        self._take(bytes(self._buffer[:at]))
        del self._buffer[:at]
        if self._name is not None and not self._is_file:
            self.fields[self._name] = self._field.decode("utf-8", "replace")
        self._in_part = False
        return True

    def _take(self, data: bytes) -> None:
        if self._is_file:
            self.size += len(data)
            if self.size > self.limit:
                raise ApiError(413, f"Maximum content size limit ({self.limit}) exceeded ({self.size} bytes read)")
            self.file(data)
        else:
            self._field += data
            if len(self._field) > MAX_FIELD:
                raise invalid(f"The form field '{self._name}' is too long.")

    def _head(self) -> bool:
        """Reads a boundary and the part's own headers; true if they were all there."""
        start = self._buffer.find(self.mark)
        if start < 0:
            return False
        after = start + len(self.mark)
        if self._buffer[after : after + 2] == b"--":
            self.finished = True
            return False
        end = self._buffer.find(b"\r\n\r\n", after)
        if end < 0:
            if len(self._buffer) - start > MAX_HEAD:
                raise invalid("The headers of a multipart part are too long.")
            return False
        self._open(bytes(self._buffer[after:end]))
        del self._buffer[: end + 4]
        self._in_part = True
        return True

    def _open(self, head: bytes) -> None:
        message = Message()
        for line in head.decode("utf-8", "replace").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-disposition":
                message["content-disposition"] = value.strip()
        self._name = _parameter(message, "name")
        self._field.clear()
        self._is_file = self._name == "file"
        if self._is_file:
            self.has_file = True
            self.file_name = _parameter(message, "filename")


def _parameter(message: Message, name: str) -> str | None:
    found = message.get_param(name, header="content-disposition")
    return found if isinstance(found, str) or found is None else found[2]
