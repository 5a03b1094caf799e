"""From the words of the command line to a request; every mistake says what, where and what to do."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from db.money import NANO
from db.states import Lane
from jobs.chat import LONGEST_TIMEOUT, USUAL, Handling, OnCut, OnLeave, Request
from jobs.errors import UsageError
from router import when
from router.decided import Wish
from router.dispatch import Router
from router.intake import Defaults, Reader, Row
from router.intake import Kind as FileKind

LANES = ("stream", "sync", "background", "batch")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of submit and explain, as they were given."""

    prompt: str | None = None
    file: str | None = None
    kind: str | None = None
    model: str | None = None
    system: str | None = None
    schema: str | None = None
    tools: tuple[str, ...] = ()
    max_tokens: int | None = None
    post_process: str | None = None
    whole: bool = False
    interactive: bool | None = None
    deadline: str | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    key: str | None = None
    lane: str | None = None
    max_cost: str | None = None
    again: bool = False
    wait: bool = False
    on_cut: str = "keep"
    on_leave: str = "cancel"
    first_token_timeout: str | None = None
    idle_timeout: str | None = None
    timeout: str | None = None
    markdown: bool = False

    def wish(self) -> Wish:
        """What was asked beside the request."""
        return Wish(lane_of(self.lane), nano_of(self.max_cost), again=self.again, here=self.wait)

    def defaults(self, router: Router, now: datetime) -> Defaults:
        """What holds for the prompt, or for every row that does not say it itself."""
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"--max-tokens is {self.max_tokens}: it must be 1 or more")
        if not -1000 <= self.priority <= 1000:
            raise UsageError(f"--priority is {self.priority}: it must be between -1000 and 1000")
        return Defaults(
            model=router.model(self.model),
            system=self.system,
            response_format=schema_of(self.schema) if self.schema else None,
            tools=[tool for path in self.tools for tool in tools_of(path)] or None,
            max_tokens=self.max_tokens,
            deadline=when.moment(self.deadline, now, past=False) if self.deadline else None,
            tags=tags_of(self.tags),
            priority=self.priority,
            post_process=self.post_process,
            whole=self.whole,
            handling=self.handling(),
        )

    def handling(self) -> Handling:
        """How its calls are watched over."""
        asked = Handling(
            on_cut=OnCut(_one_of("--on-cut", self.on_cut, OnCut)),
            on_leave=OnLeave(_one_of("--on-leave", self.on_leave, OnLeave)),
            first_token=_seconds("--first-token-timeout", self.first_token_timeout),
            idle=_seconds("--idle-timeout", self.idle_timeout),
            total=_seconds("--timeout", self.timeout),
        )
        return USUAL if asked == USUAL else asked  # what is the same for every row of a file is compared but once

    def check_file(self) -> None:
        """UsageError for what a file cannot go together with."""
        if self.prompt is not None:
            raise UsageError("give a prompt or --file, not both")
        if self.key is not None:
            raise UsageError("--key is for one prompt; a row of a file carries its own custom_id")

    def reader(self, source: BinaryIO, router: Router) -> Reader:
        """The rows of the file."""
        try:
            kind = FileKind(self.kind) if self.kind else None
        except ValueError:
            raise UsageError(f"--format is {self.kind!r}: it must be jsonl, csv or text") from None
        name = "stdin" if self.file == "-" else str(self.file)
        return Reader(source, kind, self.defaults(router, router.clock.now()), name=name)

    def request(self, router: Router) -> Request:
        """The one request of a prompt."""
        defaults = self.defaults(router, router.clock.now())
        try:  # one row of a file, so that a prompt is checked as every row is
            row = orjson.dumps({"prompt": self._text()} | ({"custom_id": self.key} if self.key else {}))
        except TypeError:
            raise UsageError("the prompt is not UTF-8; check the terminal's encoding") from None
        item = next(iter(Reader(BytesIO(row), FileKind.JSONL, defaults, name="the prompt")))
        if not isinstance(item, Row):
            raise UsageError(item.reason)
        interactive = defaults.deadline is None if self.interactive is None else self.interactive
        return item.request.model_copy(update={"interactive": interactive})

    def _text(self) -> str:
        if self.prompt is None:
            raise UsageError('nothing to submit: give a prompt ("…"), - to read one from stdin, or --file FILE')
        if self.prompt != "-":
            return self.prompt
        raw = sys.stdin.buffer.read()
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            at = f"byte {error.start + 1}"
            raise UsageError(f"stdin is not UTF-8 at {at}; convert it first (`iconv -f latin1 -t utf-8`)") from None


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The file of requests; - is stdin."""
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).expanduser().open("rb")
    except OSError as error:
        raise UsageError(f"--file {name}: {error.strerror}") from None
    with file:
        yield file


def _one_of(option: str, word: str, words: Iterable[str]) -> str:
    if word not in list(words):
        raise UsageError(f"{option} is {word!r}: it must be one of {', '.join(words)}")
    return word


def _seconds(option: str, words: str | None) -> float | None:
    if words is None:
        return None
    seconds = when.duration(words).total_seconds()
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise UsageError(f"{option} is {words}: it must be above 0 and at most 24h")
    return seconds


def lane_of(word: str | None) -> Lane | None:
    """The lane that a word names."""
    if word is None:
        return None
    if word not in LANES:
        raise UsageError(f"--lane is {word!r}: it must be one of {', '.join(LANES)}")
    return Lane(word)


def nano_of(dollars: str | None, option: str = "--max-cost", *, or_none: bool = False) -> int | None:
    """Whole nano-dollars of an amount in USD; with `or_none` it may be 0."""
    if dollars is None:
        return None
    try:
        amount = Decimal(dollars.lstrip("$"))
    except InvalidOperation:
        raise UsageError(f"{option} is {dollars!r}: write an amount in USD, such as 0.25") from None
    if not amount.is_finite() or not 0 <= amount <= 1_000_000 or not (amount or or_none):
        least = "at least" if or_none else "above"
        raise UsageError(f"{option} is {dollars}: it must be {least} 0 and at most 1000000")
    return int(amount * NANO)


def tags_of(words: tuple[str, ...], option: str = "--tag") -> dict[str, str]:
    """Tags of `key=value` words."""
    tags = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} is {word!r}: write key=value")
        tags[key] = value
    return tags


def schema_of(path: str) -> dict[str, Any]:
    """A response_format that asks for the schema of a file."""
    found = _json_file(path, "--schema")
    if not isinstance(found, dict):
        raise UsageError(f"--schema {path}: a JSON Schema is an object, and this is {_kind(found)}")
    schema = found["schema"] if isinstance(found.get("schema"), dict) and "name" in found else found
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise UsageError(f"--schema {path}: not a JSON Schema at {error.json_path}: {error.message}") from None
    name = "".join(sign if sign.isalnum() or sign in "_-" else "_" for sign in Path(path).stem)[:64] or "answer"
    wrapped = found if schema is not found else {"name": name, "schema": schema, "strict": _strict(schema)}
    return {"type": "json_schema", "json_schema": wrapped}


def _strict(schema: Any) -> bool:
    """Whether every object of a schema is closed and requires all it names, as OpenAI's strict mode wants it."""
    if isinstance(schema, list):
        return all(_strict(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = set(schema.get("properties") or {})
        if schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != names:
            return False
    return all(_strict(part) for part in schema.values())


def tools_of(path: str) -> list[dict[str, Any]]:
    """The tools that a file defines, one or a list, in OpenAI's form."""
    found = _json_file(path, "--tool")
    tools = found if isinstance(found, list) else [found]
    for tool in tools:
        if not isinstance(tool, dict) or not isinstance((tool.get("function") or tool).get("name"), str):
            raise UsageError(f'--tool {path}: a tool is {{"name": …, "description": …, "parameters": {{…}}}}')
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def _json_file(path: str, option: str) -> Any:
    try:
        return orjson.loads(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{option} {path}: not JSON: {error}") from None


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
