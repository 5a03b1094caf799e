"""A TOML file read key by key, so that every mistake in it is named at once, each with its line."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs.errors import Mistakes, UsageError

Where = tuple[str | int, ...]  # keys, and places in lists from 0


class Source:
    """The file, and the mistakes that were found in it so far; `code` is that of the error which names them."""

    def __init__(self, path: Path, code: str) -> None:
        self.path, self.code = path, code
        self._mistakes: list[tuple[Where, str]] = []
        try:
            self._text = path.read_text(encoding="utf-8")
            self.data: dict[str, Any] = tomllib.loads(self._text)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read: {error}", code=code) from error
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path}: {error}", code=code) from error

    def mistake(self, where: Where, text: str) -> None:
        """Note what is wrong there."""
        self._mistakes.append((where, text))

    @property
    def found(self) -> int:
        """How many mistakes were found so far."""
        return len(self._mistakes)

    def end(self) -> None:
        """Mistakes, in the order of their lines, if there are any."""
        if self._mistakes:
            steps = list(_steps(self._text))
            told = sorted((_line(steps, where), text) for where, text in self._mistakes)
            raise Mistakes([f"{self.path}:{line}: {text}" for line, text in told], code=self.code)


def _steps(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the file says up to the end of each statement, with the line on which that begins."""
    lines = text.splitlines(keepends=True)
    begin = 1
    for end in range(1, len(lines) + 1):
        try:
            data = tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:  # in the middle of a value of several lines
            continue
        yield begin, data
        begin = end + 1


def _line(steps: Sequence[tuple[int, dict[str, Any]]], where: Where) -> int:
    """The line on which the value at a place begins, or what it is missing from."""
    while where:
        for line, data in steps:
            if _has(data, where):
                return line
        where = where[:-1]
    return 1


def _has(data: Any, where: Where) -> bool:
    for key in where:
        if isinstance(key, int):
            if not isinstance(data, list) or key >= len(data):
                return False
        elif not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True


class Table:
    """A table that is read key by key; what is left over at the end was misspelt.

    Where a value is wrong the mistake is noted, and something harmless of the wanted kind is given instead.
    """

    def __init__(self, source: Source, data: dict[str, Any], where: Where = (), name: str = "") -> None:
        self.source, self.where, self.name = source, where, name
        self.data = dict(data)
        self.known: list[str] = []

    def wrong(self, text: str, *keys: str | int) -> None:
        """Note a mistake of this table, or of what is under `keys` in it."""
        self.source.mistake((*self.where, *keys), f"{self.name}: {text}" if self.name else text)

    def take(self, key: str, *kinds: type, default: Any = None) -> Any:
        """The value of a key, of one of these kinds; a key without a default must be there."""
        self.known.append(key)
        value = self.data.pop(key, default)
        if value is None:
            self.wrong(f"'{key}' is missing")
        elif not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            self.wrong(f"'{key}' must be {_article(kinds[0])}, not {value!r}", key)
        else:
            return value
        return kinds[0]()

    def number(self, key: str, low: float, high: float = float("inf")) -> float:
        """A number above `low` and up to `high`."""
        before = self.source.found
        value = float(self.take(key, float, int))
        if low < value <= high:
            return value
        if before == self.source.found:
            limit = f" and at most {high:g}" if high < float("inf") else ""
            self.wrong(f"'{key}' must be more than {low:g}{limit}, not {value:g}", key)
        return (low + min(high, low + 2)) / 2

    def word(self, key: str, words: Sequence[str]) -> str | None:
        """One of these words, or None where the key is absent."""
        value = self.take(key, str, default="")
        if value and value not in words:
            self.wrong(f"'{key}' must be one of {', '.join(words)}, not {value!r}", key)
            return words[0]
        return value or None

    def table(self, key: str) -> "Table":
        """A table inside this one."""
        return Table(self.source, self.take(key, dict), (*self.where, key), f"{self.name}: {key}" if self.name else key)

    def tables(self, key: str, name: str) -> "list[Table]":
        """The tables of a list, each with its number in its name."""
        found = self.take(key, list)
        if not all(isinstance(one, dict) for one in found):
            self.wrong(f"write each {name} as a table, [[{key}]]", key)
            return []
        return [Table(self.source, one, (*self.where, key, n), f"{name} {n + 1}") for n, one in enumerate(found)]

    def end(self) -> None:
        """Note what nobody asked for."""
        for key in self.data:
            self.wrong(f"unknown key '{key}' (known: {', '.join(self.known)})", key)


def _article(kind: type) -> str:
    return {str: "a text", float: "a number", int: "a whole number", bool: "true or false", dict: "a table"}.get(
        kind, "a list"
    )
