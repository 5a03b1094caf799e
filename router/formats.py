"""Bytes in, one set of fields a row out, in constant memory: what a file is, its lines, JSONL and text."""

from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from pathlib import PurePath
from typing import Any, BinaryIO

import orjson

from jobs.errors import UsageError
from router.estimate import rounded

LIMIT = 16 * 1024 * 1024  # bytes of one row; the providers take less
KEPT = 1024  # bytes kept of a row over LIMIT
BOM = b"\xef\xbb\xbf"

_TEXTS = (
    "prompt system custom_id model user reasoning_effort verbosity service_tier tool_choice stop "
    "prompt_cache_key prompt_cache_retention safety_identifier"
)
_OTHERS = (
    "messages max_tokens max_completion_tokens tools response_format temperature top_p seed n presence_penalty "
    "frequency_penalty logprobs top_logprobs logit_bias parallel_tool_calls metadata store modalities audio prediction "
    "moderation functions function_call web_search_options prompt_cache_options stream stream_options"
)
TEXTS = frozenset(_TEXTS.split())
KNOWN = TEXTS | frozenset(_OTHERS.split())  # every parameter of chat completions, custom_id, and our prompt and system

Fields = dict[str, Any]
Item = tuple[int, bytes, Fields | str]  # the line where the row begins, the row as it stood, its fields or the fault


class Kind(StrEnum):
    """What a file of requests is written in."""

    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


_SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), Kind.JSONL),
    **dict.fromkeys((".csv", ".tsv"), Kind.CSV),
    **dict.fromkeys((".txt", ".text"), Kind.TEXT),
}


def sniff(name: str, head: bytes) -> Kind:
    """By the name's extension, else by the first line that is not blank."""
    if known := _SUFFIXES.get(PurePath(name).suffix.lower()):
        return known
    first = head.removeprefix(BOM).lstrip().split(b"\n", 1)[0]
    if first[:1] in (b"{", b"["):
        return Kind.JSONL
    return Kind.CSV if delimiter(first) else Kind.TEXT


def delimiter(header: bytes) -> str | None:
    """The one that makes `prompt` or `messages` a column; None when none does, so that this is no header of ours."""
    text = header[:4096].decode(errors="replace").lower()
    for mark in ",;\t":
        if {"prompt", "messages"} & {cell.strip(' \r\n"') for cell in text.split(mark)}:
            return mark
    return None


class Lines:
    """Physical lines of a stream, split on \\n alone, each with its \\n; `number` counts them from 1.

    A line over LIMIT may come without its end, which `skip` takes away.
    """

    def __init__(self, source: BinaryIO, name: str) -> None:
        self.number, self.name = 1, name
        self._readline = source.readline
        self.head = self._readline(LIMIT + 1)
        _refuse_foreign(self.head[:4], name)
        self.head = self.head.removeprefix(BOM)
        while self.head.isspace() and self.head.endswith(b"\n"):
            self.head = self._readline(LIMIT + 1)
            self.number += 1

    def __iter__(self) -> Iterator[bytes]:
        line, self.head = self.head, b""
        while line:
            yield line
            line = self._readline(LIMIT + 1)
            self.number += 1

    def skip(self, quotes: int | None = None) -> int:
        """Drops the rest of the line, or of the row while its count of quotes is odd; how many bytes that were."""
        dropped = 0
        while piece := self._readline(64 * 1024):
            dropped += len(piece)
            if quotes is not None:
                quotes += piece.count(b'"')
            if piece.endswith(b"\n"):
                if not (quotes or 0) % 2:
                    break
                self.number += 1
        return dropped


UNCOUNTED = 1000  # rows that are believed of what cannot be looked through before it is read


def about_rows(source: BinaryIO) -> int:
    """About how many rows there are from here on, to one step of 10 to 20 %; a pipe has UNCOUNTED."""
    try:
        start = source.tell()
        lines = sum(block.count(b"\n") for block in iter(partial(source.read, 1 << 20), b""))
        source.seek(start)
    except OSError:
        return UNCOUNTED
    return rounded(lines)


_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip -c"),
    b"PK\x03\x04": ("a zip archive", "unzip -p"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstdcat"),
}


def _refuse_foreign(start: bytes, name: str) -> None:
    """UsageError for a file whose first bytes say that no line of it can be read."""
    for mark, (form, tool) in _PACKED.items():
        if start.startswith(mark):
            raise UsageError(f"{name}: the file is {form}; unpack it first: {tool} FILE | shunter submit --file -")
    code = next((code for mark, code in _MARKS.items() if start.startswith(mark)), None)
    if code is None and b"\0" in start:  # no mark, but the zero bytes that ASCII has in a wider form
        code = ("UTF-32" if start.count(b"\0") > 2 else "UTF-16") + ("BE" if start[0] == 0 else "LE")
    if code:
        raise UsageError(f"{name}: the file begins as {code}, not UTF-8; convert it: iconv -f {code} -t UTF-8 FILE")


def not_utf8(raw: bytes) -> str | None:
    """Which byte is wrong and where, for a person; None when the bytes are UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        row, column = before.count(b"\n"), len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        below = f", {row} lines below its first" if row else ""
        return f"not UTF-8: byte 0x{raw[error.start]:02X} in column {column}{below}; convert the file with iconv"
    return None


def oversize(raw: bytes, size: int) -> tuple[bytes, str]:
    """What is kept of a row over LIMIT, and the fault."""
    kept = raw[:KEPT] + f" [cut here: the first {KEPT} of {size} bytes]".encode()
    return kept, f"{size:,} bytes in one row, more than {LIMIT // 2**20} MiB; only the first {KEPT} bytes are kept here"


def _skip_line(lines: Lines, raw: bytes) -> tuple[int, bytes, str]:
    """The item for a line over LIMIT, the rest of which is dropped."""
    number = lines.number
    return number, *oversize(raw, len(raw) + (0 if raw.endswith(b"\n") else lines.skip()))


def jsonl(lines: Lines) -> Iterator[Item]:
    """An object a line; the last of two equal keys counts, as it does for the providers."""
    loads = orjson.loads
    for raw in lines:
        if len(raw) > LIMIT:
            yield _skip_line(lines, raw)
            continue
        try:
            value = loads(raw)
        except orjson.JSONDecodeError as error:
            if not raw.isspace():
                yield lines.number, raw, _not_json(raw, error)
            continue
        yield lines.number, raw, value if type(value) is dict else _not_object(value)


def _not_object(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    hint = "; jq -c '.[]' FILE makes lines of a list" if isinstance(value, list) else ""
    return f"the line is {names.get(type(value), 'a number')}, not a JSON object{hint}"


def _not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if fault := not_utf8(raw):
        return fault
    if "depth" in error.msg:
        return "nested too deeply"
    if error.pos >= len(raw.decode().rstrip()):
        return "not JSON: it ends in the middle; each line must be one whole object (jq -c . FILE makes it so)"
    what = error.msg
    if raw.decode()[error.pos :].lstrip("-").startswith(("NaN", "Infinity")):
        what = "NaN and Infinity are no JSON numbers"
    return f"not JSON: {what}, in column {error.colno}"


def text(lines: Lines) -> Iterator[Item]:
    """A prompt a line."""
    for raw in lines:
        if len(raw) > LIMIT:
            yield _skip_line(lines, raw)
        elif raw.isspace():
            continue
        elif fault := not_utf8(raw):
            yield lines.number, raw, fault
        else:
            yield lines.number, raw, {"prompt": raw.decode().rstrip("\r\n")}
