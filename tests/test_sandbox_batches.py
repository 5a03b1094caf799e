"""`/v1/files` and `/v1/batches` as the real OpenAI SDK sees them, every ending a batch can have."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(batch_seconds=1000, cancel_seconds=50)) as sandbox:
        yield sandbox


def row(custom_id: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": f"hello {custom_id}"}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": asked}


def lines(*rows: Any) -> bytes:
    return b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in rows)


def create(client: Any, *rows: Any, endpoint: Any = CHAT, **more: Any) -> Any:
    file = client.files.create(file=("in.jsonl", lines(*rows)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def ten(client: Any, **more: Any) -> Any:
    return create(client, *[row(f"r{n}") for n in range(10)], **more)


def read(client: Any, ident: str | None) -> list[dict[str, Any]]:
    if not ident:
        return []
    return [json.loads(line) for line in client.files.content(ident).content.split(b"\n") if line]


def test_the_statuses_follow_the_clock_and_not_the_polls(client: Any, sandbox: Sandbox) -> None:
    batch = ten(client, metadata={"chunk": "7"})
    for _ in range(5):
        assert client.batches.retrieve(batch.id).status == "validating"
    assert batch.request_counts.total == 0
    assert batch.metadata == {"chunk": "7"}
    assert batch.expires_at == batch.created_at + 86400
    assert batch.completion_window == "24h"
    sandbox.advance(101)
    assert client.batches.retrieve(batch.id).status == "in_progress"
    sandbox.advance(401)
    half = client.batches.retrieve(batch.id)
    assert (half.status, half.request_counts.total, half.request_counts.completed) == ("in_progress", 10, 5)
    assert sandbox.bill()["totals"]["rows"] == 5
    sandbox.advance(400)
    assert client.batches.retrieve(batch.id).status == "finalizing"
    assert client.batches.retrieve(batch.id).output_file_id is None
    sandbox.advance(100)
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert done.error_file_id is None
    assert done.errors is None
    assert done.model == "gpt-6-luna"
    assert done.created_at < done.in_progress_at < done.finalizing_at < done.completed_at
    found = read(client, done.output_file_id)
    assert sorted(line["custom_id"] for line in found) == [f"r{n}" for n in range(10)]
    assert [line["custom_id"] for line in found] != [f"r{n}" for n in range(10)]
    assert all(line["error"] is None and line["response"]["status_code"] == 200 for line in found)
    bodies = [line["response"]["body"] for line in found]
    assert done.usage.output_tokens == sum(body["usage"]["completion_tokens"] for body in bodies)
    assert done.usage.input_tokens == sum(body["usage"]["prompt_tokens"] for body in bodies)


def test_a_row_says_what_a_plain_call_says(client: Any, sandbox: Sandbox) -> None:
    batch = ten(client)
    sandbox.advance(1001)
    found = {line["custom_id"]: line for line in read(client, client.batches.retrieve(batch.id).output_file_id)}
    plain = client.chat.completions.create(**row("r3")["body"])
    body = found["r3"]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == plain.choices[0].message.content
    assert plain.usage is not None
    assert body["usage"] == plain.usage.model_dump(exclude_unset=True)
    bill = sandbox.bill(custom_id="r3")["rows"][0]
    assert bill["batch_id"] == batch.id
    assert bill["tier"] == "batch"
    assert bill["cost_nano_usd"] * 2 == pytest.approx(sandbox.bill(kind="plain")["totals"]["cost_nano_usd"], abs=1)


def test_responses_in_a_batch(client: Any, sandbox: Sandbox) -> None:
    rows = [
        {"custom_id": n, "method": "POST", "url": "/v1/responses", "body": {"model": "gpt-4o", "input": "hi"}}
        for n in "ab"
    ]
    batch = create(client, *rows, endpoint="/v1/responses")
    sandbox.advance(1001)
    found = read(client, client.batches.retrieve(batch.id).output_file_id)
    assert {line["response"]["body"]["object"] for line in found} == {"response"}


@pytest.mark.parametrize(
    ("rows", "code", "line"),
    [
        ([row("a"), b"{not json"], "invalid_json_line", 2),
        ([row("a"), b"[1]"], "invalid_json_line", 2),
        ([row("a"), row("b"), row("a")], "duplicate_custom_id", 3),
        ([row("a"), row("b", model="gpt-4o")], "model_mismatch", 2),
        ([row("a", url="/v1/responses")], "url_mismatch", 1),
        ([row("a", model="llama")], "model_not_found", 1),
        ([row("a", stream=True)], "streaming_unsupported", 1),
        ([{"custom_id": "a", "url": CHAT, "body": {}}], "missing_required_parameter", 1),
        ([{"custom_id": "a", "method": "POST", "url": CHAT, "body": {}}], "missing_required_parameter", 1),
        ([b""], "empty_file", None),
        ([b"\n\n\n"], "empty_file", None),
    ],
)
def test_bad_files_fail_when_they_are_validated(
    client: Any, sandbox: Sandbox, rows: Any, code: str, line: int | None
) -> None:
    batch = create(client, *rows)
    assert batch.status == "validating"
    sandbox.advance(101)
    failed = client.batches.retrieve(batch.id)
    assert failed.status == "failed"
    assert failed.failed_at
    assert failed.output_file_id is None
    assert (failed.errors.data[0].code, failed.errors.data[0].line) == (code, line)
    assert sandbox.bill()["totals"]["rows"] == 0


def test_too_many_rows(client: Any, sandbox: Sandbox) -> None:
    one = b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-6-luna","messages":[]}}'
    batch = create(client, *[one % n for n in range(50_001)])
    sandbox.advance(101)
    assert client.batches.retrieve(batch.id).errors.data[0].code == "too_many_tasks"


def test_rows_that_the_provider_refuses_go_to_the_error_file(client: Any, sandbox: Sandbox) -> None:
    batch = create(client, row("good"), row("bad", max_completion_tokens=0))
    sandbox.advance(1001)
    done = client.batches.retrieve(batch.id)
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 1)
    (line,) = read(client, done.error_file_id)
    assert line["custom_id"] == "bad"
    assert line["error"] is None
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"]["error"]["code"] == "integer_below_min_value"


def test_cancel_keeps_and_bills_what_was_done(client: Any, sandbox: Sandbox) -> None:
    batch = ten(client)
    sandbox.advance(341)
    assert client.batches.cancel(batch.id).status == "cancelling"
    assert client.batches.cancel(batch.id).status == "cancelling"
    sandbox.advance(50)
    done = client.batches.retrieve(batch.id)
    assert done.status == "cancelled"
    assert done.cancelled_at
    assert done.request_counts.completed == 3
    assert len(read(client, done.output_file_id)) == 3 == sandbox.bill()["totals"]["rows"]
    unrun = read(client, done.error_file_id)
    assert len(unrun) == 7
    assert {line["error"]["code"] for line in unrun} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError, match="cancelled"):
        client.batches.cancel(batch.id)


def test_cancel_before_and_after_the_run(client: Any, sandbox: Sandbox) -> None:
    early, late = ten(client), ten(client)
    client.batches.cancel(early.id)
    sandbox.advance(950)
    assert client.batches.retrieve(early.id).status == "cancelled"
    assert client.batches.retrieve(early.id).output_file_id is None
    assert client.batches.retrieve(late.id).status == "finalizing"
    client.batches.cancel(late.id)
    sandbox.advance(50)
    assert client.batches.retrieve(late.id).status == "cancelled"
    assert len(read(client, client.batches.retrieve(late.id).output_file_id)) == 10


def test_a_slow_batch_expires_by_the_clock() -> None:
    settings = SandboxSettings(batch_seconds=10, batch_rows_per_second=8 / 86_400)
    with (
        running(settings) as sandbox,
        openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        batch = ten(client)
        sandbox.advance(80_000)
        assert client.batches.retrieve(batch.id).status == "in_progress"
        sandbox.advance(6_401)
        done = client.batches.retrieve(batch.id)
        assert done.status == "expired"
        assert done.expired_at == done.expires_at
        assert len(read(client, done.output_file_id)) == 7
        assert {line["error"]["code"] for line in read(client, done.error_file_id)} == {"batch_expired"}
        assert sandbox.bill()["totals"]["rows"] == 7


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"completion_window": "1h"}, "24h"),
        ({"endpoint": "/v1/nope"}, "/v1/chat/completions"),
        ({"input_file_id": "file-none"}, "Cannot find file file-none"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 5}}, "string"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "3600"),
    ],
)
def test_wrong_creates_are_refused(client: Any, more: Any, words: str) -> None:
    file = client.files.create(file=("in.jsonl", lines(row("a"))), purpose="batch")
    with pytest.raises(openai.BadRequestError, match=words):
        client.batches.create(**{"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **more})
    assert list(client.batches.list()) == []


def test_the_queued_token_limit() -> None:
    settings = SandboxSettings(batch_seconds=1000, queued_token_limit=600)
    with (
        running(settings) as sandbox,
        openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        first, second = ten(client), ten(client)
        sandbox.advance(101)
        assert client.batches.retrieve(first.id).status == "in_progress"
        failed = client.batches.retrieve(second.id)
        assert failed.status == "failed"
        assert failed.errors is not None
        assert failed.errors.data is not None
        assert failed.errors.data[0].code == "token_limit_exceeded"
        sandbox.advance(1000)
        third = ten(client)
        sandbox.advance(101)
        assert client.batches.retrieve(third.id).status == "in_progress"
