"""Files and batches of the gateway, asked by OpenAI's own client, unmodified."""

import asyncio
import io
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import openai
import pytest

from db import files, gateway_batches, lookup
from db.files import File
from jobs import batch, polling, worker
from jobs.sandbox.server import Sandbox
from router.dispatch import Router
from router.web import batches
from tests.gateways import Served, sandbox_of
from tests.lanes import MODEL

sandbox = sandbox_of(answer_tokens=5, batch_seconds=0.1)


@pytest.fixture(scope="module", params=["with a Batch API", "without one"])
def facts(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "_SOON_S", 0.2)
        patch.setattr(polling, "_FIRST_POLL_S", 0.05)
        yield {"has_batch": {"openai": request.param == "with a Batch API"}}


def line(custom_id: str, **more: Any) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"Say {custom_id}"}], **more}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def upload(asked: openai.OpenAI, *lines: str, name: str | None = "rows.jsonl") -> str:
    content = "\n".join(lines).encode()
    return asked.files.create(file=(name, content) if name else io.BytesIO(content), purpose="batch").id


def create(asked: openai.OpenAI, *lines: str) -> Any:
    made = asked.batches.create(input_file_id=upload(asked, *lines), endpoint="/v1/chat/completions",
                                completion_window="24h", metadata={"mine": "1"})  # fmt: skip
    assert made.status == "validating"
    assert made.request_counts
    return until(asked, made.id, "in_progress", "failed")


def until(asked: openai.OpenAI, batch_id: str, *states: str) -> Any:
    for _ in range(500):
        found = asked.batches.retrieve(batch_id)
        if found.status in states:
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def work(served: Served) -> None:
    """`worker --once` in a process of its own, as far as the database can tell."""
    told = worker.Told(trouble=lambda said: None, note=lambda said: None)
    router = Router(served.router.settings)

    async def once() -> None:
        await worker.once(router.context(), told, asyncio.Event())
        await router.close()

    asyncio.run(once())


def rows(asked: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id
    found = [json.loads(row) for row in asked.files.content(file_id).content.splitlines()]
    return {row["custom_id"]: row for row in found}


def test_a_batch_comes_to_its_end_row_by_row(asked: openai.OpenAI, served: Served, sandbox: Sandbox) -> None:
    made = create(asked, *(line(f"row-{n}") for n in range(5)), line("bad", messages=[]))
    assert (made.request_counts.total, made.request_counts.failed) == (6, 1)
    work(served)
    done = until(asked, made.id, "completed")
    assert (done.request_counts.completed, done.request_counts.failed) == (5, 1)
    assert done.metadata == {"mine": "1"}
    good = rows(asked, done.output_file_id)
    assert sorted(good) == [f"row-{n}" for n in range(5)]
    answer = good["row-0"]["response"]
    assert answer["status_code"] == 200
    assert answer["body"]["choices"][0]["message"]["content"]
    assert answer["body"]["usage"]["completion_tokens"] == 5
    assert rows(asked, done.error_file_id)["bad"]["response"]["status_code"] == 400
    assert len(sandbox.bill()["rows"]) == 5
    assert asked.files.retrieve(done.output_file_id).bytes == len(asked.files.content(done.output_file_id).content)
    assert made.id in [one.id for one in asked.batches.list()]


def test_rows_that_fail_upstream_are_in_the_error_file(asked: openai.OpenAI, served: Served, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "status", "status": 400, "code": "odd", "match": {"path": "/v1/chat/completions"}},
                    {"kind": "fail_rows", "status_code": 400, "code": "odd"}])  # fmt: skip
    made = create(asked, line("a"))
    work(served)
    done = until(asked, made.id, "completed")
    assert done.output_file_id is None
    assert rows(asked, done.error_file_id)["a"]["response"]["body"]["error"]["code"] == "odd"


def test_a_file_without_one_good_row_fails_its_batch(asked: openai.OpenAI) -> None:
    made = create(asked, "{", line("x", messages=[]))
    assert made.status == "failed"
    assert made.errors
    assert made.errors.data[0].code == "invalid_json_line"


def test_a_batch_is_cancelled(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    made = create(asked, line("a"), line("b"))
    assert asked.batches.cancel(made.id).status == "cancelled"
    done = asked.batches.retrieve(made.id)
    assert rows(asked, done.error_file_id)["a"]["error"]["code"] == "batch_cancelled"
    assert sandbox.bill()["rows"] == []
    with pytest.raises(openai.BadRequestError):
        asked.batches.cancel(made.id)


def test_the_same_file_again_is_a_batch_of_its_own(asked: openai.OpenAI, served: Served) -> None:
    first, again = (create(asked, line("same")) for _ in range(2))
    assert (first.request_counts.total, again.request_counts.total) == (1, 1)
    for one in (first, again):
        asked.batches.cancel(one.id)
    assert lookup.counts(served.router.store)


@pytest.mark.parametrize("name", [None, "rows.jsonl", "rows.txt"])
def test_a_file_comes_back_as_it_was_whatever_its_name(asked: openai.OpenAI, name: str | None) -> None:
    content = "".join(f"{n}\u2028\r\n" for n in range(300_000))
    ident = upload(asked, content, name=name)
    assert asked.files.content(ident).content == content.encode()
    assert asked.files.retrieve(ident).bytes == len(content.encode())
    assert ident in [one.id for one in asked.files.list(purpose="batch")]
    assert asked.files.delete(ident).deleted
    with pytest.raises(openai.NotFoundError):
        asked.files.content(ident)


def test_what_was_left_in_the_middle_is_swept(asked: openai.OpenAI, served: Served) -> None:
    store, long_ago = served.router.store, served.router.clock.now() - timedelta(days=2)
    files.begin(store, File("file-old", None, "", "", 0, long_ago))
    upload(asked, line("a"))
    assert files.left(store, served.router.clock.now()) == []


def test_a_batch_whose_server_died_while_it_read_is_given_up(asked: openai.OpenAI, served: Served) -> None:
    store, long_ago = served.router.store, served.router.clock.now() - 2 * batches.BROKEN_OFF
    lost = gateway_batches.Asked("batch_lost" + served.url[-5:], None, "file-x", batches.CHAT, None, long_ago,
                                 long_ago)  # fmt: skip
    gateway_batches.create(store, lost)
    assert asked.batches.retrieve(lost.id).status == "failed"


@pytest.mark.parametrize(
    "body",
    [{}, {"endpoint": "/v1/embeddings"}, {"completion_window": "1h"}, {"input_file_id": "none"}, {"input_file_id": 3},
     {"metadata": 3}, {"metadata": {"a": 3}}, {"metadata": {"a" * 65: "b"}}],
)  # fmt: skip
def test_what_is_no_batch_is_refused(served: Served, body: dict[str, Any]) -> None:
    usual = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": "file-none"}
    with served.client() as client:
        answer = client.post("/v1/batches", json={**usual, **body} if body else {})
        assert answer.status_code == 400
        assert client.get("/v1/batches/none").status_code == client.get("/v1/files/none").status_code == 404


@pytest.mark.parametrize(
    ("kind", "content"),
    [("application/json", b"{}"), ("multipart/form-data; boundary=x", b""), ("multipart/form-data", b"--x--"),
     ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n--x--")],
)  # fmt: skip
def test_a_form_that_is_none_is_refused_and_leaves_nothing(served: Served, kind: str, content: bytes) -> None:
    with served.client() as client:
        assert client.post("/v1/files", content=content, headers={"Content-Type": kind}).status_code == 400
    assert files.left(served.router.store, served.router.clock.now() + timedelta(days=1)) == []
