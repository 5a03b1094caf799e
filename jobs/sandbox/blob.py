"""Bytes that are appended to and read back: in memory, or a file that survives a kill."""

import mmap
from pathlib import Path


class Blob:
    """`append` reaches the file system before it returns, so that what was appended survives a kill -9."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._data = bytearray()
        self._size = path.stat().st_size if path is not None and path.exists() else 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        if self.path is None:
            self._data += data
        else:
            with self.path.open("ab", buffering=0) as file:
                file.write(data)
        self._size += len(data)

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        end = self._size if size is None else min(self._size, start + size)
        if self.path is None:
            with memoryview(self._data) as view:
                return bytes(view[start:end])
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(max(0, end - start))

    def view(self) -> "mmap.mmap | memoryview":
        """All of it without a copy, as it is now; what is appended later is not in it."""
        if self.path is None:
            return memoryview(self._data)[:]
        if self._size == 0:
            return memoryview(b"")
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def line_starts(self) -> list[int]:
        """Where each line starts, and the end; blank lines count as lines."""
        starts = [0]
        at = 0
        while at < self._size:
            block = self.read(at, 4 << 20)
            found = block.find(b"\n")
            while found >= 0:
                starts.append(at + found + 1)
                found = block.find(b"\n", found + 1)
            at += len(block)
        if starts[-1] != self._size:
            starts.append(self._size)
        return starts

    def trim(self) -> None:
        """Drops a last line that a kill left half written."""
        whole = self.read()
        end = whole.rfind(b"\n") + 1
        if end != self._size:
            self._cut(end)

    def _cut(self, size: int) -> None:
        if self.path is None:
            self._data = self._data[:size]  # a new one: the old may still be viewed
        else:
            with self.path.open("r+b") as file:
                file.truncate(size)
        self._size = size

    def drop(self) -> None:
        self._cut(0) if self.path is None else self.path.unlink(missing_ok=True)
        self._size = 0
