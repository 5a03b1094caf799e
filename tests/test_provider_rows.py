"""Result files, byte by byte: what OpenAI, Anthropic and the servers like them send for a row."""

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.chat import Outcome
from jobs.errors import Transient
from jobs.providers import Remote, Row, Ticket
from jobs.providers.anthropic_batch import row_of as anthropic_row
from jobs.providers.openai_batch import row_of as openai_row
from tests import wire
from tests.batch_wire import batches, run, scripted
from tests.wire import Script, Server

NOW = datetime.now(UTC)
BODY = {
    "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def collected(name: str, remote: Remote, *scripts: Script) -> list[Row]:
    async def test(made: Any, _: Server) -> list[Row]:
        return [row async for row in made.collect(remote)]

    rows: list[Row] = scripted(name, test, *scripts)
    return rows


def output(*rows: Any) -> Script:
    data = b"".join(
        (row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()) + b"\n" for row in rows
    )
    return wire.stream(*(data[i : i + 50] for i in range(0, len(data), 50)), kind="application/octet-stream")


ENDED = Remote("b", "completed", True, output_file_id="out", error_file_id="err")


def good(custom_id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "r",
        "custom_id": custom_id,
        "response": {"status_code": 200, "request_id": "q", "body": BODY, **more},
    }


def test_both_files_are_read_and_split_at_newlines_only() -> None:
    odd = {"choices": [{"message": {"content": "a\u2028b\x85c\x0bd"}, "finish_reason": "stop"}]}
    rows = collected(
        "openai",
        ENDED,
        output(good("a"), b"", good("b", body=json.dumps(BODY)), good("c", body=odd), b'{"broken"'),
        output({"custom_id": "d", "response": None, "error": {"code": "batch_expired", "message": "late"}}),
    )
    assert [row.custom_id for row in rows] == ["a", "b", "c", "", "d"]
    assert [bool(row.answer and row.answer.usable) for row in rows] == [True, True, True, False, False]
    assert rows[2].answer is not None
    assert rows[2].answer.first.text == "a\u2028b\x85c\x0bd"
    assert (rows[3].error_code, rows[4].expired) == ("malformed_row", True)
    assert rows[0].answer is not None
    assert (rows[0].answer.tier, rows[0].answer.request_id) == ("batch", "q")


def test_an_empty_error_file_and_missing_ids() -> None:
    assert collected("openai", ENDED, output(), wire.reply(b"")) == []
    assert collected("openai", replace(ENDED, output_file_id=None, error_file_id=None), wire.mute) == []


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_a_result_file_that_is_cut_is_an_error(end: str) -> None:
    script = wire.stream(json.dumps(good("a")).encode() + b"\n", b'{"custom', end=end)
    with pytest.raises(Transient) as caught:
        collected("openai", ENDED, script)
    assert caught.value.code == "cut"


def test_a_cut_that_looks_like_an_end_is_an_error_too() -> None:
    with pytest.raises(Transient) as caught:
        collected("openai", ENDED, wire.until_close(json.dumps(good("a")).encode() + b"\n", b'{"custom'))
    assert caught.value.code == "cut_file"


def test_a_last_line_without_a_newline_is_a_row() -> None:
    assert len(collected("openai", ENDED, wire.until_close(json.dumps(good("a")).encode()), output())) == 1


@pytest.mark.parametrize(
    ("raw", "code", "facts"),
    [
        (
            {"response": {"status_code": 400, "body": {"error": {"code": "bad", "message": "m"}}}},
            "bad",
            (False, False, False),
        ),
        (
            {"response": {"status_code": 500, "body": {"error": {"type": "server_error"}}}},
            "server_error",
            (True, False, False),
        ),
        ({"response": {"status_code": 429, "body": None}, "error": None}, "http_429", (True, False, False)),
        (
            {"response": {"status_code": 429, "body": {"error": {"code": "insufficient_quota"}}}},
            "insufficient_quota",
            (False, False, False),
        ),
        ({"response": {"status_code": 0, "body": {}}}, "no_response", (True, False, False)),
        ({"response": None}, "no_response", (True, False, False)),
        ({}, "no_response", (True, False, False)),
        ({"response": None, "error": {"code": "batch_expired", "message": "m"}}, "batch_expired", (True, True, False)),
        ({"response": None, "error": {"code": "batch_cancelled"}}, "batch_cancelled", (True, False, True)),
        ({"error": {"type": "invalid_request_error", "message": "m"}}, "invalid_request_error", (False, False, False)),
        (
            {"response": None, "error": {"code": "inference_failed", "message": "m"}},
            "inference_failed",
            (True, False, False),
        ),
        (
            {"response": {"status_code": 200, "body": {"error": {"code": "overloaded"}}}},
            "overloaded",
            (True, False, False),
        ),
    ],
)
def test_rows_without_an_answer(raw: dict[str, Any], code: str, facts: tuple[bool, bool, bool]) -> None:
    row = openai_row({"custom_id": "a", **raw})
    assert (row.custom_id, row.answer, row.error_code) == ("a", None, code)
    assert (row.retry, row.expired, row.cancelled) == facts


@pytest.mark.parametrize("body", [None, "", "nonsense", {}, {"choices": []}, []])
def test_a_row_of_status_200_without_choices_is_malformed(body: Any) -> None:
    row = openai_row({"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None})
    assert row.answer is not None
    assert (row.answer.outcome, row.error_code, row.retry) == (Outcome.MALFORMED, "malformed", True)


@pytest.mark.parametrize(
    ("result", "code", "facts"),
    [
        (
            {"type": "errored", "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "m"}}},
            "invalid_request_error",
            (False, False, False),
        ),
        (
            {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "m"}}},
            "api_error",
            (True, False, False),
        ),
        ({"type": "canceled"}, "batch_cancelled", (True, False, True)),
        ({"type": "expired"}, "batch_expired", (True, True, False)),
        (None, "no_result", (True, False, False)),
    ],
)
def test_anthropic_rows_without_an_answer(result: Any, code: str, facts: tuple[bool, bool, bool]) -> None:
    row = anthropic_row({"custom_id": "a", "result": result})
    assert (row.answer, row.error_code, row.retry, row.expired, row.cancelled) == (None, code, *facts)


async def big_file(peer: wire.Peer) -> None:
    row = (json.dumps(good("a" * 60)) + " " * 4000 + "\n").encode()
    await peer.send(wire.head(200, "application/octet-stream", transfer_encoding="chunked") + b"\r\n")
    for _ in range(400):
        await peer.send(wire.chunk(row * 10))
    await peer.send(b"0\r\n\r\n")


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take an upload without keeping it."""
    head = await reader.readuntil(b"\r\n\r\n")
    left = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
    while left:
        left -= len(await reader.read(min(left, 1 << 16)))
    body = b'{"id": "made"}'
    writer.write(wire.head(content_length=str(len(body))) + b"\r\n" + body)
    await writer.drain()
    writer.close()


async def peak(work: Awaitable[Any]) -> tuple[Any, int]:
    tracemalloc.start()
    try:
        return await work, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_files_of_16_mb_go_through_4_mb_of_memory(name: str, tmp_path: Path) -> None:
    async def count(made: Any) -> int:
        return len([1 async for _ in made.collect(replace(ENDED, error_file_id=None))])

    async def read(made: Any, _: Server) -> tuple[int, int]:
        await made.has_batch_api()  # what the SDK imports on its first call is not the file's
        return await peak(count(made))

    async def sent() -> int:
        (tmp_path / "big").write_bytes((b"x" * 999 + b"\n") * 16_000)
        server = await asyncio.start_server(swallow, "127.0.0.1", 0)
        async with batches(name, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as made:
            slip = Ticket("b-1", 3, tmp_path / "big", "f.jsonl", None, NOW, 1, "here")
            await (made.upload(slip) if made.has_files else made.submit(slip))
            _, most = await peak(made.upload(slip) if made.has_files else made.submit(slip))
        server.close()
        return most

    rows, most = scripted(name, read, wire.reply({"data": []}), big_file)
    assert (rows, most < 4_000_000) == (4000, True)
    assert run(sent) < 4_000_000
