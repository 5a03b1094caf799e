"""Fault drills as data: read, checked, matched to a request, and counted down (pure)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import orjson

from jobs.sandbox.settings import SandboxError

_STREAM_END = {"billed": True}
KINDS: dict[str, dict[str, Any]] = {
    # any request
    "status": {"status": 500, "retry_after": None, "code": None, "message": None, "type": None},
    "drop": {"how": "fin"},
    "null_body": {"billed": False},
    "html_body": {"billed": False},
    # answers, plain and streamed
    "slow_first_token": {"seconds": 1.0},
    "cut": {"after": 0, "how": "fin", "billed": True},
    "silence": {"after": 0, "seconds": 3600.0},
    "malformed": {"after": 0, "billed": True},
    "no_usage": {},
    "no_finish": _STREAM_END,
    "refusal": {},
    "length": {},
    "content_filter": {},
    "malformed_arguments": {},
    # streams only
    "stream_error": {"after": 0, "code": None, "message": None, "shape": "nested", "billed": False},
    "no_done": _STREAM_END,
    "empty_stream": {"billed": False},
    # files and batches
    "lost_create": {"how": "fin", "seconds": 3600.0},
    "late_list": {"seconds": 1.0},
    "token_limit": {},
    "batch_failed": {"code": "invalid_json_line", "line": 1, "message": None},
    "batch_takes": {"seconds": 1.0},
    "expire": {"fraction": 0.5, "error_rows": True},
    "stall": {"fraction": 0.0},
    "forget": {"seconds": 0.0},
    "fail_rows": {
        "fraction": 1.0,
        "custom_ids": None,
        "status_code": 500,
        "code": None,
        "message": None,
        "variant": "error",
    },
    # responses in the background; there `expire` is a cancel that nobody asked for
    "response_failed": {"code": "server_error", "message": None, "billed": False},
}
COMMON = {"match": None, "times": None, "skip": 0, "chance": 1.0}
MATCHES = ("path", "method", "model", "contains", "lane", "custom_id")
CHOICES = {
    "how": ("fin", "rst", "hang"),
    "shape": ("nested", "flat"),
    "variant": ("error", "zero", "null_response", "missing"),
}
TYPES: dict[str, tuple[type, ...]] = {
    "status": (int,),
    "retry_after": (int, float),
    "after": (int,),
    "seconds": (int, float),
    "billed": (bool,),
    "line": (int,),
    "fraction": (int, float),
    "error_rows": (bool,),
    "custom_ids": (list,),
    "status_code": (int,),
    "code": (str,),
    "message": (str,),
    "type": (str,),
    "how": (str,),
    "shape": (str,),
    "variant": (str,),
    "match": (dict,),
    "times": (int,),
    "skip": (int,),
    "chance": (int, float),
}
BENDS = ("refusal", "length", "content_filter", "malformed_arguments")
REQUEST = ("status", "drop", "html_body", "null_body")
ANSWER = ("slow_first_token", "cut", "silence", "malformed", "no_usage", "no_finish", *BENDS)
STREAM = ("stream_error", "no_done", "empty_stream")
CREATE = ("lost_create", "late_list")
BATCH = ("token_limit", "batch_failed", "batch_takes", "expire", "stall", "forget", "fail_rows")
ROW = ("no_usage", "no_finish", *BENDS)
BACKGROUND = ("expire", "stall", "forget", "response_failed", "no_usage", *BENDS)


@dataclass(slots=True)
class Fault:
    """`times` counts down; None is for ever."""

    kind: str
    params: dict[str, Any]
    match: dict[str, str] = field(default_factory=dict)
    times: int | None = None
    skip: int = 0
    chance: float = 1.0

    def __getitem__(self, name: str) -> Any:
        return self.params[name]

    def view(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            **self.params,
            "match": self.match,
            "times": self.times,
            "skip": self.skip,
            "chance": self.chance,
        }


@dataclass(frozen=True, slots=True)
class Facts:
    """What a drill may match on; `lane` is plain, stream, batch or background, `raw` the body's bytes."""

    path: str = ""
    method: str = "POST"
    model: str = ""
    lane: str = ""
    raw: bytes = b""
    custom_id: str = ""


def parse(spec: Any) -> Fault:
    """A fault from its JSON object or its short form; SandboxError says what is wrong and what is allowed."""
    if isinstance(spec, str):
        spec = short(spec)
    if not isinstance(spec, Mapping):
        raise SandboxError(f"a fault is a JSON object with a kind, not {spec!r}")
    kind = spec.get("kind")
    if kind not in KINDS:
        raise SandboxError(f"unknown fault kind {kind!r}; allowed: {', '.join(KINDS)}")
    allowed = {**KINDS[kind], **COMMON}
    for name, value in spec.items():
        if name != "kind":
            _check(str(kind), name, value, allowed)
    params = {name: spec.get(name, default) for name, default in KINDS[kind].items()}
    common = {name: spec.get(name, default) for name, default in COMMON.items()}
    return Fault(str(kind), params, common["match"] or {}, common["times"], common["skip"], common["chance"])


def _check(kind: str, name: str, value: Any, allowed: dict[str, Any]) -> None:
    if name not in allowed:
        raise SandboxError(f"fault {kind!r} has no {name!r}; allowed: {', '.join(allowed)}")
    if value is None:
        return
    wanted = TYPES[name]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        names = " or ".join(one.__name__ for one in wanted)
        raise SandboxError(f"fault {kind!r}: {name} must be {names}, not {value!r}")
    trouble = _match_trouble(value) if isinstance(value, dict) else _trouble(kind, name, value)
    if trouble:
        raise SandboxError(f"fault {kind!r}: {name} must be {trouble}, not {value!r}")


def _trouble(kind: str, name: str, value: Any) -> str | None:
    choices = ("fin", "rst") if name == "how" and kind == "cut" else CHOICES.get(name)
    if choices is not None:
        return None if value in choices else f"one of {', '.join(choices)}"
    low, high = {"fraction": (0, 1), "chance": (0, 1), "status": (400, 599)}.get(name, (0, None))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if high is not None and not low <= value <= high:
        return f"between {low} and {high}"
    return "0 or more" if value < 0 else None


def _match_trouble(value: dict[Any, Any]) -> str | None:
    good = all(key in MATCHES and isinstance(text, str) for key, text in value.items())
    return None if good else f"an object of strings with any of {', '.join(MATCHES)}"


def short(text: str) -> dict[str, Any]:
    """`cut;after=3;how=rst` as a JSON object; values are numbers, true, false, lists with |, or words."""
    kind, *pairs = [part.strip() for part in text.split(";") if part.strip()] or [""]
    spec: dict[str, Any] = {"kind": kind}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SandboxError(f"fault {kind!r}: {pair!r} is not name=value")
        name = name.strip()
        if name in MATCHES:
            spec.setdefault("match", {})[name] = value
        else:
            spec[name] = value.split("|") if name == "custom_ids" else _word(value.strip(), name)
    return spec


def _word(value: str, name: str) -> Any:
    if str in TYPES.get(name, ()):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def load(source: Any) -> list[Fault]:
    """Faults from a list, or from the path of a JSON file with a list (or an object with `faults`)."""
    given = source
    if isinstance(given, Path):
        try:
            found = orjson.loads(given.read_bytes())
        except OSError as error:
            raise SandboxError(f"cannot read the faults file {given}: {error.strerror}") from error
        except orjson.JSONDecodeError as error:
            raise SandboxError(f"the faults file {given} is not JSON: {error}") from error
        given = found.get("faults") if isinstance(found, dict) else found
    if not isinstance(given, list | tuple):
        raise SandboxError("faults are a JSON list of objects, each with a kind")
    return [parse(spec) for spec in given]


class Faults:
    """The drills that are on; `take` hands out those that hit, and counts them down."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self.items = list(faults)
        self.random = Random(seed)  # noqa: S311 - drills, not secrets

    def take(self, kinds: tuple[str, ...], facts: Facts) -> list[Fault]:
        return [fault for fault in self.items if fault.kind in kinds and hits(fault, facts) and self._due(fault)]

    def _due(self, fault: Fault) -> bool:
        if fault.times == 0:
            return False
        if fault.skip > 0:
            fault.skip -= 1
            return False
        if fault.chance < 1 and self.random.random() >= fault.chance:
            return False
        if fault.times is not None:
            fault.times -= 1
        return True


def hits(fault: Fault, facts: Facts) -> bool:
    """Whether every key of the match fits: a path may end in * for any ending, `contains` is anywhere in the body."""
    for key, wanted in fault.match.items():
        match key:
            case "contains":
                if wanted.encode() not in facts.raw:
                    return False
            case "path" if wanted.endswith("*"):
                if not facts.path.startswith(wanted[:-1]):
                    return False
            case _:
                if getattr(facts, key) != wanted:
                    return False
    return True


def only(faults: list[Fault], kind: str) -> Fault | None:
    return next((fault for fault in faults if fault.kind == kind), None)
