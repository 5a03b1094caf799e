"""A JSON value that fits a JSON schema, the same one for the same seed (pure)."""

import math
from random import Random
from typing import Any

from jobs.sandbox import patterns

MARK = "[sandbox]"
DEEP = 6
FORMATS = {
    "date-time": "2026-11-22T10:15:00Z",
    "date": "2026-11-22",
    "time": "10:15:00Z",
    "duration": "P1D",
    "email": "sandbox@example.com",
    "hostname": "sandbox.example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uuid": "5a4d0b0c-5a4d-4b0c-8a4d-5a4d0b0c5a4d",
    "uri": "https://sandbox.example.com/",
    "uri-reference": "/sandbox",
    "iri": "https://sandbox.example.com/",
    "json-pointer": "/sandbox",
    "regex": "sandbox",
}


class Unfittable(ValueError):
    """No value was found that fits; the text says where in the schema."""


class Maker:
    """Builds one value; `depth` beyond DEEP leaves out whatever the schema lets it leave out."""

    def __init__(self, root: Any, seed: int) -> None:
        self.root = root
        self.random = Random(seed)  # noqa: S311 - answers, not secrets

    def value(self, schema: Any, depth: int = 0) -> Any:
        if depth > 40:
            raise Unfittable("the schema never ends")
        if schema is True or schema == {}:
            return MARK
        if not isinstance(schema, dict):
            raise Unfittable(f"nothing fits the schema {schema!r}")
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            if not schema["enum"]:
                raise Unfittable("an empty enum")
            return self.random.choice(schema["enum"])
        if "$ref" in schema:
            rest = {key: val for key, val in schema.items() if key != "$ref"}
            return self.value(merged(self.resolve(schema["$ref"]), rest), depth + 1)
        for many in ("allOf", "anyOf", "oneOf"):
            if schema.get(many):
                return self.combined(schema, many, depth)
        return self.of_type(self.type_of(schema, depth), schema, depth)

    def resolve(self, ref: str) -> Any:
        if not ref.startswith("#"):
            raise Unfittable(f"$ref {ref!r} is not inside the schema")
        at = self.root
        for step in ref[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            try:
                at = at[int(step)] if isinstance(at, list) else at[step]
            except (KeyError, IndexError, ValueError, TypeError):
                raise Unfittable(f"$ref {ref!r} names nothing") from None
        return at

    def combined(self, schema: dict[str, Any], many: str, depth: int) -> Any:
        base = {key: val for key, val in schema.items() if key != many}
        if many == "allOf":
            for part in schema[many]:
                base = merged(base, self.resolve(part["$ref"]) if "$ref" in part else part)
            return self.value(base, depth + 1)
        choices = list(schema[many])
        if depth > DEEP:
            choices.sort(key=lambda part: "$ref" in str(part))
        else:
            self.random.shuffle(choices)
        trouble: Unfittable | None = None
        for part in choices:
            try:
                return self.value(merged(base, part), depth + 1)
            except Unfittable as error:
                trouble = error
        raise trouble or Unfittable(f"an empty {many}")

    def type_of(self, schema: dict[str, Any], depth: int) -> str:
        named = schema.get("type")
        if isinstance(named, list):
            plain = [name for name in named if name != "null"]
            return "null" if not plain or (depth > DEEP and "null" in named) else str(self.random.choice(plain))
        if named is not None:
            return str(named)
        hints = {
            "object": ("properties", "required"),
            "array": ("items", "prefixItems", "minItems"),
            "string": ("pattern", "format", "minLength", "maxLength"),
            "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        }
        return next((kind for kind, keys in hints.items() if any(key in schema for key in keys)), "string")

    def of_type(self, kind: str, schema: dict[str, Any], depth: int) -> Any:
        match kind:
            case "null":
                return None
            case "boolean":
                return self.random.random() < 0.5
            case "integer" | "number":
                return self.number(schema, kind == "integer")
            case "string":
                return self.string(schema)
            case "array":
                return self.array(schema, depth)
            case "object":
                return self.object(schema, depth)
        raise Unfittable(f"unknown type {kind!r}")

    def number(self, schema: dict[str, Any], whole: bool) -> float | int:
        step = schema.get("multipleOf", 1 if whole else None)
        low, high = schema.get("minimum"), schema.get("maximum")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        if step is None and above is None and below is None:
            low = low if low is not None else (high - 10 if high is not None else 0)
            high = high if high is not None else low + 10
            if low > high:
                raise Unfittable(f"no number between {low} and {high}")
            return low if low == high else min(high, max(low, round(self.random.uniform(low, high), 3)))
        if step is None:
            return _between(low, high, above, below)
        if whole and step != int(step):
            step = step * 10 ** len(str(step).partition(".")[2])
        floor = max([bound for bound in (low, above) if bound is not None], default=None)
        roof = min([bound for bound in (high, below) if bound is not None], default=None)
        start = floor if floor is not None else (roof - 20 * step if roof is not None else 0)
        first = math.ceil(start / step) + (above is not None and math.ceil(start / step) * step <= above)
        last = (
            first + 20
            if roof is None
            else math.floor(roof / step) - (below is not None and math.floor(roof / step) * step >= below)
        )
        if last < first:
            raise Unfittable(f"no multiple of {step} between the bounds")
        found = self.random.randint(first, min(last, first + 100)) * step
        return int(found) if whole else found

    def string(self, schema: dict[str, Any]) -> str:
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
        if longest is not None and longest < shortest:
            raise Unfittable(f"no string of {shortest} to {longest} characters")
        if "pattern" in schema:
            try:
                return patterns.match(schema["pattern"], shortest)
            except ValueError as error:
                raise Unfittable(str(error)) from error
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        text = f"{MARK} {self.random.choice(('signal', 'points', 'siding', 'wagon', 'platform', 'timetable'))}"
        return text.ljust(shortest, ".")[:longest]

    def array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        heads = schema.get("prefixItems", [])
        rest = schema.get("items", not heads)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most is not None and most < least:
            raise Unfittable(f"no array of {least} to {most} items")
        wanted = least if depth > DEEP else max(least, len(heads), self.random.randint(1, 3))
        wanted = wanted if most is None else min(wanted, most)
        found: list[Any] = []
        for tries in range(wanted * 20):
            if len(found) == wanted or (rest is False and len(found) >= len(heads)):
                break
            item = self.value(heads[len(found)] if len(found) < len(heads) else rest, depth + 1)
            if schema.get("uniqueItems") and item in found:
                item = f"{item} {tries}" if isinstance(item, str) and _free(rest) else item
                if item in found:
                    continue
            found.append(item)
        if len(found) < least:
            raise Unfittable(f"found {len(found)} of {least} items")
        return found

    def object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", [])
        made: dict[str, Any] = {}
        for name, part in schema.get("properties", {}).items():
            if name in required:
                made[name] = self.value(part, depth + 1)
            elif depth <= DEEP and part is not False and len(made) < schema.get("maxProperties", 10**6):
                try:
                    made[name] = self.value(part, depth + 1)
                except Unfittable:
                    continue
        extra = schema.get("additionalProperties", True)
        for name in [name for name in required if name not in made]:
            made[name] = self.value(extra, depth + 1)
        number = 0
        while len(made) < schema.get("minProperties", 0):
            made[f"sandbox_{number}"] = self.value(extra, depth + 1)
            number += 1
        return made


def _free(schema: Any) -> bool:
    return isinstance(schema, dict) and not any(
        key in schema for key in ("pattern", "format", "enum", "const", "maxLength")
    )


def _between(low: float | None, high: float | None, above: float | None, below: float | None) -> float:
    floor = max([bound for bound in (low, above) if bound is not None], default=None)
    roof = min([bound for bound in (high, below) if bound is not None], default=None)
    floor = floor if floor is not None else (roof - 2 if roof is not None else 0)
    roof = roof if roof is not None else floor + 2
    middle = (floor + roof) / 2
    if floor > roof or (above is not None and middle <= above) or (below is not None and middle >= below):
        raise Unfittable(f"no number between {floor} and {roof}")
    return middle


def merged(one: Any, other: Any) -> Any:
    """Both schemas at once: properties and required are joined, of bounds the tighter is not sought (best effort)."""
    if one is True or other is False:
        return other
    if other is True or one is False:
        return one
    both = {**one, **other}
    if "properties" in one and "properties" in other:
        both["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        both["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    for name in ("$defs", "definitions", "title", "description"):
        if name in one and name not in other:
            both[name] = one[name]
    return both


def instance(schema: Any, seed: int) -> Any:
    """A value that fits; Unfittable says why there is none (or none that this finds)."""
    return Maker(schema, seed).value(schema)


def strict_fault(schema: Any, where: tuple[str, ...] = ()) -> str | None:
    """Why OpenAI would refuse the schema in strict mode, in its own words; None if it would not."""
    if not isinstance(schema, dict):
        return None
    if not where and schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {schema.get('type')!r}'."
    if schema.get("type") == "object":
        place = "(" + ", ".join(map(repr, where)) + ("," if len(where) == 1 else "") + ")"
        if schema.get("additionalProperties") is not False:
            return f"In context={place}, 'additionalProperties' is required to be supplied and to be false."
        names = schema.get("properties", {})
        lacking = next((name for name in names if name not in schema.get("required", [])), None)
        if lacking is not None:
            return (
                f"In context={place}, 'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{lacking}'."
            )
    for key in ("properties", "$defs", "definitions"):
        for name, part in schema.get(key, {}).items():
            if fault := strict_fault(part, (*where, key, name)):
                return fault
    parts = [("items", schema.get("items"))] + [("anyOf", part) for part in schema.get("anyOf", [])]
    return next((fault for key, part in parts if (fault := strict_fault(part, (*where, key)))), None)
