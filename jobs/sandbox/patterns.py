"""A string that matches a regular expression, best effort: no look-around, no back-references (pure)."""

import importlib
from collections.abc import Iterable
from typing import Any

_parser: Any = importlib.import_module("re._parser")
_UNBOUNDED = int(importlib.import_module("re._constants").MAXREPEAT)

PRINTABLE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_.,:;/+!#$%&'()*<=>?@[]^`{|}~\"\\"
CLASSES = {"CATEGORY_DIGIT": "0123456789", "CATEGORY_SPACE": " ", "CATEGORY_WORD": PRINTABLE[:62] + "_"}


def match(pattern: str, shortest: int = 0) -> str:
    """The first string of at least `shortest` characters that this finds; ValueError if the pattern is beyond it."""
    try:
        tree = _parser.parse(pattern)
        for more in (0, 1, 2, 4, 8, shortest):
            found = "".join(_sequence(tree, more))
            if len(found) >= shortest:
                return found
    except (RecursionError, KeyError, IndexError, _parser.error) as error:
        raise ValueError(f"pattern {pattern!r} is beyond the sandbox: {error}") from error
    return found


def _sequence(tree: Iterable[tuple[Any, Any]], more: int) -> Iterable[str]:
    for op, arg in tree:
        yield from _one(str(op), arg, more)


def _one(op: str, arg: Any, more: int) -> Iterable[str]:
    match op:
        case "LITERAL":
            yield chr(arg)
        case "NOT_LITERAL":
            yield next(c for c in PRINTABLE if ord(c) != arg)
        case "ANY":
            yield "a"
        case "IN":
            yield _member(arg)
        case "AT":
            return
        case _:
            yield from _group(op, arg, more)


def _group(op: str, arg: Any, more: int) -> Iterable[str]:
    match op:
        case "BRANCH":
            yield from _sequence(arg[1][0], more)
        case "SUBPATTERN":
            yield from _sequence(arg[-1], more)
        case "ATOMIC_GROUP":
            yield from _sequence(arg, more)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = arg
            top = least + more if int(most) >= _UNBOUNDED else min(least + more, int(most))
            for _ in range(top):
                yield from _sequence(inner, more)
        case _:
            raise KeyError(op)


def _member(items: list[tuple[Any, Any]]) -> str:
    if str(items[0][0]) == "NEGATE":
        return next(c for c in PRINTABLE if not any(_holds(item, c) for item in items[1:]))
    op, arg = items[0]
    match str(op):
        case "LITERAL":
            return chr(arg)
        case "RANGE":
            return chr(arg[0])
        case _:
            return next(c for c in PRINTABLE if _holds(items[0], c))


def _holds(item: tuple[Any, Any], c: str) -> bool:
    op, arg = item
    match str(op):
        case "LITERAL":
            return ord(c) == int(arg)
        case "RANGE":
            return int(arg[0]) <= ord(c) <= int(arg[1])
        case _:
            name = str(arg)
            return c not in CLASSES[name.replace("NOT_", "")] if "NOT_" in name else c in CLASSES[name]
