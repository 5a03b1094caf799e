"""Whatever is sent, no answer is a 500, and none is missing."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxSettings
from tests.gateways import Served, serving, settings_for
from tests.lanes import KEY, MODEL

POSTS = ("/v1/chat/completions", "/v1/responses", "/v1/batches", "/v1/files", "/api/chat/stream", "/api/login")
GETS = ("/api/jobs/{}", "/api/jobs/{}/stream", "/api/conversations/{}", "/v1/files/{}", "/v1/files/{}/content",
        "/v1/batches/{}", "/v1/responses/{}", "/v1/models/{}", "/{}", "/static/{}", "/api/jobs?after={}&limit=3",
        "/api/jobs?state={}", "/api/jobs?limit={}", "/v1/files?after={}", "/v1/batches?limit={}",
        "/api/conversations?after={}", "/api/boards/{}")  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["model", "messages", "stream", "stream_options", "n", "tools", "tool_choice", "response_format", "max_tokens",
     "max_completion_tokens", "metadata", "input", "instructions", "text", "reasoning", "background",
     "previous_response_id", "message", "conversation", "key", "on_leave", "retry", "system", "token",
     "input_file_id", "endpoint", "completion_window", "background_options"]
)  # fmt: skip
GOOD: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "input": "Hello",
    "message": "Hello",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch, running(SandboxSettings(answer_tokens=3)) as sandbox:
        patch.setenv("OPENAI_API_KEY", KEY)
        with serving(settings_for(sandbox.url, tmp_path_factory.mktemp("fuzz"))) as gateway:
            yield gateway


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx2.Client]:
    with served.client() as made:
        yield made


@quick
@given(path=st.sampled_from(POSTS), body=st.dictionaries(NAMES, VALUES, max_size=4), good=st.sets(NAMES))
def test_bodies_of_any_fields(client: httpx2.Client, path: str, body: dict[str, Any], good: set[str]) -> None:
    import json

    whole = {name: value for name, value in GOOD.items() if name in good} | body
    answer = client.post(path, content=json.dumps(whole).encode("utf-8", "surrogatepass"))
    assert answer.status_code != 500, (answer.text, whole)


@quick
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=200),
       kind=st.sampled_from(["application/json", "multipart/form-data; boundary=x", "text/plain", "\xff"]))  # fmt: skip
def test_bodies_of_any_bytes(client: httpx2.Client, path: str, body: bytes, kind: str) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": kind.encode("latin-1")})
    assert 400 <= answer.status_code < 500, answer.text


@quick
@given(path=st.sampled_from(GETS), word=st.text(min_size=1, max_size=30))
def test_paths_of_any_words(client: httpx2.Client, path: str, word: str) -> None:
    from urllib.parse import quote

    answer = client.get(path.format(quote(word.encode("utf-8", "replace"), safe="")))
    assert answer.status_code < 500, answer.text


@quick
@given(
    name=st.sampled_from(["X-Shunter-Deadline", "X-Shunter-Class", "X-Shunter-Tags", "X-Shunter-Key", "Prefer",
                          "X-Shunter-On-Leave", "Last-Event-ID", "Idempotency-Key", "Cookie", "Origin",
                          "Authorization"]),
    value=st.binary(min_size=1, max_size=40).map(lambda raw: bytes(33 + byte % 90 for byte in raw) + raw[:1].strip()),
)  # fmt: skip
def test_headers_of_any_bytes(client: httpx2.Client, name: str, value: bytes) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    try:
        answer = client.post("/v1/chat/completions", json=body, headers={name: value})
    except (httpx2.LocalProtocolError, httpx2.RemoteProtocolError):
        return
    assert answer.status_code != 500, answer.text


@settings(quick, max_examples=40)
@given(raw=st.binary(max_size=300))
def test_connections_of_any_bytes(served: Served, client: httpx2.Client, raw: bytes) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /v1/responses HTTP/1.1\r\n" + raw + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(100)
    assert not answer.startswith(b"HTTP/1.1 5"), answer


def test_and_after_all_that_it_answers(client: httpx2.Client) -> None:
    assert client.post("/api/chat/stream", json={"message": "Hello"}).status_code == 200
