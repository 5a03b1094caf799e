"""The server itself: HTTP by the byte, admin calls, uploads in pieces, a clean stop, a light import."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.sandbox.errors import ApiError
from jobs.sandbox.multipart import Multipart, boundary_of
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxError, SandboxSettings

KEY = {"Authorization": "Bearer sk-secret-1234abcd"}
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "in one word"}]}).encode()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(max_body_bytes=200_000, max_file_bytes=400_000)) as sandbox:
        yield sandbox


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx2.Client]:
    sandbox.reset()
    with httpx2.Client(base_url=sandbox.url, headers=KEY) as client:
        yield client


def spoken(sandbox: Sandbox, data: bytes, ends: int) -> bytes:
    """What comes back until `ends` bodies of one-word answers have come, or the server closes."""
    host, _, port = sandbox.url.removeprefix("http://").partition(":")
    got = b""
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(data)
        while got.count(b'"system_fingerprint"') < ends:
            piece = sock.recv(65536)
            if not piece:
                break
            got += piece
    return got


def raw(headers: bytes = b"", body: bytes = BODY) -> bytes:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-x\r\nContent-Length: %d\r\n"
        % len(body)
    )
    return head + headers + b"\r\n" + body


def test_pipelined_requests_are_answered_in_order(sandbox: Sandbox) -> None:
    got = spoken(sandbox, raw() * 5, 5)
    assert got.count(b"HTTP/1.1 200 OK") == 5


def test_connection_close_and_chunked_bodies(sandbox: Sandbox) -> None:
    assert b"connection: close" in spoken(sandbox, raw(b"Connection: close\r\n"), 99)
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (BODY[:10], BODY[10:]))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer sk-x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"200 OK" in spoken(sandbox, head + pieces + b"0\r\n\r\n", 1)


def test_expect_100_continue(sandbox: Sandbox) -> None:
    assert spoken(sandbox, raw(b"Expect: 100-continue\r\n"), 1).startswith(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"
    )


def test_what_is_not_http_is_refused(sandbox: Sandbox) -> None:
    assert spoken(sandbox, b"\x16\x03\x01 hello\r\n\r\n", 1).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/v1/chat/completions", b"{nope", 400, "could not parse the JSON body"),
        ("POST", "/v1/chat/completions", b"[1]", 400, "an object"),
        ("POST", "/v1/chat/completions", b"x" * 200_001, 413, "larger than 200000"),
        ("GET", "/v1/chat/completions", b"", 405, "POST"),
        ("POST", "/v1/nope", b"{}", 404, "Invalid URL (POST /v1/nope)"),
        ("GET", "/", b"", 404, "Invalid URL"),
        ("POST", "/v1/files", b"{}", 400, "multipart"),
        ("POST", "/v1/files", b"", 400, "multipart"),
        ("PATCH", "/v1/batches/x", b"", 404, "Invalid URL"),
    ],
)
def test_wrong_paths_and_bodies(
    http: httpx2.Client, method: str, path: str, body: bytes, status: int, words: str
) -> None:
    got = http.request(method, path, content=body)
    assert got.status_code == status
    assert words in got.json()["error"]["message"]
    assert http.post("/v1/chat/completions", content=BODY).status_code == 200


def test_the_admin_calls(http: httpx2.Client) -> None:
    assert http.get("/_sandbox/health").json()["status"] == "ok"
    fault = {"kind": "status", "status": 503, "match": {"path": "/v1/models"}}
    assert http.put("/_sandbox/faults", json={"faults": [fault]}).json()["faults"][0]["status"] == 503
    assert http.get("/v1/models").status_code == 503
    assert http.get("/_sandbox/faults").json()["faults"][0]["match"] == {"path": "/v1/models"}
    assert "cut" in http.get("/_sandbox/faults").json()["kinds"]
    assert http.delete("/_sandbox/faults").json() == {"faults": []}
    http.post("/v1/chat/completions", content=BODY)
    assert http.get("/_sandbox/bill", params={"rows": "0"}).json()["totals"]["rows"] == 1
    assert http.get("/_sandbox/bill", params={"kind": "batch"}).json()["rows"] == []
    assert http.get("/_sandbox/bill", params={"color": "red"}).status_code == 400
    now = http.post("/_sandbox/clock", json={"advance_s": 60}).json()
    assert now["offset_s"] == 60
    unfit: list[Any] = [{}, {"advance_s": -1}, {"advance_s": "1"}, []]
    for wrong in unfit:
        assert http.post("/_sandbox/clock", json=wrong).status_code == 400
    assert http.post("/_sandbox/reset").status_code == 200
    assert http.get("/_sandbox/bill").json()["rows"] == []
    assert http.get("/_sandbox/nope").status_code == 404


def test_keys_are_never_shown(http: httpx2.Client) -> None:
    http.get("/v1/models", headers={"x-api-key": "sk-other-5678efgh"})
    text = http.get("/_sandbox/requests").text
    assert "secret" not in text
    assert "other" not in text
    seen = json.loads(text)
    assert seen["count"] == 2
    assert seen["requests"][0]["headers"]["authorization"] == "…abcd"
    assert seen["requests"][0]["path"] == "/v1/models"


def test_an_upload_that_is_too_large(http: httpx2.Client) -> None:
    got = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"x" * 400_001)})
    assert got.status_code == 413
    got = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"x" * 400_000)})
    assert got.json()["bytes"] == 400_000
    assert http.get(f"/v1/files/{got.json()['id']}/content").content == b"x" * 400_000


def test_uploads_that_lack_a_part(http: httpx2.Client) -> None:
    assert http.post("/v1/files", files={"file": ("a.jsonl", b"x")}).json()["error"]["param"] == "purpose"
    assert (
        http.post("/v1/files", data={"purpose": "batch"}, files={"other": ("a.jsonl", b"x")}).json()["error"]["param"]
        == "file"
    )
    head = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    body = head % (b"purpose", b"batch") + head % (b"file", b"x")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert "last boundary" in http.post("/v1/files", content=body, headers=headers).json()["error"]["message"]
    assert ".jsonl" in http.post("/v1/files", content=body + b"--b--\r\n", headers=headers).json()["error"]["message"]


@given(
    st.binary(max_size=200),
    st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n;'), max_size=8),
    st.integers(1, 40),
)
def test_a_multipart_body_may_be_split_anywhere(content: bytes, name: str, size: int) -> None:
    if b"\r\n--mark" in b"\r\n" + content:
        return
    body = (
        b'--mark\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--mark\r\nContent-Disposition: form-data; name="file"; filename="' + name.encode()
        + b'"\r\nContent-Type: x/y\r\n\r\n'
        + content + b'\r\n--mark\r\ncontent-disposition: form-data; name=empty\r\n\r\n\r\n--mark--\r\n'
    )  # fmt: skip
    found = bytearray()
    form = Multipart(boundary_of('multipart/form-data; boundary="mark"'), 1000, found.extend)
    for at in range(0, len(body), size):
        form.feed(body[at : at + size])
    assert form.finished
    assert bytes(found) == content
    assert form.size == len(content)
    assert form.fields == {"purpose": "batch", "empty": ""}
    assert form.file_name == name


def test_a_multipart_limit_is_kept() -> None:
    form = Multipart(b"b", 10, lambda _: None)
    with pytest.raises(ApiError, match="exceeded"):
        form.feed(b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\n' + b"x" * 40)


def test_settings_that_cannot_be() -> None:
    wrong: list[dict[str, Any]] = [
        {"port": 70_000},
        {"latency_s": -1},
        {"answer_tokens": 0},
        {"batch_rows_per_second": 0},
    ]
    for one in wrong:
        with pytest.raises(SandboxError, match=next(iter(one))):
            SandboxSettings(**one)


def test_a_port_in_use_says_so(sandbox: Sandbox) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(SandboxError, match=f"cannot listen on 127.0.0.1:{port}"), running(SandboxSettings(port=port)):
        pass


def test_nothing_is_left_of_a_stopped_sandbox() -> None:
    before = threading.active_count()
    with (
        running(SandboxSettings(tokens_per_second=1, batch_seconds=1000)) as sandbox,
        httpx2.Client(headers=KEY) as client,
    ):
        asked = {**json.loads(BODY), "stream": True}
        with client.stream("POST", sandbox.url + "/v1/chat/completions", json=asked) as got:
            assert got.status_code == 200
            port = int(sandbox.url.rpartition(":")[2])
            idle = socket.create_connection(("127.0.0.1", port))
    with idle:
        assert idle.recv(10) == b""
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_the_process_stops_on_a_signal(tmp_path: Path) -> None:
    code = (
        "from jobs.sandbox.server import serve; from jobs.sandbox.settings import SandboxSettings as Settings; "
        "serve(Settings(), on_ready=lambda url: print(url, flush=True))"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert httpx2.get(url + "/_sandbox/health").status_code == 200
        server.terminate()
        out, err = server.communicate(timeout=20)
    assert (server.returncode, out, err) == (0, "", "")


def test_the_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, jobs.sandbox.settings; "
        "print({'asyncio', 'uvicorn', 'fastapi', 'orjson', 'httptools', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "set()"
