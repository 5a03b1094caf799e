"""The OpenAPI document: it says what bodies the requests have, and what it says is taken."""

from typing import Any

import httpx2
import pytest

from tests.gateways import sandbox_of

WITHOUT = ("cancel", "logout")  # whose path says it all
VALUES: dict[str, Any] = {"string": "Hello", "boolean": False, "object": {}}
sandbox = sandbox_of(answer_tokens=3)


def posts(http: httpx2.Client) -> dict[str, Any]:
    paths = http.get("/api/openapi.json").json()["paths"]
    return {path: ways["post"] for path, ways in paths.items() if "post" in ways}


def least(schema: dict[str, Any]) -> Any:
    """The smallest value that the schema allows."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return least(schema["anyOf"][0])
    if schema["type"] == "array":
        return [least(schema["items"])] * schema.get("minItems", 0)
    if schema["type"] == "object":
        return {name: least(schema["properties"][name]) for name in schema.get("required", ())}
    if schema["type"] == "integer":
        return int(schema["minimum"])
    return schema.get("minimum", VALUES.get(schema["type"]))


def test_every_request_with_a_body_says_which(http: httpx2.Client) -> None:
    for path, post in posts(http).items():
        assert ("requestBody" in post) != path.endswith(WITHOUT), path


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/api/chat/stream"])
def test_each_field_that_is_named_is_taken(http: httpx2.Client, path: str) -> None:
    schema = posts(http)[path]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["additionalProperties"]
    usual = {"messages": [{"role": "user", "content": "Hello"}], "input": "Hello", "message": "Hello"}
    needed = {name: usual[name] for name in schema["required"] or ["message"]}
    refused = {}
    for name, about in schema["properties"].items():
        body = {"message": "Hello"} if name == "conversation" else {**needed, name: usual.get(name, least(about))}
        if name in ("message", "messages") and path == "/api/chat/stream":
            body = {name: usual[name]}
        if name in ("model", "previous_response_id"):
            continue  # an id of something that there is
        answer = http.post(path, json=body)
        if answer.status_code != 200:
            refused[name] = answer.text
    # Each of these goes with another one.
    assert refused.keys() <= {"top_logprobs", "stream_options", "tools", "tool_choice", "response_format"}, refused
