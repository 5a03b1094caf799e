"""A Request in Anthropic's Messages form; what cannot be said there is refused by name. No I/O."""

from collections.abc import Mapping
from typing import Any

from jobs.chat import Message, Request
from jobs.errors import Permanent
from jobs.providers.answers import decode_exactly, text_of

MAX_TOKENS = 4096  # the API wants a cap; this one fits every model, and a longer answer ends as truncated
GONE = {"temperature", "top_p", "top_k"}  # refused since API version 2026-10-21, even at their defaults
UNKNOWN_THERE = {
    *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "modalities"),
    *("prediction", "presence_penalty", "seed", "top_logprobs", "verbosity", "web_search_options"),
}  # they would change the answer, so that dropping them in silence would be a lie
DROPPED = {
    *("stream", "stream_options", "service_tier", "store", "n", "prompt_cache_key", "prompt_cache_retention"),
    *("prompt_cache_options", "safety_identifier", "max_completion_tokens", "moderation"),
}  # they change no word of the answer
CHOICES = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}


def refuse(what: str, instead: str) -> Permanent:
    """An error for a request that Anthropic has no word for."""
    return Permanent(f"Anthropic's API has no {what}: {instead}", code="unsupported_parameter")


def params_of(request: Request, *, tier: str = "default", stream: bool = False) -> dict[str, Any]:
    """The Messages parameters of a request; Permanent when one of its parameters does not exist there.

    Parameters that OpenAI does not know (`thinking`, `cache_control` ...) are passed on as they are.
    """
    _check(request, tier)
    params = {name: value for name, value in request.params.items() if name not in DROPPED}
    cap = request.max_tokens or request.params.get("max_completion_tokens") or MAX_TOKENS
    params |= {"model": request.model, "max_tokens": cap, "messages": _turns(request)}
    _rename(params)
    _tools(request, params)
    if system := _system(request):
        params["system"] = system
    if schema := request.schema_:
        form = {"type": "json_schema", "schema": schema}
        params["output_config"] = {**(params.get("output_config") or {}), "format": form}
    if tier == "fast":
        params["speed"] = "fast"
    return {**params, "stream": True} if stream else params


def _check(request: Request, tier: str) -> None:
    for name in request.params:
        if name in GONE or name in UNKNOWN_THERE:
            raise refuse(f"parameter {name}", "leave it out or choose another model")
    if request.params.get("n") not in (None, 1):
        raise refuse("parameter n", "ask once for each answer")
    wanted = (request.response_format or {}).get("type")
    if wanted not in (None, "text") and not request.schema_:
        raise refuse(f"response_format {wanted} without a schema", "give a json_schema")
    if tier == "flex":
        raise refuse("flex tier", "use the batch lane or the default tier")


def _rename(params: dict[str, Any]) -> None:
    """OpenAI's names for what Anthropic has under another one."""
    stop, user = params.pop("stop", None), params.pop("user", None)
    effort, metadata = params.pop("reasoning_effort", None), params.pop("metadata", None)
    if stop:
        params["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if user or (isinstance(metadata, dict) and "user_id" in metadata):
        params["metadata"] = {"user_id": user or metadata["user_id"]}  # any other tag is OpenAI's own
    if effort:
        params["output_config"] = {**(params.get("output_config") or {}), "effort": effort}


def _tools(request: Request, params: dict[str, Any]) -> None:
    parallel = params.pop("parallel_tool_calls", None)
    if request.tools:
        params["tools"] = [_tool(tool) for tool in request.tools]
    choice = _choice(request.tool_choice)
    if parallel is False and request.tools and (choice or {}).get("type") != "none":
        choice = {**(choice or CHOICES["auto"]), "disable_parallel_tool_use": True}
    if choice:
        params["tool_choice"] = choice


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)  # one of Anthropic's own
    named = {
        "name": function.get("name"),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    kept = {name: function[name] for name in ("description", "strict") if function.get(name) is not None}
    return {**named, **kept}


def _choice(choice: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if isinstance(choice, str):
        if choice not in CHOICES:
            raise refuse(f"tool_choice {choice!r}", "use auto, none, required or a function")
        return dict(CHOICES[choice])
    if choice is None or "function" not in choice:
        return choice
    return {"type": "tool", "name": choice["function"].get("name")}


def _system(request: Request) -> str | list[dict[str, Any]]:
    """The system and developer turns, lifted; blocks when one of them has blocks."""
    turns = [m.content for m in request.messages if m.role in ("system", "developer") and m.content]
    if all(isinstance(turn, str) for turn in turns):
        return "\n\n".join(map(str, turns))
    return [block for turn in turns for block in _blocks(turn)]


def _turns(request: Request) -> list[dict[str, Any]]:
    """The conversation; the results of parallel calls, and what the user says next, are one turn."""
    turns: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role in ("system", "developer"):
            continue
        turn = _turn(message)
        last = turns[-1] if turns else None
        if last and last["role"] == turn["role"] == "user" and _holds_results(last):
            last["content"] += turn["content"] if isinstance(turn["content"], list) else _blocks(turn["content"])
        else:
            turns.append(turn)
    return turns


def _holds_results(turn: Mapping[str, Any]) -> bool:
    return isinstance(turn["content"], list) and bool(turn["content"]) and turn["content"][0]["type"] == "tool_result"


def _turn(message: Message) -> dict[str, Any]:
    extra = message.model_extra or {}
    if message.role == "function" or extra.get("function_call"):
        raise refuse("function turns", "use tool calls and tool turns")
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": extra.get("tool_call_id")}
        if message.content:
            result["content"] = message.content if isinstance(message.content, str) else _blocks(message.content)
        return {"role": "user", "content": [result]}
    calls = extra.get("tool_calls") or []
    said = message.content or text_of(extra.get("refusal"))
    if not calls:
        return {"role": message.role, "content": said if isinstance(said, str) else _blocks(said)}
    return {"role": message.role, "content": [*_blocks(said), *(_use(call) for call in calls)]}


def _use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        given = decode_exactly(function.get("arguments") or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise refuse(f"place for tool call {call.get('id')}, whose arguments are no JSON object", "mend that turn")
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _blocks(content: Any) -> list[dict[str, Any]]:
    if not content:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_block(part) for part in content]


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal") or ""}
    if kind in ("input_audio", "file"):
        raise refuse(f"content part {kind}", "send text, images or Anthropic's own blocks")
    if kind != "image_url":
        return dict(part)
    given = part.get("image_url")
    url = str(given.get("url") if isinstance(given, Mapping) else given)
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}
