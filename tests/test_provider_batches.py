"""Both Batch APIs: the life of a batch against the sandbox, and what other servers answer, byte by byte."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.chat import Message, Request
from jobs.errors import CallError, Permanent, Transient
from jobs.providers import BATCH_PROVIDERS, Endpoint, Remote, Ticket
from jobs.sandbox.server import Sandbox
from tests import wire
from tests.batch_wire import batches, run, scripted, stored
from tests.wire import Script, Server

KEY = "sk-test-1234567890"
MODELS = {"openai": "gpt-4.1-mini", "anthropic": "claude-haiku-4-5"}
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)


def request(name: str, text: str = "hi", **more: Any) -> Request:
    return Request(model=MODELS[name], messages=[Message(role="user", content=text)], max_tokens=20, **more)


def ticket(made: Any, folder: Path, rows: int = 3, **more: Any) -> Ticket:
    name = made.endpoint.provider
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(made.line(f"job_{i}_1", stored(request(name, f"say {i}\u2028"))) for i in range(rows)))
    facts = {"rows": rows, "file": path, "file_id": None, "tries": 1, "install": "here"} | more
    return Ticket(batch_id="b-1", file_name="shunter-b-1-1.jsonl", since=datetime.now(UTC), **facts)


async def done(made: Any, remote: Remote) -> Remote:
    while not remote.terminal:
        await asyncio.sleep(0.05)
        remote = await made.poll(remote.id)
    return remote


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_the_life_of_a_batch(name: str, sandbox: Sandbox, tmp_path: Path) -> None:
    async def test() -> None:
        async with batches(name, sandbox.url) as made:
            assert await made.has_batch_api()
            slip = ticket(made, tmp_path)
            assert await made.find_file(slip) is None
            if made.has_files:
                slip = replace(slip, file_id=await made.upload(slip))
                assert await made.find_file(slip) == slip.file_id
            assert await made.find(slip) == []
            remote = await made.submit(slip)
            assert not remote.terminal
            assert [found.id for found in await made.find(slip)] == [remote.id]
            ended = await done(made, remote)
            rows = [row async for row in made.collect(ended)]
            assert sorted(row.custom_id for row in rows) == ["job_0_1", "job_1_1", "job_2_1"]
            for row in rows:
                assert row.answer is not None
                assert row.answer.usable
                assert row.answer.tier == "batch"
                assert row.answer.usage is not None
            assert (ended.done, ended.created_at is not None) == (3, True)
            with pytest.raises(Permanent) as caught:
                await made.poll("batch_unknown")
            assert caught.value.status == 404

    run(test)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_cancel(name: str, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults([{"kind": "stall"}])

    async def test() -> None:
        async with batches(name, sandbox.url) as made:
            slip = ticket(made, tmp_path)
            if made.has_files:
                slip = replace(slip, file_id=await made.upload(slip))
            remote = await made.submit(slip)
            await made.cancel(remote.id)
            ended = await done(made, remote)
            rows = [row async for row in made.collect(ended)]
            assert all(row.cancelled or row.answer for row in rows)
            assert (await made.cancel(remote.id)).terminal
            if made.has_files:
                await made.delete_file(slip.file_id)
                await made.delete_file(slip.file_id)

    run(test)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("script", "found"),
    [
        (wire.reply({"data": []}), True),
        (wire.reply({"detail": "Not Found"}, 404), False),
        (wire.reply(b"", 405), False),
        (wire.reply({"error": "no"}, 501), False),
        (wire.reply(b"<html>", kind="text/html"), False),
        (wire.reply({"error": {"message": "no"}}, 401), Permanent),
        (wire.reply({"error": {"message": "no"}}, 500), Transient),
        (wire.hang_up, Transient),
    ],
)
def test_has_batch_api(name: str, script: Script, found: Any) -> None:
    async def test(made: Any, _: Server) -> Any:
        try:
            return await made.has_batch_api()
        except CallError as error:
            return type(error)

    assert scripted(name, test, script) == found


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("script", "kind", "unclear"),
    [
        (wire.hang_up, Transient, True),
        (wire.mute, Transient, True),
        (wire.reply({"error": {"message": "x"}}, 500), Transient, True),
        (wire.reply(b"null"), Transient, True),
        (wire.reply(b"<html>"), Transient, True),
        (wire.reply({"object": "batch"}), Transient, True),
        (wire.reply({"error": {"message": "Cannot find file file-1"}}, 400), Transient, False),
        (wire.reply({"error": {"message": "bad"}}, 400), Permanent, False),
        (wire.reply({"error": {"message": "slow"}}, 429), Transient, False),
    ],
)
def test_a_create_is_asked_once_and_unclear_when_it_may_have_worked(
    name: str, script: Script, kind: type, unclear: bool, tmp_path: Path
) -> None:
    async def test(made: Any, server: Server) -> None:
        made.post_seconds = 0.5
        with pytest.raises(CallError) as caught:
            await made.submit(ticket(made, tmp_path, file_id="file-1"))
        assert (type(caught.value), caught.value.maybe_billed, len(server.asked)) == (kind, unclear, 1)

    scripted(name, test, script)


def test_upload_and_create_on_the_wire(tmp_path: Path) -> None:
    async def test(made: Any, server: Server) -> None:
        slip = ticket(made, tmp_path)
        file_id = await made.upload(slip)
        remote = await made.submit(replace(slip, file_id=file_id))
        upload, create = server.asked
        assert b'filename="shunter-b-1-1.jsonl"' in upload.body
        assert b'name="purpose"\r\n\r\nbatch\r\n' in upload.body
        assert slip.file.read_bytes() in upload.body
        assert create.json == {
            "input_file_id": "8a6e-uuid",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"shunter_batch": "b-1", "shunter_try": "1", "shunter_install": "here"},
        }
        assert (remote.id, remote.status, remote.terminal, remote.rows) == ("b", "scheduling", False, None)

    created = {"id": "b", "status": "scheduling", "request_counts": None, "errors": None}
    scripted("openai", test, wire.reply({"id": "8a6e-uuid", "status": "uploaded"}), wire.reply(created))


def test_an_anthropic_create_streams_the_file(tmp_path: Path) -> None:
    async def test(made: Any, server: Server) -> None:
        slip = ticket(made, tmp_path, rows=2000)
        await made.submit(slip)
        rows = [json.loads(line) for line in slip.file.read_bytes().split(b"\n") if line]
        assert server.asked[0].json == {"requests": rows}
        assert int(server.asked[0].headers["content-length"]) == len(server.asked[0].body)
        assert "transfer-encoding" not in server.asked[0].headers

    scripted("anthropic", test, wire.reply({"id": "b", "processing_status": "in_progress"}))


def test_lines_say_neither_stream_nor_tier() -> None:
    asked = {"params": {"stream": True, "service_tier": "flex", "stream_options": {}}}
    for name in ("openai", "anthropic"):
        made = BATCH_PROVIDERS[name](Endpoint(name, "http://x/v1", True, "A_KEY"))
        line = made.line("a", stored(request(name, **asked)))
        row = json.loads(line)
        assert line.endswith(b"}\n")
        assert line.count(b"\n") == 1
        body = row["body"] if name == "openai" else row["params"]
        assert not {"stream", "service_tier", "stream_options"} & set(body)
        if name == "openai":
            assert (row["custom_id"], row["method"], row["url"]) == ("a", "POST", "/v1/chat/completions")


def paged(total: int, each: Callable[[int], dict[str, Any]], size: int = 2) -> list[Script]:
    """Pages of entries, newest first."""
    pages = [[each(i) for i in range(at, min(at + size, total))] for at in range(0, total, size)]
    return [wire.reply({"data": page, "has_more": page is not pages[-1]}) for page in pages]


def test_find_pages_back_and_matches_metadata_or_file(tmp_path: Path) -> None:
    def each(i: int) -> dict[str, Any]:
        ours = {3: {"metadata": {"shunter_batch": "b-1"}}, 4: {"input_file_id": "file-1", "metadata": None}}
        return {"id": f"b{i}", "status": "in_progress", "created_at": int(NOW.timestamp()) - i, **ours.get(i, {})}

    async def test(made: Any, server: Server) -> None:
        found = await made.find(ticket(made, tmp_path, file_id="file-1"))
        assert [remote.id for remote in found] == ["b4", "b3"]
        assert [asked.target.partition("after=")[2] for asked in server.asked] == ["", "b1", "b3"]

    scripted("openai", test, *paged(6, each))


def test_find_stops_at_what_is_too_old_and_at_a_cursor_that_goes_in_circles(tmp_path: Path) -> None:
    old = int((NOW - timedelta(days=1)).timestamp())

    async def test(made: Any, server: Server) -> int:
        assert await made.find(ticket(made, tmp_path)) == []
        assert await made.find_file(ticket(made, tmp_path)) is None
        return len(server.asked)

    page = wire.reply({"data": [{"id": "x", "created_at": old}], "has_more": True})
    assert scripted("openai", test, page) == 2
    circle = wire.reply({"data": [{"id": "x", "created_at": None}], "has_more": True})
    assert scripted("openai", test, circle) == 4


def test_find_file_takes_the_newest_of_its_name(tmp_path: Path) -> None:
    def each(i: int) -> dict[str, Any]:
        name = "shunter-b-1-1.jsonl" if i in (1, 2) else "other.jsonl"
        return {"id": f"f{i}", "filename": name, "created_at": int(NOW.timestamp()) + i}

    async def test(made: Any, _: Server) -> Any:
        return await made.find_file(ticket(made, tmp_path))

    assert scripted("openai", test, *paged(4, each)) == "f2"


def test_anthropic_candidates_match_time_and_rows(tmp_path: Path) -> None:
    def each(i: int) -> dict[str, Any]:
        made = NOW - timedelta(days=i // 4)
        counts = {"processing": 3 if i != 1 else 7, "succeeded": 0}
        return {
            "id": f"b{i}",
            "processing_status": "in_progress",
            "created_at": made.isoformat(),
            "request_counts": counts,
        }

    async def test(made: Any, _: Server) -> list[str]:
        return [remote.id for remote in await made.find(ticket(made, tmp_path))]

    assert sorted(scripted("anthropic", test, *paged(8, each))) == ["b0", "b2", "b3"]


def test_a_failed_batch_says_why_and_where() -> None:
    async def test(made: Any, _: Server) -> Remote:
        remote: Remote = await made.poll("b")
        return remote

    raw = {
        "id": "b",
        "status": "failed",
        "output_file_id": "",
        "errors": {"data": [{"code": "invalid_json_line", "line": 2, "message": f"line 2 {KEY}"}]},
        "expires_at": 1800000000,
    }
    remote = scripted("openai", test, wire.reply(raw))
    assert (remote.terminal, remote.error_code, remote.error_lines, remote.error) == (
        True,
        "invalid_json_line",
        ((2, "invalid_json_line", "line 2 [key]"),),
        "line 2 [key]",
    )
    assert (remote.output_file_id, remote.expires_at) == (None, datetime.fromtimestamp(1800000000, UTC))
