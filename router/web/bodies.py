"""The bodies of requests as the OpenAPI document has them. They are checked elsewhere: what is unknown is passed on.

What is given here is what this gateway itself reads.
"""

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_YES: Schema = {"type": "boolean"}
_ANY: Schema = {"type": "object", "additionalProperties": True}
_CAP: Schema = {"type": "integer", "minimum": 1, "maximum": 10_000_000}
_METADATA: Schema = {"type": "object", "additionalProperties": _TEXT, "maxProperties": 16}
_ON_LEAVE: Schema = {"enum": ["cancel", "drain", "continue"]}


def _content(*kinds: str) -> Schema:
    """Words, or parts of these types."""
    part = {"type": "object", "properties": {"type": {"enum": [*kinds]}, "text": _TEXT}, "required": ["type", "text"]}
    return {"anyOf": [_TEXT, {"type": "array", "items": part, "minItems": 1}]}


_MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
        "content": {"anyOf": [_content("text"), {"type": "null"}]},
        "tool_call_id": _TEXT,
        "tool_calls": {"type": "array", "items": _ANY},
    },
    "required": ["role"],
}
_MESSAGES: Schema = {"type": "array", "items": _MESSAGE, "minItems": 1}
_FUNCTION: Schema = {"name": _TEXT, "description": _TEXT, "parameters": _ANY, "strict": _YES}
_TOOL: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "properties": _FUNCTION, "required": ["name"]},
    },
    "required": ["type", "function"],
}
_SAID: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "message"},
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": _content("input_text", "output_text"),
    },
    "required": ["role", "content"],
}
_CALLED: Schema = {
    "type": "object",
    "properties": {"type": {"const": "function_call_output"}, "call_id": _TEXT, "output": _TEXT},
    "required": ["type", "call_id", "output"],
}


def _body(required: list[str], **properties: Schema) -> Schema:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": True}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


CHAT = _body(
    ["messages"],
    model=_TEXT,
    messages=_MESSAGES,
    stream=_YES,
    stream_options={"type": "object", "properties": {"include_usage": _YES}},
    max_tokens=_CAP,
    max_completion_tokens=_CAP,
    n={"type": "integer", "minimum": 1, "maximum": 128},
    temperature={"type": "number", "minimum": 0, "maximum": 2},
    logprobs=_YES,
    top_logprobs={"type": "integer", "minimum": 0, "maximum": 20},
    tools={"type": "array", "items": _TOOL},
    tool_choice={"anyOf": [{"enum": ["none", "auto", "required"]}, _ANY]},
    response_format={
        "type": "object",
        "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}, "json_schema": _ANY},
        "required": ["type"],
    },
    metadata=_METADATA,
)
RESPONSE = _body(
    ["input"],
    model=_TEXT,
    input={"anyOf": [_TEXT, {"type": "array", "items": {"anyOf": [_SAID, _CALLED]}, "minItems": 1}]},
    instructions=_TEXT,
    stream=_YES,
    background=_YES,
    background_options={"type": "object", "properties": {"completion_window": {"enum": ["soonest", "2h", "8h"]}}},
    max_output_tokens=_CAP,
    previous_response_id=_TEXT,
    text={"type": "object", "properties": {"format": _ANY, "verbosity": _TEXT}},
    tools={"type": "array", "items": {"type": "object", "properties": {"type": {"const": "function"}, **_FUNCTION}}},
    tool_choice={"anyOf": [{"enum": ["none", "auto", "required"]}, _ANY]},
    reasoning={"type": "object", "properties": {"effort": _TEXT}},
    include={"type": "array", "items": _TEXT},
    top_logprobs={"type": "integer", "minimum": 0, "maximum": 20},
    metadata=_METADATA,
)
BATCH = _body(
    ["input_file_id", "endpoint", "completion_window"],
    input_file_id=_TEXT,
    endpoint={"enum": ["/v1/chat/completions", "/v1/responses"]},
    completion_window={"const": "24h"},
    metadata=_METADATA,
    output_expires_after={
        "type": "object",
        "properties": {
            "anchor": {"const": "created_at"},
            "seconds": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
        },
        "required": ["anchor", "seconds"],
    },
)
PAGE_CHAT = _body(
    [],
    message=_TEXT,
    messages=_MESSAGES,
    model=_TEXT,
    conversation=_TEXT,
    retry=_YES,
    job={"type": "string", "description": "with retry: the answer that is to be replaced, lest it be a later one"},
    key={"type": "string", "minLength": 1, "maxLength": 400},
    on_leave=_ON_LEAVE,
    system=_TEXT,
    max_tokens=_CAP,
)
LOGIN = _body(["token"], token=_TEXT)
FILE: Schema = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "purpose": {"enum": ["batch", "user_data", "assistants", "fine-tune", "vision", "evals"]},
                        "file": {"type": "string", "format": "binary"},
                    },
                    "required": ["purpose", "file"],
                }
            }
        },
    }
}
