"""Parts of a request that more than one API has, read or refused in OpenAI's words (pure)."""

import re
from typing import Any

from jobs.sandbox import schemas, tokens
from jobs.sandbox.errors import invalid, missing, wrong_type

TEXTS = ("text", "input_text", "output_text", "refusal")
IMAGES = ("image_url", "input_image", "image")
FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def whole_number(body: dict[str, Any], name: str, least: int, most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "an integer", value)
    if value < least:
        raise invalid(
            f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead.",
            name,
            "integer_below_min_value",
        )
    if most is not None and value > most:
        raise invalid(
            f"Invalid '{name}': integer above maximum value. Expected a value <= {most}, but got {value} instead.",
            name,
            "integer_above_max_value",
        )
    return value


def cap_of(body: dict[str, Any], *names: str) -> int | None:
    found = [value for name in names if (value := whole_number(body, name, 1)) is not None]
    if len(found) > 1:
        raise invalid(
            f"Setting '{names[1]}' and '{names[0]}' at the same time is not supported.",
            names[1],
            "invalid_parameter_combination",
        )
    return found[0] if found else None


def flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong_type(name, "a boolean", value)
    return bool(value)


def options(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise wrong_type(name, "an object", value)
    return value or {}


def content(value: Any, where: str, *, may_be_null: bool = False) -> tuple[str, int]:
    """The text of a message's content and how many images are in it."""
    if isinstance(value, str):
        return value, 0
    if value is None:
        if may_be_null:
            return "", 0
        raise invalid(f"Invalid value for '{where}': expected a string, got null.", where)
    if not isinstance(value, list):
        raise invalid(
            f"Invalid type for '{where}': expected a string or an array of objects, but got {type(value).__name__}.",
            where,
            "invalid_type",
        )
    texts, images = [], 0
    for at, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXTS:
            texts.append(str(part.get("text") or part.get("refusal") or ""))
        elif kind in IMAGES:
            images += 1
        elif not isinstance(kind, str):
            raise missing(f"{where}[{at}].type")
    return "\n".join(texts), images


def output_schema(asked: Any, param: str) -> tuple[Any, bool, int]:
    """The schema the answer must fit, whether any JSON object will do, and the tokens the schema costs."""
    if asked is None:
        return None, False, 0
    if not isinstance(asked, dict):
        raise wrong_type(param, "an object", asked)
    match asked.get("type"):
        case "text":
            return None, False, 0
        case "json_object":
            return None, True, 0
        case "json_schema":
            schema = _json_schema(asked.get("json_schema", asked), param)
            return schema, False, tokens.of_json(schema)
    raise invalid(
        f"Invalid value: '{asked.get('type')}'. Supported values are: 'json_object', 'json_schema', and 'text'.",
        f"{param}.type",
        "invalid_value",
    )


def _json_schema(spec: Any, param: str) -> dict[str, Any]:
    if not isinstance(spec, dict):
        raise wrong_type(f"{param}.json_schema", "an object", spec)
    if not isinstance(spec.get("name"), str):
        raise missing(f"{param}.json_schema.name")
    schema = spec.get("schema")
    if schema is None:
        raise missing(f"{param}.json_schema.schema")
    if not isinstance(schema, dict):
        raise wrong_type(f"{param}.json_schema.schema", "an object", schema)
    if spec.get("strict") and (fault := schemas.strict_fault(schema)):
        raise invalid(f"Invalid schema for response_format '{spec['name']}': {fault}", param, "invalid_json_schema")
    return schema


def functions(tools: Any, *, nested: bool) -> dict[str, Any]:
    """Parameter schemas by function name; `nested` is the chat form, else the Responses form."""
    if tools is None:
        return {}
    if not isinstance(tools, list):
        raise wrong_type("tools", "an array of objects", tools)
    found: dict[str, Any] = {}
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise missing(f"tools[{at}].type")
        if tool["type"] != "function":
            continue
        where = f"tools[{at}].function" if nested else f"tools[{at}]"
        spec = tool.get("function") if nested else tool
        if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
            raise missing(f"{where}.name")
        if not FUNCTION_NAME.match(spec["name"]):
            raise invalid(
                f"Invalid '{where}.name': string does not match pattern. Expected a string that matches the pattern "
                "'^[a-zA-Z0-9_-]+$'.",
                f"{where}.name",
                "invalid_value",
            )
        found[spec["name"]] = spec.get("parameters") or {"type": "object", "properties": {}}
    return found


def named_choice(choice: Any, tools: dict[str, Any], *, nested: bool) -> str:
    """`auto`, `none`, `required`, or the name of the one tool that must be called."""
    if choice is None:
        return "auto"
    if not tools:
        raise invalid(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.", "tool_choice"
        )
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise invalid(
                f"Invalid value: '{choice}'. Supported values are: 'none', 'auto', and 'required'.",
                "tool_choice",
                "invalid_value",
            )
        return choice
    spec = choice.get("function", {}) if nested and isinstance(choice, dict) else choice
    name = spec.get("name") if isinstance(spec, dict) else None
    if name not in tools:
        raise invalid(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    return str(name)


def metadata(value: Any) -> dict[str, str] | None:
    """At most 16 pairs, keys to 64 and values to 512 characters, all strings."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_type("metadata", "an object", value)
    if len(value) > 16:
        raise invalid(
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an "
            f"object with {len(value)} properties instead.",
            "metadata",
            "object_above_max_properties",
        )
    for key, text in value.items():
        if not isinstance(text, str):
            raise wrong_type(f"metadata.{key}", "a string", text)
        if len(key) > 64 or len(text) > 512:
            raise invalid(
                f"Invalid 'metadata.{key}': string too long. Keys may have 64 characters and values 512.",
                f"metadata.{key}",
                "string_above_max_length",
            )
    return value
