"""A body of the Responses API as a chat body; what chat has no word for is refused by name. No I/O."""

from collections.abc import Iterator, Mapping
from typing import Any

from router.web.errors import HTTPError

_NOT_PASSED_ON = ("input", "instructions", "text", "reasoning", "max_output_tokens", "tools", "tool_choice", "store",
                  "background", "background_options", "stream", "stream_options", "include", "truncation",
                  "previous_response_id", "service_tier", "conversation", "prompt", "max_tool_calls",
                  "top_logprobs")  # fmt: skip
_SAME = ("metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "temperature", "tool_choice",
         "top_p", "user")  # fmt: skip
REPEATED = (*_SAME, "instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "reasoning",
            "store", "text", "tools", "top_logprobs", "truncation")  # fmt: skip
_LIKELY = "message.output_text.logprobs"
_TEXT = ("input_text", "output_text", "text")


def chat_body(body: Mapping[str, Any], before: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat body; `before` are the messages of the response that it goes on from. HTTPError when it is bad."""
    for name in ("conversation", "prompt"):
        if body.get(name) is not None:
            raise _refuse(f"{name} is not kept here: send the messages themselves", name)
    messages = [*before, *_messages(body.get("input"))]
    if instructions := body.get("instructions"):
        messages.insert(0, {"role": "system", "content": instructions})
    made = {name: value for name, value in body.items() if name not in _NOT_PASSED_ON and value is not None}
    made |= {"messages": messages}
    if (cap := body.get("max_output_tokens")) is not None:
        made["max_tokens"] = cap
    _text(body.get("text"), made)
    if isinstance(reasoning := body.get("reasoning"), Mapping) and reasoning.get("effort") is not None:
        made["reasoning_effort"] = reasoning["effort"]
    _tools(body, made)
    if _LIKELY in _included(body.get("include")):
        made |= {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}
    return made


def unsaid(said: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Of the fields that a response repeats, those that its chat body does not tell; its instructions are there."""
    left = {name: value for name, value in said.items() if known.get(name) != value}
    return left | ({"instructions": True} if left.get("instructions") else {})


def repeated(body: Mapping[str, Any], kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a body that its response repeats, from the chat body that was made of it and what was `unsaid`."""
    said = {name: body[name] for name in _SAME if body.get(name) is not None}
    if (cap := body.get("max_tokens")) is not None:
        said["max_output_tokens"] = cap
    if tools := body.get("tools"):
        said["tools"] = [_flat(tool) for tool in tools]
    if isinstance(choice := body.get("tool_choice"), Mapping):
        said["tool_choice"] = _flat(choice)
    if wanted := body.get("response_format"):
        schema = wanted.get("json_schema")
        said["text"] = {"format": {"type": wanted.get("type"), **(schema if isinstance(schema, Mapping) else {})}}
    said |= kept or {}
    if said.get("instructions") is True:
        said["instructions"] = body["messages"][0]["content"]
    return said


def _flat(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    return {"type": "function", **function} if isinstance(function, Mapping) else dict(tool)


def _included(include: Any) -> list[Any]:
    """What else is wanted of the answer; what is no part of any answer here is not missed."""
    if include is not None and not isinstance(include, list):
        raise HTTPError(400, "include must be a list", code="invalid_request", param="include")
    return include or []


def _refuse(said: str, param: str) -> HTTPError:
    return HTTPError(400, said, code="unsupported", param=param)


def _text(text: Any, made: dict[str, Any]) -> None:
    if not isinstance(text, Mapping):
        return
    if (verbosity := text.get("verbosity")) is not None:
        made["verbosity"] = verbosity
    wanted = text.get("format")
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
        inner = {name: value for name, value in wanted.items() if name != "type"}
        made["response_format"] = {"type": "json_schema", "json_schema": inner}
    elif isinstance(wanted, Mapping) and wanted.get("type") == "json_object":
        made["response_format"] = {"type": "json_object"}


def _tools(body: Mapping[str, Any], made: dict[str, Any]) -> None:
    tools = body.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise HTTPError(400, "tools must be a list", code="invalid_request", param="tools")
    if tools:
        made["tools"] = [_tool(tool) for tool in tools]
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    if choice is not None and tools:
        made["tool_choice"] = choice


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, Mapping) else tool
        raise _refuse(f"only tools of the type function are known here, not {kind!r}", "tools")
    function = {name: value for name, value in tool.items() if name != "type" and value is not None}
    return {"type": "function", "function": function}


def _messages(given: Any) -> Iterator[dict[str, Any]]:
    if isinstance(given, str):
        yield {"role": "user", "content": given}
        return
    if not isinstance(given, list):
        raise HTTPError(400, "input must be text or a list of items", code="invalid_request", param="input")
    calls: list[dict[str, Any]] = []
    for item in given:
        if not isinstance(item, Mapping):
            raise HTTPError(400, "an item of input must be an object", code="invalid_request", param="input")
        if item.get("type") == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
            calls.append({"id": item.get("call_id"), "type": "function", "function": function})
            continue
        if calls:
            yield {"role": "assistant", "content": None, "tool_calls": calls}
            calls = []
        yield from _message(item)
    if calls:
        yield {"role": "assistant", "content": None, "tool_calls": calls}


def _message(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    match item.get("type", "message"):
        case "message":
            yield {"role": item.get("role"), "content": _content(item.get("content"))}
        case "function_call_output":
            output = item.get("output")
            said = output if isinstance(output, str) else _content(output)
            yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": said}
        case "reasoning":
            return
        case kind:
            raise _refuse(f"items of the type {kind!r} are not known here", "input")


def _content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    parts = [_part(part) for part in content]
    return parts[0]["text"] if len(parts) == 1 and parts[0].get("type") == "text" else parts


def _part(part: Any) -> dict[str, Any]:
    """A part under chat's name for it; one that has none is passed on as it is."""
    if not isinstance(part, Mapping):
        raise HTTPError(400, "a part of a message must be an object", code="invalid_request", param="input")
    kind = part.get("type")
    if kind in _TEXT:
        return {"type": "text", "text": part.get("text")}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if kind == "input_image" and part.get("image_url"):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file":
        return {"type": "file", "file": {name: value for name, value in part.items() if name != "type"}}
    return dict(part)
