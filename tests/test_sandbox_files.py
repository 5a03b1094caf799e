"""`/v1/files` as the real OpenAI SDK sees it."""

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


def test_the_lists_page_newest_first(client: Any) -> None:
    made = [ten(client).id for _ in range(5)][::-1]
    assert [batch.id for batch in client.batches.list(limit=2)] == made
    page = client.batches.list(limit=3)
    assert page.has_more
    assert len(page.data) == 3
    assert [batch.id for batch in client.batches.list(after=made[3])] == made[4:]
    files = [file.id for file in client.files.list(limit=2)]
    assert len(files) == 5
    assert [file.id for file in client.files.list(order="asc")] == files[::-1]
    assert list(client.files.list(purpose="vision")) == []
    for limit in (0, 101):
        with pytest.raises(openai.BadRequestError, match="limit"):
            client.batches.list(limit=limit)


def test_a_deleted_input_cannot_be_used_again(client: Any) -> None:
    file = client.files.create(file=("in.jsonl", lines(row("a"))), purpose="batch")
    assert client.files.retrieve(file.id).filename == "in.jsonl"
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content):
        with pytest.raises(openai.NotFoundError):
            call(file.id)
    with pytest.raises(openai.BadRequestError, match="Cannot find file"):
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")


def test_an_input_deleted_under_way_does_not_stop_its_batch(client: Any, sandbox: Sandbox) -> None:
    batch = ten(client)
    client.files.delete(batch.input_file_id)
    sandbox.advance(1001)
    assert client.batches.retrieve(batch.id).status == "completed"


def test_an_upload_needs_its_name_and_purpose(client: Any) -> None:
    for name in ("in.txt", "upload", ""):
        with pytest.raises(openai.BadRequestError, match=r"Must be \.jsonl"):
            client.files.create(file=(name, b"{}"), purpose="batch")
    assert client.files.create(file=("pic.png", b"x"), purpose="vision").bytes == 1
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a.jsonl", b"x"), purpose="nonsense")
    pic = client.files.create(file=("pic.png", b"x"), purpose="vision")
    with pytest.raises(openai.BadRequestError, match="batch"):
        client.batches.create(input_file_id=pic.id, endpoint=CHAT, completion_window="24h")


def test_files_expire(client: Any, sandbox: Sandbox) -> None:
    file = client.files.create(
        file=("a.jsonl", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    sandbox.advance(3601)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
