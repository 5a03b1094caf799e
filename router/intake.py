"""Files of requests in, checked row by row, in constant memory: each row becomes one Row or one Reject."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, BinaryIO, NamedTuple

import orjson
from pydantic import ValidationError

from jobs.chat import USUAL, Handling, Request
from jobs.errors import UsageError
from router.csv_rows import table
from router.formats import KNOWN, Fields, Item, Kind, Lines, about_rows, jsonl, sniff, text
from router.rejects import Reject, Rejects, brief, condense

__all__ = ["Defaults", "Kind", "Reader", "Reject", "Rejects", "Row", "canonical", "key", "read", "sniff"]

ROWS: dict[Kind, Callable[[Lines], Iterator[Item]]] = {Kind.JSONL: jsonl, Kind.CSV: table, Kind.TEXT: text}
URL = "/v1/chat/completions"
NAMED = 100  # different ignored keys that are remembered by name


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the command line says for every row that does not say it itself."""

    model: str | None = None
    system: str | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    max_tokens: int | None = None
    deadline: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    post_process: str | None = None
    whole: bool = False
    handling: Handling = USUAL


class Row(NamedTuple):
    """A request of a file; `body` is the canonical JSON of `request.body()`, `key` what the row is known by."""

    line: int
    key: str
    request: Request
    body: str


class _Bad(Exception):
    """Why a row cannot be sent."""


def canonical(body: Mapping[str, Any]) -> str:
    """JSON with sorted keys, equal for equal bodies; UsageError when `body` cannot be written as JSON."""
    try:  # in eight lists, so that a provider's envelope around the body never meets orjson's depth limit of 254
        return orjson.dumps([[[[[[[[body]]]]]]]], option=orjson.OPT_SORT_KEYS)[8:-8].decode()
    except TypeError as error:
        what = "nested too deeply" if "ecursion" in str(error) else f"not JSON: {error}"
        raise UsageError(f"the request is {what}") from None


def key(request_body: str, custom_id: str | None, line: int) -> str:
    """What a row of a file is known by, 40 hex digits: its line, then a hash of its custom_id and its canonical body.

    The line comes first so that the rows of a file are neighbours in the index of keys: scattered ones would make
    every thousand of them rewrite as many of its pages.
    """
    name = custom_id or ""
    return f"{line:08x}{sha256(f'{len(name)} {name}{request_body}'.encode()).hexdigest()[:32]}"


def read(source: BinaryIO, kind: Kind | None, defaults: Defaults, *, name: str) -> "Reader":
    """The rows of `source` in order; without a `kind` it is sniffed. UsageError when the whole file cannot be read."""
    return Reader(source, kind, defaults, name=name)


class Reader(Iterator[Row | Reject]):
    """Rows and rejects in the order of the file: about `expected`; `ignored` counts the keys that were not sent.

    Lines of the Batch format are for `url`; `worded` makes a chat body of theirs, or raises UsageError.
    """

    def __init__(self, source: BinaryIO, kind: Kind | None, defaults: Defaults, *, name: str, url: str = URL,
                 worded: Callable[[Fields], Fields] | None = None) -> None:  # fmt: skip
        self.ignored: Counter[str] = Counter()
        self._defaults = defaults
        self._url, self._worded = url, worded
        self._fallbacks = {
            "max_tokens": defaults.max_tokens,
            "tools": defaults.tools,
            "tool_choice": None,
            "response_format": defaults.response_format,
        }
        self._sender = {
            "interactive": False,
            "deadline": defaults.deadline,
            "tags": dict(defaults.tags),
            "priority": defaults.priority,
            "post_process": defaults.post_process,
            "handling": defaults.handling,
            "whole": defaults.whole,
        }
        self._check_defaults()
        self.expected = about_rows(source)
        lines = Lines(source, name)
        self.kind = kind or sniff(name, lines.head)
        self._rows = (self._take(*item) for item in ROWS[self.kind](lines))

    def __iter__(self) -> Iterator[Row | Reject]:
        return self._rows

    def __next__(self) -> Row | Reject:
        return next(self._rows)

    def _check_defaults(self) -> None:
        """UsageError for what would make every row a reject."""
        try:
            self._row(0, None, {"prompt": "?", "model": self._defaults.model or "?"})
        except _Bad as error:
            raise UsageError(str(error)) from None

    def _take(self, line: int, raw: bytes, fields: Fields | str) -> Row | Reject:
        custom_id = None
        if isinstance(fields, str):
            reason = fields
        else:
            custom_id = fields.pop("custom_id", None)
            try:
                return self._row(line, custom_id, fields)
            except (_Bad, UsageError) as error:
                reason = str(error)
        reason = "".join(sign if sign.isprintable() else "�" for sign in reason)
        return Reject(line, reason, raw.rstrip(b"\r\n"), custom_id[:512] if isinstance(custom_id, str) else None)

    def _row(self, line: int, custom_id: Any, fields: Fields) -> Row:
        if "body" in fields or "url" in fields or "method" in fields:
            params = self._batch(custom_id, fields)
        else:
            params = self._plain(fields)
        request, sent = self._request(custom_id, params)
        body = canonical(sent)
        return Row(line, key(body, custom_id, line), request, body)

    def _batch(self, custom_id: Any, fields: Fields) -> Fields:
        """The body of a line of OpenAI's Batch format."""
        if custom_id is None:
            raise _Bad("custom_id: is missing; a Batch line needs one")
        if (method := fields.pop("method", None)) != "POST":
            raise _Bad(f"method: must be POST, not {brief(method)}")
        if (url := fields.pop("url", None)) != self._url:
            raise _Bad(f"url: only {self._url} is supported, not {brief(url)}")
        body = fields.pop("body", None)
        if type(body) is not dict:
            raise _Bad(f"body: must be an object, not {brief(body)}")
        if fields:
            self._ignore(fields)
        return self._worded(body) if self._worded else body

    def _plain(self, fields: Fields) -> Fields:
        """The same for a row of short names; null says nothing, and an unknown key is not sent."""
        body = {name: value for name, value in fields.items() if value is not None and name in KNOWN}
        prompt, system = body.pop("prompt", None), body.pop("system", None)
        if prompt is not None:
            if "messages" in body:
                raise _Bad("both prompt and messages; one of them is wanted")
            body["messages"] = [{"role": "user", "content": _said("prompt", prompt)}]
        elif "messages" not in body:
            raise _Bad(_nothing(fields))
        if system is not None:
            if _has_system(body["messages"]):
                raise _Bad("both system and a system turn in messages; one of them is wanted")
            body["messages"] = _with_system(_said("system", system), body["messages"])
        if unknown := fields.keys() - KNOWN:
            self._ignore(unknown)
        return body

    def _ignore(self, names: Iterable[str]) -> None:
        for name in names:  # a file may hold endlessly many
            known = name[:80] if name[:80] in self.ignored or len(self.ignored) < NAMED else "…"
            self.ignored[known] += 1

    def _request(self, custom_id: Any, params: Fields) -> tuple[Request, Fields]:
        """The request, and its `body()` made from the same values, which costs half; `params` is used up."""
        params.pop("stream", None)  # whether it streams is the lane's choice
        params.pop("stream_options", None)
        if (model := params.pop("model", None) or self._defaults.model) is None:
            raise _Bad("model: is missing; name one in the row, or with -m for every row that names none")
        if (messages := params.pop("messages", None)) is None:
            raise _Bad("messages: is missing")
        sent = {"model": model, "messages": messages}
        if self._defaults.system and not _has_system(sent["messages"]):
            sent["messages"] = _with_system(self._defaults.system, sent["messages"])
        if "max_completion_tokens" in params:
            _merge_caps(params)
        for name, default in self._fallbacks.items():
            value = params.pop(name, None)
            if value is not None or default is not None:
                sent[name] = default if value is None else value
        try:  # strict: nothing is converted, so that what was checked is what is sent
            fields = {**self._sender, **sent, "params": params, "client_key": custom_id}
            request = Request.model_validate(fields, strict=True)
        except ValidationError as error:
            raise _Bad(condense(error)) from None
        if custom_id == "":
            raise _Bad("custom_id: is empty")
        if "\0" in request.model or "\0" in (custom_id or ""):
            raise _Bad("model and custom_id: must not hold a NUL character")
        return request, {**params, **sent}


def _merge_caps(params: Fields) -> None:
    """One cap under one name: `max_tokens`."""
    newer = params.pop("max_completion_tokens")
    if newer is None:
        return
    older = params.get("max_tokens")
    if older is not None and older != newer:
        raise _Bad(f"max_tokens is {brief(older)} and max_completion_tokens {brief(newer)}; one of them is wanted")
    params["max_tokens"] = newer


def _has_system(messages: Any) -> bool:
    if type(messages) is not list:  # not good, as the check of the request will say
        return False
    return any(type(turn) is dict and turn.get("role") in ("system", "developer") for turn in messages)


def _with_system(system: str, messages: Any) -> Any:
    return [{"role": "system", "content": system}, *messages] if type(messages) is list else messages


def _said(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _Bad(f"{name}: must be text, not {brief(value)}")
    if not value.strip():
        raise _Bad(f"the {name} is empty")
    return value


def _nothing(fields: Fields) -> str:
    has = ", ".join(fields)[:120] or "nothing"
    return (
        f"no prompt: the row has {has}; understood are prompt or messages, and beside them custom_id, model, system, "
        "max_tokens, tools, response_format and the other parameters of chat completions"
    )
