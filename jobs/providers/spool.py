"""The lines of a result file put in order on disk, so that memory stays constant and the database is not jumped about.

Providers answer in any order. Rows of neighbouring jobs share pages of the database: settled in the order of the file,
a thousand of them rewrite nearly all of its pages, in the order of the jobs only their own.
"""

import heapq
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType

_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]{1,80})"')  # never inside a text: there its quotes are escaped
_RUN = 1 << 19  # bytes that are sorted in memory
_BLOCK = 4 << 10  # bytes of each run that are in memory while they are merged


class Spool:
    """Lines in, then the same lines by their custom_ids; the file has no name and goes with the process."""

    def __init__(self, folder: Path) -> None:
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._runs: list[tuple[int, int]] = []  # where each begins and ends
        self._lines: list[bytes] = []
        self._bytes = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, lines: Sequence[bytes]) -> None:
        """Keep lines, none of them blank, without their newlines."""
        self._lines += lines
        self._bytes += sum(map(len, lines))
        if self._bytes >= _RUN:
            self._end_run()

    def _end_run(self) -> None:
        self._lines.sort(key=_custom_id)
        start = self._file.tell()
        self._file.write(b"\n".join(self._lines))
        self._runs.append((start, self._file.tell()))
        self._lines, self._bytes = [], 0

    def ordered(self) -> Iterator[bytes]:
        """Every line once."""
        self._end_run()
        self._file.flush()
        return heapq.merge(*(self._run(*run) for run in self._runs), key=_custom_id)

    def _run(self, start: int, end: int) -> Iterator[bytes]:
        tail = b""
        while start < end:
            block = os.pread(self._file.fileno(), min(_BLOCK, end - start), start)
            start += len(block)
            *lines, tail = (tail + block).split(b"\n")
            yield from lines
        if tail:
            yield tail


def _custom_id(line: bytes) -> bytes:
    found = _CUSTOM_ID.search(line)
    return found[1] if found else b""
