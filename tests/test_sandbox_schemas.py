"""Values made for a schema fit it: hand-picked schemas, and ones that hypothesis makes."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.sandbox import patterns, schemas

PICKED: list[Any] = [
    {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": ["integer", "null"]}},
        "required": ["a", "b"],
    },
    {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 4}},
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 4, "maxItems": 4},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"type": "string"}, "minItems": 12, "uniqueItems": True},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
    {"type": "number", "minimum": 0.1, "maximum": 0.1},
    {"type": "integer", "multipleOf": 7, "minimum": 20, "maximum": 22},
    {"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6},
    {"type": "integer", "maximum": -100},
    {"type": "string", "minLength": 90, "maxLength": 95},
    {"type": "string", "maxLength": 3},
    {"type": "string", "pattern": "^[A-Z]{2}-\\d{4}(_x|_y)?$"},
    {"type": "string", "pattern": "^(red|green)+ [^a-z]*$", "minLength": 8},
    {"anyOf": [{"type": "null"}, {"type": "object", "required": ["k"], "properties": {"k": {"const": 5}}}]},
    {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}]},
    {
        "allOf": [
            {"properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {}}, "required": ["b"]},
        ]
    },
    {
        "$defs": {"leaf": {"type": "boolean"}},
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/leaf"}},
        "required": ["x"],
    },
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["name", "children", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2},
    {"type": "object", "minProperties": 3},
    {"type": "object", "required": ["free"]},
    True,
    {},
]


@pytest.mark.parametrize("schema", PICKED, ids=lambda schema: json.dumps(schema)[:50])
@pytest.mark.parametrize("seed", range(8))
def test_a_made_value_fits(schema: Any, seed: int) -> None:
    jsonschema.Draft202012Validator(schema).validate(schemas.instance(schema, seed))


@pytest.mark.parametrize("name", sorted(schemas.FORMATS))
def test_a_format_is_kept(name: str) -> None:
    schema = {"type": "string", "format": name}
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(schemas.instance(schema, 1))


def leaves() -> st.SearchStrategy[Any]:
    span = st.tuples(st.integers(-50, 50), st.integers(0, 30))
    return st.one_of(
        st.sampled_from([{"type": "string"}, {"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}]),
        span.map(lambda two: {"type": "integer", "minimum": two[0], "maximum": two[0] + two[1]}),
        span.map(lambda two: {"type": "number", "minimum": two[0], "exclusiveMaximum": two[0] + two[1] + 1}),
        span.map(lambda two: {"type": "string", "minLength": two[1], "maxLength": two[1] + 5}),
        st.lists(st.one_of(st.integers(), st.text(max_size=5), st.booleans()), min_size=1).map(
            lambda them: {"enum": them}
        ),
        st.text(max_size=6).map(lambda text: {"const": text}),
    )


def branches(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=4)
    return st.one_of(
        names.map(
            lambda them: {"type": "object", "properties": them, "required": list(them), "additionalProperties": False}
        ),
        names.map(lambda them: {"type": "object", "properties": them, "required": list(them)[:1]}),
        st.tuples(inner, st.integers(0, 3)).map(
            lambda two: {"type": "array", "items": two[0], "minItems": two[1], "maxItems": two[1] + 2}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda them: {"anyOf": them}),
        inner.map(lambda one: {"$defs": {"it": one}, "type": "array", "items": one, "minItems": 1}),
    )


@settings(max_examples=150, deadline=None)
@given(st.recursive(leaves(), branches, max_leaves=12), st.integers(0, 2**32))
def test_any_schema_is_fitted(schema: Any, seed: int) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    made = schemas.instance(schema, seed)
    jsonschema.Draft202012Validator(schema).validate(made)
    assert made == schemas.instance(schema, seed)


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"enum": []},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"type": "string", "minLength": 5, "maxLength": 4},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.com/other"},
        {"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True},
        {"type": "string", "pattern": "(?=x)y("},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_what_nothing_fits_says_so(schema: Any) -> None:
    with pytest.raises(schemas.Unfittable):
        schemas.instance(schema, 1)


def test_a_free_string_says_whose_it_is() -> None:
    assert schemas.instance({"type": "string"}, 3).startswith("[sandbox]")


@pytest.mark.parametrize(
    "pattern", [r"^\d{3}-\d{4}$", r"[a-f0-9]{8}", r"^[^@\s]+@[^@\s]+\.com$", r"a+b*c?", r"^(?:x|yy){2,}\w\W\S\D$"]
)
@pytest.mark.parametrize("shortest", [0, 9])
def test_a_pattern_is_matched(pattern: str, shortest: int) -> None:
    import re

    assert re.search(pattern, patterns.match(pattern, shortest))


def test_strict_mode_refuses_what_openai_refuses() -> None:
    closed = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert schemas.strict_fault(closed) is None
    assert "additionalProperties" in str(schemas.strict_fault({**closed, "additionalProperties": True}))
    assert "Missing 'a'" in str(schemas.strict_fault({**closed, "required": []}))
    assert "type" in str(schemas.strict_fault({"type": "array"}))
    inner = {**closed, "properties": {"a": {"type": "object", "properties": {}}}}
    assert "('properties', 'a')" in str(schemas.strict_fault(inner))
