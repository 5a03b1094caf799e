"""State in a folder: files, batches and the bill outlive a kill -9, and nothing is billed twice."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxError, SandboxSettings

SERVE = """
import sys
from pathlib import Path
from jobs.sandbox.server import serve
from jobs.sandbox.settings import SandboxSettings
settings = SandboxSettings(folder=Path(sys.argv[1]), batch_seconds=float(sys.argv[2]), answer_tokens=20)
serve(settings, on_ready=lambda url: print(url, flush=True))
"""
BODY = '{"model":"gpt-6-luna","messages":[{"role":"user","content":"hi %d"}]}'
ROW = '{"custom_id":"r%d","method":"POST","url":"/v1/chat/completions","body":' + BODY + "}"
HELLO: Any = [{"role": "user", "content": "hello"}]


@contextlib.contextmanager
def process(folder: Path, batch_seconds: float) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-c", SERVE, str(folder), str(batch_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), server
        finally:
            server.kill()


def bill(url: str, **wanted: str) -> Any:
    return httpx2.get(url + "/_sandbox/bill", params=wanted).json()


def test_a_killed_sandbox_goes_on_where_it_was(tmp_path: Path) -> None:
    rows = 400
    with (
        process(tmp_path, 20) as (url, server),
        openai.OpenAI(base_url=url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        file = client.files.create(
            file=("a.jsonl", "\n".join(ROW % (n, n) for n in range(rows)).encode()), purpose="batch"
        )
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"k": "v"}
        )
        with anthropic.Anthropic(base_url=url, api_key="sk-x", max_retries=0) as claude:
            one: Any = [
                {"custom_id": f"m{n}", "params": {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": HELLO}}
                for n in range(50)
            ]
            messages = claude.messages.batches.create(requests=one)
        httpx2.post(url + "/_sandbox/clock", json={"advance_s": 7})
        before = bill(url)["totals"]["rows"]
        server.kill()
    assert 1 < before < rows
    with (
        process(tmp_path, 20) as (url, server),
        openai.OpenAI(base_url=url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        assert bill(url)["totals"]["rows"] >= before
        again = client.batches.retrieve(batch.id)
        assert again.status == "in_progress"
        assert again.metadata == {"k": "v"}
        httpx2.post(url + "/_sandbox/clock", json={"advance_s": 20})
        done = client.batches.retrieve(batch.id)
        assert done.status == "completed"
        assert done.output_file_id
        assert done.request_counts
        assert done.usage
        found = [json.loads(line) for line in client.files.content(done.output_file_id).content.splitlines()]
        assert sorted(line["custom_id"] for line in found) == sorted(f"r{n}" for n in range(rows))
        charged = bill(url, batch_id=batch.id)
        assert sorted(row["custom_id"] for row in charged["rows"]) == sorted(f"r{n}" for n in range(rows))
        assert done.request_counts.completed == rows
        assert done.usage.output_tokens == charged["totals"]["output"] == rows * 20
        with anthropic.Anthropic(base_url=url, api_key="sk-x", max_retries=0) as claude:
            ids = [line.custom_id for line in claude.messages.batches.results(messages.id)]
        assert sorted(ids) == sorted(f"m{n}" for n in range(50))
        assert bill(url, batch_id=messages.id)["totals"]["rows"] == 50
        assert bill(url, kind="plain")["totals"]["rows"] == 1
        server.kill()
    with (
        process(tmp_path, 20) as (url, _),
        openai.OpenAI(base_url=url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        assert client.batches.retrieve(batch.id) == done
        assert len(client.files.content(str(done.output_file_id)).content.splitlines()) == rows
        assert bill(url)["totals"]["rows"] == rows + 51


def test_kills_at_any_moment_bill_each_row_once(tmp_path: Path) -> None:
    rows = 3000
    ident = ""
    for _ in range(4):
        with (
            process(tmp_path, 0.9) as (url, server),
            openai.OpenAI(base_url=url + "/v1", api_key="sk-x", max_retries=0) as client,
        ):
            if not ident:
                file = client.files.create(
                    file=("a.jsonl", "\n".join(ROW % (n, n) for n in range(rows)).encode()), purpose="batch"
                )
                ident = client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                ).id
            time.sleep(0.13)
            server.kill()
    with running(SandboxSettings(folder=tmp_path, batch_seconds=0.9, answer_tokens=20)) as sandbox:
        sandbox.advance(1)
        with openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x", max_retries=0) as client:
            done = client.batches.retrieve(ident)
            assert done.status == "completed"
            assert done.output_file_id
            lines = client.files.content(done.output_file_id).content.splitlines()
        assert len(lines) == rows == len({json.loads(line)["custom_id"] for line in lines})
        charged = [row["custom_id"] for row in sandbox.bill(batch_id=ident)["rows"]]
        assert len(charged) == rows == len(set(charged))


def test_a_row_that_was_billed_but_not_written_is_written_and_not_billed_again(tmp_path: Path) -> None:
    settings = SandboxSettings(folder=tmp_path, batch_seconds=1000)
    with (
        running(settings) as sandbox,
        openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        file = client.files.create(
            file=("a.jsonl", "\n".join(ROW % (n, n) for n in range(20)).encode()), purpose="batch"
        )
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        sandbox.advance(501)
    out = tmp_path / "blobs" / f"{batch.id}.out"
    whole = out.read_bytes()
    assert whole.count(b"\n") == 10
    out.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 40])
    for name in ("bill.jsonl", "state.jsonl"):
        with (tmp_path / name).open("ab") as journal:
            journal.write(b'{"half": "a li')
    with (
        running(settings) as sandbox,
        openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        sandbox.advance(501)
        done = client.batches.retrieve(batch.id)
        assert done.status == "completed"
        assert done.output_file_id
        lines = [json.loads(line) for line in client.files.content(done.output_file_id).content.splitlines()]
        assert len(lines) == 20 == len({line["custom_id"] for line in lines})
        totals = sandbox.bill()["totals"]
        assert totals["rows"] == 20
        assert done.usage
        assert totals["output"] == done.usage.output_tokens


def test_a_reset_empties_the_folder(tmp_path: Path) -> None:
    with (
        running(SandboxSettings(folder=tmp_path)) as sandbox,
        openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x") as client,
    ):
        client.files.create(file=("a.jsonl", b"x"), purpose="batch")
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        sandbox.reset()
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert list((tmp_path / "blobs").iterdir()) == []
    with running(SandboxSettings(folder=tmp_path)) as sandbox:
        assert sandbox.bill()["totals"]["rows"] == 1


def test_a_folder_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(SandboxError, match="cannot keep the sandbox's state"),
        running(SandboxSettings(folder=tmp_path / "file")),
    ):
        pass
