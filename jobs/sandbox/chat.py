"""OpenAI chat completions: the request read, the answer whole and as a stream (pure)."""

from collections.abc import Iterator
from typing import Any

import orjson

from jobs.sandbox import likely, models, tokens
from jobs.sandbox.answers import Answer, Ask
from jobs.sandbox.bill import Usage, cost_nano_usd
from jobs.sandbox.checks import (
    cap_of,
    content,
    flag,
    functions,
    named_choice,
    options,
    output_schema,
    whole_number,
)
from jobs.sandbox.errors import invalid, missing, wrong_type
from jobs.sandbox.frames import Frame, Tag, unnamed

ROLES = ("system", "assistant", "user", "function", "tool", "developer")
FINGERPRINT = "fp_sandbox"


def read(body: dict[str, Any]) -> Ask:
    """The request as an Ask; ApiError as OpenAI's own where it would refuse."""
    model = models.check(body.get("model"))
    prompt, last, last_role, size = conversation(body.get("messages"))
    schema, json_object, bulk = output_schema(body.get("response_format"), "response_format")
    tools = functions(body.get("tools"), nested=True)
    choice = named_choice(body.get("tool_choice"), tools, nested=True)
    if body.get("max_tokens") is not None and models.REASONING.match(model):
        raise invalid(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        )
    stream = flag(body, "stream")
    stream_options = options(body, "stream_options")
    if stream_options and not stream:
        raise invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    size += tokens.of_json(body.get("tools")) + bulk
    return Ask(
        "chat",
        model,
        prompt,
        last,
        last_role == "user",
        size,
        cap=cap_of(body, "max_completion_tokens", "max_tokens"),
        schema=schema,
        json_object=json_object,
        tools=tools,
        tool_choice=choice,
        parallel=body.get("parallel_tool_calls") is not False,
        choices=whole_number(body, "n", 1, 128) or 1,
        stream=stream,
        include_usage=bool(stream_options.get("include_usage")),
        tier=models.served_tier(body.get("service_tier"), model),
        logprobs=likely.asked(body),
    )


def conversation(messages: Any) -> tuple[str, str, str, int]:
    """All text, the last message's text and role, and the input tokens of the messages."""
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            "messages",
            "empty_array",
        )
    size = tokens.REQUEST_FRAME
    texts: list[str] = []
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise wrong_type(f"messages[{at}]", "an object", message)
        role = message.get("role")
        if role is None:
            raise missing(f"messages[{at}].role")
        if role not in ROLES:
            raise invalid(
                f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', "
                "and 'developer'.",
                f"messages[{at}].role",
                "invalid_value",
            )
        calls = message.get("tool_calls")
        text, images = content(message.get("content"), f"messages[{at}].content", may_be_null=role == "assistant")
        size += tokens.MESSAGE_FRAME + tokens.of_text(text) + images * tokens.IMAGE + tokens.of_json(calls)
        texts.append(text)
    return "\0".join(texts), texts[-1], str(messages[-1]["role"]), size


def usage_body(usage: Usage, ask: Ask) -> dict[str, Any]:
    """Tokens, and the cost as OpenRouter says it where it is resold."""
    cost = None if usage.percent is None else cost_nano_usd(usage, ask.model, ask.tier)
    said = {} if cost is None else {"cost": cost / 10**9, "cost_details": {"upstream_inference_cost": None}}
    return said | {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def finish_of(answer: Answer) -> str:
    return "stop" if answer.finish == "refusal" else answer.finish


def whole(ask: Ask, made: list[Answer], usage: Usage | None, ident: str, created: int) -> dict[str, Any]:
    """The plain body; `usage` None leaves it out (the drill no_usage)."""
    body: dict[str, Any] = {
        "id": f"chatcmpl-{ident}",
        "object": "chat.completion",
        "created": created,
        "model": ask.model,
        "choices": [_choice(ask, one, at, ident) for at, one in enumerate(made)],
    }
    if usage is not None:
        body["usage"] = usage_body(usage, ask)
    body["service_tier"] = ask.tier
    body["system_fingerprint"] = FINGERPRINT
    return body


def _choice(ask: Ask, made: Answer, at: int, ident: str) -> dict[str, Any]:
    text = made.text
    refused = made.finish == "refusal"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or (made.calls and not text) else text,
        "refusal": text if refused else None,
        "annotations": [],
    }
    if made.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{ident}_{at}_{n}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for n, call in enumerate(made.calls)
        ]
    probs = likely.probs(made.pieces, ask.logprobs, refused=refused)
    return {"index": at, "message": message, "logprobs": probs, "finish_reason": finish_of(made)}


def frames(ask: Ask, made: list[Answer], usage: Usage | None, ident: str, created: int) -> Iterator[Frame]:
    """Role, deltas, finish for each choice in turn, then the usage chunk if it was asked for, then [DONE]."""
    head: dict[str, Any] = {
        "id": f"chatcmpl-{ident}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": ask.model,
        "service_tier": ask.tier,
        "system_fingerprint": FINGERPRINT,
    }
    tail = b',"usage":null}\n\n' if ask.include_usage else b"}\n\n"
    opening = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['

    def chunk(at: int, delta: dict[str, Any], finish: str | None = None, probs: Any = None) -> bytes:
        return (
            opening
            + orjson.dumps({"index": at, "delta": delta, "logprobs": probs, "finish_reason": finish})
            + b"]"
            + tail
        )

    for at, one in enumerate(made):
        yield Frame(Tag.OPEN, chunk(at, {"role": "assistant", "content": None if one.calls else "", "refusal": None}))
        kind = "refusal" if one.finish == "refusal" else "content"
        for piece in one.pieces:
            probs = likely.probs([piece], ask.logprobs, refused=kind == "refusal")
            yield Frame(Tag.DELTA, chunk(at, {kind: piece}, probs=probs))
        for number, call in enumerate(one.calls):
            first = {
                "index": number,
                "id": f"call_{ident}_{at}_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }
            yield Frame(Tag.DELTA, chunk(at, {"tool_calls": [first]}))
            for piece in call.pieces:
                yield Frame(Tag.DELTA, chunk(at, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}))
        yield Frame(Tag.FINISH, chunk(at, {}, finish_of(one)))
    if ask.include_usage and usage is not None:
        yield Frame(Tag.USAGE, unnamed({**head, "choices": [], "usage": usage_body(usage, ask)}))
    yield Frame(Tag.DONE, b"data: [DONE]\n\n")
