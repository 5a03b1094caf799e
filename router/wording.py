"""How long the answer will be, from the wording and the form of a request. Pure, and English; a prior, not a promise.

What is said outright comes first: the fields of a schema, "in one word", "300 words" (`router.wording_stated`). Else
the learned weights speak (`router.wording_weights`), by what the wording asks for (`router.wording_cues`).
"""

from collections.abc import Mapping
from math import exp
from typing import Any

from jobs.chat import Request
from router.lengths import Z90, Seen, from_history
from router.wording_cues import read
from router.wording_stated import echoes, stated
from router.wording_weights import SHIPPED, Weights

# How far the 0.9 quantile is from the median, in standard deviations of the logarithm, where no weights were asked.
STATED_SPREAD, ECHO_SPREAD, SCHEMA_SPREAD = 0.5, 0.7, 0.35

DEEPEST = 8  # tables in tables of a schema; below, a guess will do


def output_tokens(
    request: Request, sent: float, weights: Weights = SHIPPED, seen: Seen | None = None
) -> tuple[float, float]:
    """The median and the 0.9 quantile of the answer's tokens.

    `sent` is what the request itself has, `seen` the earlier answers of its template on its model.
    """
    p50, spread = _expected(request, sent, weights)
    p90 = p50 * exp(spread * Z90)
    if seen is not None:
        p50, p90 = from_history((p50, p90), seen)
    choices, cap = _choices(request), _cap(request)
    p50, p90 = p50 * choices, p90 * choices
    if cap is None:
        return p50, p90
    most = cap * choices
    return min(p50, most), min(p90, most)


def cap_of(request: Request) -> int | None:
    """The most tokens that all choices together can have, or None."""
    cap = _cap(request)
    return None if cap is None else cap * _choices(request)


def _cap(request: Request) -> int | None:
    cap = request.max_tokens or request.params.get("max_completion_tokens")
    return cap if isinstance(cap, int) else None


def _choices(request: Request) -> int:
    choices = request.params.get("n", 1)
    return choices if isinstance(choices, int) and choices > 0 else 1


def _expected(request: Request, sent: float, weights: Weights) -> tuple[float, float]:
    if request.response_format or request.tools:
        schema = request.schema_ or (_tool_schema(request) if request.forced_tool else None)
        if schema is not None:
            return schema_tokens(schema), SCHEMA_SPREAD
    system, prompt = _instruction(request)
    reading = read(prompt.strip(), system)
    tokens = stated(reading.plain, reading.known)
    if tokens is not None:
        return tokens, STATED_SPREAD
    return (sent, ECHO_SPREAD) if echoes(reading.known, sent) else weights.expect(reading)


def _instruction(request: Request) -> tuple[str, str]:
    """What the system was told, and the last words of the user: where the wish for a length stands."""
    first, last = request.messages[0], request.messages[-1]
    if last.role != "user":
        last = next((turn for turn in reversed(request.messages) if turn.role == "user"), last)
    if first.role in ("system", "developer") and first is not last:
        return _text(first.content), _text(last.content)
    return "", _text(last.content)


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, str):
        return content
    return " ".join([part["text"] for part in content or () if isinstance(part.get("text"), str)])


def _tool_schema(request: Request) -> Mapping[str, Any] | None:
    """The parameters of the tool that must be called; of the first one where the model may pick."""
    name = _mapping(_mapping(request.tool_choice).get("function")).get("name")
    functions = [_mapping(tool.get("function")) for tool in request.tools or ()]
    chosen = next((function for function in functions if function.get("name") == name), functions[0])
    parameters = chosen.get("parameters")
    return parameters if isinstance(parameters, dict) else None


def _mapping(value: object) -> Mapping[str, Any]:
    """What should be a table; requests may hold anything there."""
    return value if isinstance(value, dict) else {}


def schema_tokens(schema: Mapping[str, Any], depth: int = 0) -> float:
    """Tokens of a JSON value that fits the schema: the sum of its fields."""
    if depth > DEEPEST:
        return 10.0
    if "enum" in schema or "const" in schema:
        return 4.0
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        fields = _mapping(schema.get("properties")).values()
        return 3.0 + sum([5.0 + schema_tokens(_mapping(field), depth + 1) for field in fields])
    if kind == "array":
        return 2.0 + 3.0 * schema_tokens(_mapping(schema.get("items")), depth + 1)
    return {"boolean": 1.0, "integer": 2.0, "number": 3.0, "null": 1.0}.get(str(kind), 14.0)
