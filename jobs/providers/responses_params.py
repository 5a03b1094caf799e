"""A Request in OpenAI's Responses form; what cannot be said there is refused by name. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.chat import Message, Request
from jobs.errors import Permanent
from jobs.providers.answers import encode, listed, text_of

RENAMED = ("max_tokens", "max_completion_tokens", "reasoning_effort", "verbosity")
NOT_THE_USERS = ("stream", "stream_options", "service_tier", "n", "messages")  # said by the lane, the tier or `input`
NO_PARAMETERS = {"type": "object", "properties": {}}


def refuse(what: str, instead: str) -> Permanent:
    """An error for a request that the Responses API has no word for."""
    return Permanent(f"the Responses API has no {what}: {instead}, or use the chat API", code="unsupported")


def body_of(request: Request, *, own: bool, tier: str = "default", stream: bool = False) -> dict[str, Any]:
    """The JSON body of a call; `own`: the provider's own address, where every option is known.

    Nothing is stored there unless the request says so. Parameters without another name are passed on unchanged.
    """
    if request.params.get("n") not in (None, 1):
        raise refuse("n", "ask once for each answer")
    if request.params.get("logprobs"):
        said = "how likely each token was is not read from the Responses API: ask without logprobs, or use the chat API"
        raise Permanent(said, code="unsupported")
    body = {name: value for name, value in request.params.items() if name not in (*RENAMED, *NOT_THE_USERS)}
    body |= {"model": request.model, "input": list(_items(request.messages))}
    if body.get("store") is None:
        body["store"] = False
    _rename(request, body)
    _tools(request, body)
    if tier != "default":
        body["service_tier"] = tier
    if stream:
        body |= {"stream": True, **({"stream_options": {"include_obfuscation": False}} if own else {})}
    return body


def _rename(request: Request, body: dict[str, Any]) -> None:
    """What chat completions have under another name or at another place."""
    params = request.params
    if cap := request.max_tokens or params.get("max_completion_tokens"):
        body["max_output_tokens"] = cap
    _put(body, "reasoning", "effort", params.get("reasoning_effort"))
    _put(body, "text", "verbosity", params.get("verbosity"))
    if request.response_format is not None:
        _put(body, "text", "format", _flat(request.response_format, "json_schema"))


def _put(body: dict[str, Any], name: str, key: str, value: Any) -> None:
    if value is not None:
        given = body.get(name)
        body[name] = {**(given if isinstance(given, Mapping) else {}), key: value}


def _flat(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What chat completions keep in an object of its own, beside the type."""
    inner = raw.get(name)
    if not isinstance(inner, Mapping):
        return dict(raw)
    return {**{key: value for key, value in raw.items() if key != name}, **inner}


def _tools(request: Request, body: dict[str, Any]) -> None:
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    choice = request.tool_choice
    if isinstance(choice, dict):
        choice = _named(_flat(choice, "allowed_tools"))
        if isinstance(choice.get("tools"), list):
            choice["tools"] = [_named(tool) if isinstance(tool, dict) else tool for tool in choice["tools"]]
    if choice is not None:
        body["tool_choice"] = choice


def _named(raw: Mapping[str, Any]) -> dict[str, Any]:
    return _flat(_flat(raw, "function"), "custom")


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    flat = _named(tool)
    if isinstance(tool.get("function"), Mapping):  # strict is the default here, and in chat completions it is not
        flat["strict"] = bool(flat.get("strict"))
        flat["parameters"] = flat.get("parameters") or NO_PARAMETERS
    elif isinstance(flat.get("format"), Mapping):
        flat["format"] = _flat(flat["format"], "grammar")
    return flat


def _items(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """The conversation as input items; a custom tool's result has a type of its own."""
    custom: list[Any] = []  # ids, which nobody has checked
    for message in messages:
        extra = message.model_extra or {}
        if message.role == "function" or extra.get("function_call"):
            raise refuse("function turns", "use tool calls and tool turns")
        if message.role == "tool":
            yield _result(message, extra.get("tool_call_id"), custom)
        elif message.role == "assistant":
            calls = [_call(call) for call in listed(extra.get("tool_calls"))]
            custom += [call["call_id"] for call in calls if call["type"] == "custom_tool_call"]
            yield from _said(message, extra, bool(calls))
            yield from calls
        else:
            yield {"type": "message", "role": message.role, "content": _parts(message.content, "input_text")}


def _said(message: Message, extra: Mapping[str, Any], calls: bool) -> Iterator[dict[str, Any]]:
    parts = _parts(message.content, "output_text") if message.content else []
    if refusal := text_of(extra.get("refusal")):
        parts.append({"type": "refusal", "refusal": refusal})
    if parts or not calls:
        phase = {"phase": extra["phase"]} if extra.get("phase") else {}
        content = parts or _parts("", "output_text")
        yield {"type": "message", "role": "assistant", "content": content, **phase}


def _call(raw: Any) -> dict[str, Any]:
    free = isinstance(raw, Mapping) and isinstance(raw.get("custom"), Mapping)
    inner = raw.get("custom" if free else "function") if isinstance(raw, Mapping) else None
    if not isinstance(inner, Mapping):
        raise refuse("tool call without a function", "mend that turn")
    named = {"call_id": raw.get("id"), "name": inner.get("name")}
    if free:
        return {"type": "custom_tool_call", **named, "input": inner.get("input") or ""}
    given = inner.get("arguments") or "{}"
    arguments = given if isinstance(given, str) else encode(given).decode()
    return {"type": "function_call", **named, "arguments": arguments}


def _result(message: Message, call_id: Any, custom: Sequence[Any]) -> dict[str, Any]:
    kind = "custom_tool_call_output" if call_id in custom else "function_call_output"
    content = message.content or ""
    output = content if isinstance(content, str) else _parts(content, "input_text")
    return {"type": kind, "call_id": call_id, "output": output}


def _parts(content: str | Sequence[Mapping[str, Any]] | None, text: str) -> list[dict[str, Any]]:
    if not content or isinstance(content, str):
        return [{"type": text, "text": content or ""}]
    return [_part(part, text) for part in content]


def _part(part: Mapping[str, Any], text: str) -> dict[str, Any]:
    """A part under its name here; one that is not chat's is passed on as it is."""
    match part.get("type"):
        case "text":
            return {**part, "type": text}
        case "image_url":
            given = part.get("image_url")
            image = {"image_url": given.get("url"), "detail": given.get("detail")} if isinstance(given, Mapping) else {}
            flat = {**part, **image, "type": "input_image"}
            return {**flat, "detail": flat.get("detail") or "auto"}
        case "file":
            return {**_flat(part, "file"), "type": "input_file"}
    return dict(part)
