"""OpenAI Responses: the request read, the answer whole and as a stream (pure)."""

from collections.abc import Iterator
from typing import Any

from jobs.sandbox import models, tokens
from jobs.sandbox.answers import Answer, Ask, ToolCall
from jobs.sandbox.bill import Usage
from jobs.sandbox.checks import cap_of, content, flag, functions, metadata, named_choice, options, output_schema
from jobs.sandbox.errors import invalid, missing, wrong_type
from jobs.sandbox.frames import Frame, Tag, named

ROLES = ("system", "assistant", "user", "developer")
Event = tuple[Tag, str, dict[str, Any]]
WINDOWS = ("soonest", "2h", "8h")


def read(body: dict[str, Any]) -> Ask:
    """The request as an Ask; ApiError as OpenAI's own where it would refuse."""
    model = models.check(body.get("model"))
    prompt, last, last_role, size = conversation(body.get("input"), body.get("instructions"))
    schema, json_object, bulk = output_schema(options(body, "text").get("format"), "text.format")
    tools = functions(body.get("tools"), nested=False)
    choice = named_choice(body.get("tool_choice"), tools, nested=False)
    metadata(body.get("metadata"))
    if "max_tokens" in body:
        raise invalid(
            "Unsupported parameter: 'max_tokens'. In the Responses API, this parameter has moved to "
            "'max_output_tokens'.",
            "max_tokens",
            "unsupported_parameter",
        )
    _window(body)
    return Ask(
        "responses",
        model,
        prompt,
        last,
        last_role == "user",
        size + tokens.of_json(body.get("tools")) + bulk,
        cap=cap_of(body, "max_output_tokens"),
        schema=schema,
        json_object=json_object,
        tools=tools,
        tool_choice=choice,
        parallel=body.get("parallel_tool_calls") is not False,
        stream=flag(body, "stream"),
        tier=models.served_tier(body.get("service_tier"), model),
    )


def window_of(body: dict[str, Any]) -> str:
    """When a response in the background is wanted."""
    return str(options(body, "background_options").get("completion_window") or "soonest")


def _window(body: dict[str, Any]) -> None:
    """Refuse a window that there is not, and a discounted one beside what it does not go with."""
    window, where = window_of(body), "background_options.completion_window"
    if window not in WINDOWS:
        raise invalid(
            f"Invalid value: '{window}'. Supported values are: 'soonest', '2h', and '8h'.", where, "invalid_value"
        )
    background, stream = flag(body, "background"), flag(body, "stream")
    if window == "soonest":
        return
    if not background:
        raise invalid(f"The '{window}' completion window requires 'background' to be true.", where)
    if stream:
        raise invalid(f"The '{window}' completion window does not support 'stream'.", "stream")
    if body.get("service_tier") not in (None, "auto", "default"):
        raise invalid(f"The '{window}' completion window requires Standard processing.", "service_tier")


def conversation(given: Any, instructions: Any) -> tuple[str, str, str, int]:
    """All text, the last item's text and role, and the input tokens."""
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise wrong_type("input", "a string or an array of input items", given)
    if not given:
        raise invalid("Invalid 'input': empty array. Expected at least one item.", "input", "empty_array")
    size = tokens.REQUEST_FRAME
    texts: list[str] = []
    role = ""
    if isinstance(instructions, str):
        texts.append(instructions)
        size += tokens.MESSAGE_FRAME + tokens.of_text(instructions)
    for at, item in enumerate(given):
        role, text, images = _item(item, f"input[{at}]")
        size += tokens.MESSAGE_FRAME + tokens.of_text(text) + images * tokens.IMAGE
        texts.append(text)
    return "\0".join(texts), texts[-1], role, size


def _item(item: Any, where: str) -> tuple[str, str, int]:
    if not isinstance(item, dict):
        raise wrong_type(where, "an object", item)
    kind = item.get("type", "message")
    if kind == "message":
        role = item.get("role")
        if role not in ROLES:
            raise invalid(
                f"Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', and 'user'.",
                f"{where}.role",
                "invalid_value",
            )
        return str(role), *content(item.get("content"), f"{where}.content")
    text = item.get("output") or item.get("arguments") or ""
    return str(kind), text if isinstance(text, str) else content(text, where)[0], 0


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def status_of(made: Answer) -> str:
    return "incomplete" if made.finish in ("length", "content_filter") else "completed"


def whole(
    ask: Ask, body: dict[str, Any], made: Answer, usage: Usage | None, ident: str, created: int
) -> dict[str, Any]:
    """The finished response object."""
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    done = shell(ask, body, ident, created, status_of(made))
    done["output"] = [_finished(item, made, at) for at, item in enumerate(items(made, ident))]
    done["completed_at"] = created if done["status"] == "completed" else None
    done["incomplete_details"] = {"reason": reasons[made.finish]} if made.finish in reasons else None
    done["usage"] = usage_body(usage) if usage is not None else None
    return done


def shell(ask: Ask, body: dict[str, Any], ident: str, created: int, status: str) -> dict[str, Any]:
    """The response object before there is any output."""
    return {
        "id": f"resp_{ident}",
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": ask.model,
        "output": [],
        "parallel_tool_calls": ask.parallel,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": ask.tier,
        "background": bool(body.get("background")),
        "store": body.get("store", True) is not False,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": body.get("metadata") or {},
    }


def items(made: Answer, ident: str) -> list[dict[str, Any]]:
    """The output items as they are when added: a message if there is text or nothing else, then the function calls."""
    found: list[dict[str, Any]] = []
    if made.pieces or not made.calls:
        found.append(
            {"id": f"msg_{ident}", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        )
    for at, call in enumerate(made.calls):
        found.append(
            {
                "id": f"fc_{ident}_{at}",
                "type": "function_call",
                "status": "in_progress",
                "call_id": f"call_{ident}_{at}",
                "name": call.name,
                "arguments": "",
            }
        )
    return found


def part(made: Answer, text: str) -> dict[str, Any]:
    if made.finish == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _finished(item: dict[str, Any], made: Answer, at: int) -> dict[str, Any]:
    if item["type"] == "message":
        return {**item, "status": status_of(made), "content": [part(made, made.text)]}
    call = made.calls[at - bool(made.pieces)]
    return {**item, "status": status_of(made), "arguments": call.arguments}


def frames(
    ask: Ask, body: dict[str, Any], made: Answer, usage: Usage | None, ident: str, created: int
) -> Iterator[Frame]:
    """Named events with running sequence numbers; usage only in the terminal one."""
    begun = shell(ask, body, ident, created, "in_progress")
    final = whole(ask, body, made, usage, ident, created)
    parts = [
        (Tag.OPEN, "response.created", {"response": begun}),
        (Tag.OPEN, "response.in_progress", {"response": begun}),
        *_output(made, ident),
        (Tag.DONE, f"response.{final['status']}", {"response": final}),
    ]
    for number, (tag, kind, fields) in enumerate(parts):
        yield Frame(tag, named(kind, {"type": kind, "sequence_number": number, **fields}))


def _output(made: Answer, ident: str) -> Iterator[Event]:
    for at, item in enumerate(items(made, ident)):
        yield Tag.OPEN, "response.output_item.added", {"output_index": at, "item": item}
        place = {"item_id": item["id"], "output_index": at}
        done = _finished(item, made, at)
        if item["type"] == "message":
            yield from _message(made, {**place, "content_index": 0})
        else:
            yield from _call(place, item["name"], made.calls[at - bool(made.pieces)])
        yield Tag.CLOSE, "response.output_item.done", {"output_index": at, "item": done}


def _message(made: Answer, place: dict[str, Any]) -> Iterator[Event]:
    refused = made.finish == "refusal"
    kind, key = ("refusal", "refusal") if refused else ("output_text", "text")
    extra: dict[str, Any] = {} if refused else {"logprobs": []}
    yield Tag.OPEN, "response.content_part.added", {**place, "part": part(made, "")}
    for piece in made.pieces:
        yield Tag.DELTA, f"response.{kind}.delta", {**place, "delta": piece, **extra}
    yield Tag.CLOSE, f"response.{kind}.done", {**place, key: made.text, **extra}
    yield Tag.CLOSE, "response.content_part.done", {**place, "part": part(made, made.text)}


def _call(place: dict[str, Any], name: str, call: ToolCall) -> Iterator[Event]:
    for piece in ("", *call.pieces):
        yield Tag.DELTA, "response.function_call_arguments.delta", {**place, "delta": piece}
    fields = {**place, "name": name, "arguments": call.arguments}
    yield Tag.CLOSE, "response.function_call_arguments.done", fields
