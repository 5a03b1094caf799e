"""CSV in: a header that names the columns, then one set of fields a row, in constant memory."""

import csv
from collections.abc import Iterator
from typing import Any

import orjson

from jobs.errors import UsageError
from router.formats import KNOWN, LIMIT, TEXTS, Fields, Item, Lines, delimiter, not_utf8, oversize


class _Feed:
    """Decoded lines for csv.reader, which joins those of a quoted field; keeps how the current row stood."""

    def __init__(self, lines: Lines) -> None:
        self._lines, self._raws = lines, iter(lines)
        self.begin()

    def begin(self) -> None:
        self.line, self.size, self._stood = 0, 0, bytearray()  # not a list: lines may be short and many

    @property
    def raw(self) -> bytes:
        return bytes(self._stood)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = next(self._raws)
        self.line = self.line or self._lines.number
        self._stood += raw
        self.size += len(raw)
        if self.size > LIMIT:
            self._give_up()
        return raw.decode(errors="replace")  # a row with such bytes is refused when it is whole

    def _give_up(self) -> None:
        """Leaves the row at its true end: the rest of an open quote must not become prompts of its own."""
        raw = self.raw
        quotes = raw.count(b'"')
        whole = raw.endswith(b"\n")
        if quotes % 2 or not whole:
            self._lines.number += whole  # then what is dropped begins on the next line
            self.size += self._lines.skip(quotes)
        kept, fault = oversize(raw, self.size)
        self._stood = bytearray(kept)
        raise csv.Error(f"{fault}; is a quote left open?")


def table(lines: Lines) -> Iterator[Item]:
    """CSV whose header names the columns; a cell is text, or the number or JSON that its column asks for."""
    csv.field_size_limit(max(csv.field_size_limit(), LIMIT))
    feed = _Feed(lines)
    reader = csv.reader(feed, strict=True, delimiter=delimiter(lines.head) or ",")
    names = _header(reader, lines)
    while True:
        feed.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield feed.line, feed.raw, f"not CSV: {error}"
            continue
        raw = feed.raw
        if cells and not raw.isspace():
            yield feed.line, raw, not_utf8(raw) or _cells(names, cells)


def _header(reader: Iterator[list[str]], lines: Lines) -> list[str]:
    where = f"{lines.name}, line {lines.number}"
    try:
        names = [_column(name) for name in next(reader, [])]
    except csv.Error as error:
        raise UsageError(f"{where}: the CSV header cannot be read: {error}") from None
    if names and not {"prompt", "messages"} & set(names):
        raise UsageError(f"{where}: the CSV header names no column prompt, only {', '.join(names)[:200]}; rename one")
    if twice := sorted({name for name in names if name in KNOWN and names.count(name) > 1}):
        raise UsageError(f"{where}: the CSV header names {', '.join(twice)} twice; rename one")
    return names


def _column(name: str) -> str:
    name = name.strip()
    return name.lower() if name.lower() in KNOWN else name


def _cells(names: list[str], cells: list[str]) -> Fields | str:
    if len(cells) > len(names):
        return f"{len(cells)} fields, but the header names {len(names)} columns; quote a field that holds the delimiter"
    fields: Fields = {}
    for name, cell in zip(names, cells, strict=False):
        if not cell:  # an empty cell does not say anything
            continue
        try:
            fields[name] = _value(cell) if name in KNOWN and name not in TEXTS else cell
        except orjson.JSONDecodeError:
            return f"{name}: {cell[:60]!r} is not a number, true, false or JSON"
    return fields if fields.keys() & {"prompt", "messages"} else "the prompt is empty"


def _value(cell: str) -> Any:
    """True as spreadsheets write it; 100.0, as pandas writes an int beside an empty cell, is 100."""
    value = orjson.loads(cell.lower() if cell.strip().lower() in ("true", "false") else cell)
    return int(value) if isinstance(value, float) and value.is_integer() else value
