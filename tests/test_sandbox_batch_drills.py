"""Fault drills of files and batches, as the real SDKs meet them."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings

HELLO: Any = [{"role": "user", "content": "Tell me about wagons."}]
BODY = '{"model":"gpt-6-luna","messages":[{"role":"user","content":"hi"}]}'
ROW = '{"custom_id":"r%d","method":"POST","url":"/v1/chat/completions","body":' + BODY + "}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(batch_seconds=1000)) as sandbox:
        yield sandbox


def upload(client: Any, rows: int = 10) -> str:
    data = "\n".join(ROW % n for n in range(rows)).encode()
    return str(client.files.create(file=("in.jsonl", data), purpose="batch").id)


def start(client: Any, file: str) -> Any:
    return client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")


def read(client: Any, ident: str | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.files.content(ident).content.split(b"\n") if line] if ident else []


@pytest.mark.parametrize("how", ["fin", "rst", "hang"])
def test_a_lost_create_was_done(client: Any, claude: Any, sandbox: Sandbox, how: str) -> None:
    quick = client.with_options(timeout=0.3)
    sandbox.faults([{"kind": "lost_create", "how": how, "times": 1}])
    with pytest.raises(openai.APIConnectionError):
        upload(quick)
    (file,) = client.files.list()
    sandbox.faults([{"kind": "lost_create", "how": how, "times": 1}])
    with pytest.raises(openai.APIConnectionError):
        start(quick, file.id)
    (batch,) = client.batches.list()
    sandbox.faults([{"kind": "lost_create", "how": how, "times": 1}])
    one: Any = {"custom_id": "a", "params": {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": HELLO}}
    with pytest.raises(anthropic.APIConnectionError):
        claude.with_options(timeout=0.3).messages.batches.create(requests=[one])
    assert len(list(claude.messages.batches.list())) == 1
    sandbox.advance(1001)
    assert client.batches.retrieve(batch.id).status == "completed"


def test_a_late_list(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "late_list", "seconds": 60}])
    file = upload(client)
    batch = start(client, file)
    assert list(client.files.list()) == [] == list(client.batches.list())
    assert client.batches.retrieve(batch.id).id == batch.id
    assert client.files.retrieve(file).id == file
    sandbox.advance(61)
    assert [one.id for one in client.files.list()] == [file]
    assert [one.id for one in client.batches.list()] == [batch.id]


@pytest.mark.parametrize(
    ("fault", "code"), [("token_limit", "token_limit_exceeded"), ("batch_failed", "invalid_json_line")]
)
def test_a_batch_that_fails_after_its_create(client: Any, sandbox: Sandbox, fault: str, code: str) -> None:
    sandbox.faults([{"kind": fault}])
    batch = start(client, upload(client))
    assert batch.status == "validating"
    sandbox.advance(101)
    failed = client.batches.retrieve(batch.id)
    assert failed.status == "failed"
    assert failed.errors.data[0].code == code


@pytest.mark.parametrize("error_rows", [True, False])
def test_expiry_with_part_of_the_rows_done(client: Any, sandbox: Sandbox, error_rows: bool) -> None:
    sandbox.faults([{"kind": "expire", "fraction": 0.3, "error_rows": error_rows}])
    batch = start(client, upload(client))
    sandbox.advance(1001)
    done = client.batches.retrieve(batch.id)
    assert done.status == "expired"
    assert done.request_counts.completed == 3
    assert done.request_counts.failed == 0
    assert len(read(client, done.output_file_id)) == 3 == sandbox.bill()["totals"]["rows"]
    assert len(read(client, done.error_file_id)) == (7 if error_rows else 0)


@pytest.mark.parametrize(
    ("fault", "failed", "missing"),
    [
        ({"fraction": 0.4, "status_code": 429}, 4, 0),
        ({"custom_ids": ["r2", "r5"], "code": "odd"}, 2, 0),
        ({"fraction": 0.2, "variant": "zero"}, 2, 0),
        ({"fraction": 0.2, "variant": "null_response"}, 2, 0),
        ({"fraction": 0.3, "variant": "missing"}, 0, 3),
        ({"fraction": 1.0}, 10, 0),
    ],
)
def test_rows_that_fail(client: Any, sandbox: Sandbox, fault: Any, failed: int, missing: int) -> None:
    sandbox.faults([{"kind": "fail_rows", "times": 1, **fault}])
    batch, second = start(client, file := upload(client)), start(client, file)
    sandbox.advance(1001)
    done = client.batches.retrieve(batch.id)
    good, bad = read(client, done.output_file_id), read(client, done.error_file_id)
    assert (done.status, len(good), len(bad)) == ("completed", 10 - failed - missing, failed)
    assert (done.output_file_id is None) == (not good)
    assert (done.error_file_id is None) == (not bad)
    for line in bad:
        if fault.get("variant") == "null_response":
            assert line["response"] is None
            assert line["error"]["code"] == "server_error"
        else:
            assert line["error"] is None
            assert line["response"]["status_code"] == {"zero": 0}.get(
                fault.get("variant"), fault.get("status_code", 500)
            )
    if "custom_ids" in fault:
        assert {line["custom_id"] for line in bad} == {"r2", "r5"}
        assert bad[0]["response"]["body"]["error"]["code"] == "odd"
    assert sandbox.bill(batch_id=batch.id)["totals"]["rows"] == len(good)
    assert client.batches.retrieve(second.id).request_counts.completed == 10


def test_a_batch_that_never_ends_and_one_that_is_forgotten(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "stall", "fraction": 0.5, "times": 1}, {"kind": "forget", "seconds": 100, "skip": 1}])
    stalled, forgotten = start(client, file := upload(client)), start(client, file)
    sandbox.advance(90_000)
    assert client.batches.retrieve(stalled.id).status == "in_progress"
    assert client.batches.retrieve(stalled.id).request_counts.completed == 5
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve(forgotten.id)
    assert [batch.id for batch in client.batches.list()] == [stalled.id]
    client.batches.cancel(stalled.id)
    sandbox.advance(1)
    assert client.batches.retrieve(stalled.id).status == "cancelled"


def test_drills_inside_batch_rows(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults(
        [
            {"kind": "length", "match": {"custom_id": "r4"}},
            {"kind": "no_usage", "match": {"custom_id": "r5", "lane": "batch"}},
        ]
    )
    batch = start(client, upload(client))
    sandbox.advance(1001)
    bodies = {
        line["custom_id"]: line["response"]["body"]
        for line in read(client, client.batches.retrieve(batch.id).output_file_id)
    }
    assert [name for name, body in bodies.items() if body["choices"][0]["finish_reason"] == "length"] == ["r4"]
    assert [name for name, body in bodies.items() if "usage" not in body] == ["r5"]
