"""The lines of a result file put in order on disk, so that memory stays constant and the database is not jumped about.

Providers answer in any order. Rows of neighbouring jobs share pages of the database: settled in the order of the file,
a thousand of them rewrite nearly all of its pages, in the order of the jobs only their own.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType

_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]{1,80})"')  # never inside a text: there its quotes are escaped
_PLACE = struct.Struct(">QI")  # where a line begins, and its bytes


class Spool:
    """Lines in, then the same lines by their custom_id; the file has no name and goes with the process."""

    def __init__(self, folder: Path) -> None:
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._places: list[bytes] = []  # of each line: its custom_id, then its place
        self._size = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, lines: Sequence[bytes]) -> None:
        """Keep lines, which come without their newlines."""
        for line in lines:
            found = _CUSTOM_ID.search(line)
            self._places.append((found[1] if found else b"") + _PLACE.pack(self._size, len(line)))
            self._size += len(line)
        self._file.write(b"".join(lines))

    def ordered(self) -> Iterator[bytes]:
        """Every line once."""
        self._file.flush()
        self._places.sort()
        for place in self._places:
            start, size = _PLACE.unpack(place[-_PLACE.size :])
            yield os.pread(self._file.fileno(), size, start)
