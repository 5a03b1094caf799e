"""Every way in which a batch can end that a server, a proxy or a cut connection may think of, from pack to import."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db.engine import Store
from tests.personalities import AIBRIX, OGX, OPENAI, Play, Raw
from tests.quirk_lanes import PROMPTS, At, final, lanes_at, lived


@pytest.fixture
def at(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    with lanes_at(store, tmp_path, monkeypatch) as made:
        yield made


# ---- files that are not there ----


@pytest.mark.parametrize(
    ("nothing", "counts"),
    [(None, {"total": 10, "completed": 10}), ("", {"total": 10, "completed": 10}), (None, None), ("", "x")],
)
def test_completed_with_no_file_at_all(at: At, nothing: str | None, counts: Any) -> None:
    """What was done cannot be told, so that every row may have been paid for."""
    without = final(output_file_id=nothing, error_file_id=nothing, request_counts=counts)
    world = lived(at(OPENAI, Play(batch=without)), paid=20)
    assert world.attempts() == {"unknown": 10, "ok": 10}


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_error_file_but_every_answer(at: At, nothing: str | None) -> None:
    lived(at(OPENAI, Play(batch=lambda raw: {**raw, "error_file_id": nothing})))


@pytest.mark.parametrize("nothing", [None, ""])
def test_every_row_failed_and_there_is_no_output_file(at: At, nothing: str | None) -> None:
    world = at(OPENAI, Play(batch=final(output_file_id=nothing)))
    world.ask(*(f"!400 {prompt}" for prompt in PROMPTS))
    world.until_final()
    world.holds(succeeded=0, failed=10)
    assert world.batches() == 1


@pytest.mark.parametrize("end", ["expired", "cancelled", "failed"])
def test_an_end_with_nothing_to_show_for_the_rows_that_ran(at: At, end: str) -> None:
    world = lived(at(OPENAI, Play(end=end, runs=5, files=False)), paid=15)
    assert world.attempts() == {"unknown": 10, "ok": 10}


def test_failed_half_way_with_files_and_a_reason(at: At) -> None:
    """AIBrix fails a batch whose model broke down, and gives the rows that were done; aimock gives both as well."""
    why = {"data": [{"code": "inference_failed", "message": "the engine has gone", "line": None}]}
    broken = Play(end="failed", runs=4, error_rows=False, batch=lambda raw: {**raw, "errors": why})
    lived(at(AIBRIX, broken))


@pytest.mark.parametrize("errors", [None, "out of order", [1, None], {"data": "x"}, {"data": [None, {}]}])
def test_failed_for_reasons_of_any_shape(at: At, errors: Any) -> None:
    world = at(OPENAI, *[Play(end="failed", runs=0, files=False, batch=lambda raw: {**raw, "errors": errors})] * 3)
    ids = world.ask()
    world.until_final()
    world.holds(succeeded=0, failed=10)
    assert world.job(ids[0])["error"]["message"]


# ---- rows that are not there, or not once ----


def test_rows_that_are_in_neither_file(at: At) -> None:
    """The counts say that they ran: what they cost is unknown, and they are sent again."""
    world = lived(at(OPENAI, Play(output=lambda rows: rows[:7])), paid=13)
    assert world.attempts() == {"unknown": 3, "ok": 10}


def test_rows_that_never_ran_and_are_in_neither_file(at: At) -> None:
    world = lived(at(OPENAI, Play(runs=7, error_rows=False)))
    assert world.attempts()["unknown"] == 0


def test_rows_that_are_there_more_than_once(at: At) -> None:
    lived(at(OPENAI, Play(output=lambda rows: rows * 3)))


def test_rows_that_are_there_twice_do_not_stand_for_those_that_are_missing(at: At) -> None:
    world = lived(at(OPENAI, Play(output=lambda rows: [*rows[:7], *rows[:7]])), paid=13)
    assert world.attempts() == {"unknown": 3, "ok": 10}


def test_a_row_that_is_answered_and_then_failed(at: At) -> None:
    def twice(rows: list[Raw]) -> list[Raw]:
        broken = {"response": {"status_code": 500, "body": {"error": {"message": "x"}}}, "error": None}
        return [*rows, *({**row, **broken} for row in rows)]

    lived(at(OPENAI, Play(output=twice)))


def test_a_row_that_is_failed_and_then_answered(at: At) -> None:
    def twice(rows: list[Raw]) -> list[Raw]:
        return [*({**row, "response": {"status_code": 500, "body": None}} for row in rows), *rows]

    world = at(OPENAI, Play(output=twice))
    world.ask()
    world.until_final()
    assert world.states() == {"succeeded": 10}
    assert sum(world.server.bill.values()) == 10


def test_rows_of_somebody_else(at: At) -> None:
    """Custom ids of no job, of an attempt that never was, of another batch, and none at all: all of them are left."""
    world = at(OPENAI)
    (other,) = world.ask("a row of another batch", model="gpt-6-luna")
    strange = ["", "x", "a_b_c", f"{'0' * 26}_1", f"{other}_1", f"{other}_7", f"{other}_{'9' * 30}", "x" * 26 + "_1"]

    def more(rows: list[Raw]) -> list[Raw]:
        wrong = [{**rows[0], "custom_id": name} for name in strange]
        return [*wrong, {**rows[0], "custom_id": None}, {**rows[0], "custom_id": 7}, *rows]

    world.server.plays = [Play(end=""), Play(output=more)]
    world.look()
    world.ask()
    for _ in range(8):
        world.look(60)
    assert world.states() == {"submitted": 1, "succeeded": 10}
    next(iter(world.server.batches.values())).play = Play()
    world.until_final()
    world.holds(succeeded=11)


# ---- rows of odd shapes ----


@pytest.mark.parametrize(
    "response",
    [
        None,
        {},
        {"status_code": 0, "body": {}},
        {"status_code": 0, "body": None},
        {"status_code": None, "body": None},
        {"status_code": "none"},
        {"status_code": 500, "body": "Internal Server Error"},
        {"status_code": 429, "body": {"error": {"message": "slow down"}}},
        "a string",
        [],
    ],
)
def test_a_row_that_brings_no_answer_is_sent_again(at: At, response: Any) -> None:
    """Status 0, no status, no body: the row was not done, whatever the batch says of itself."""

    def some(rows: list[Raw]) -> list[Raw]:
        return [*rows[:7], *({**row, "response": response} for row in rows[7:])]

    world = at(OPENAI, Play(output=some))
    world.ask()
    world.until_final()
    assert world.states() == {"succeeded": 10}
    assert world.batches() == 2


@pytest.mark.parametrize("body", [None, "null", "{", {}, {"choices": []}, []])
def test_a_row_of_status_200_without_an_answer_may_have_been_paid(at: At, body: Any) -> None:
    """A 422 behind LiteLLM is a 200 with `null`."""

    def some(rows: list[Raw]) -> list[Raw]:
        return [*rows[:7], *({**row, "response": {"status_code": 200, "body": body}} for row in rows[7:])]

    world = lived(at(OGX, Play(output=some)), paid=13)
    assert world.attempts() == {"unknown": 3, "ok": 10}


@pytest.mark.parametrize("key", ["id", "error", "response"])
def test_rows_without_a_key(at: At, key: str) -> None:
    world = at(OPENAI, Play(output=lambda rows: [{k: v for k, v in row.items() if k != key} for row in rows]))
    world.ask()
    world.until_final()
    assert world.states() == {"succeeded": 10}
    assert world.batches() == (2 if key == "response" else 1)


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\\u000b", "\\u001c"])
def test_signs_at_which_only_text_is_split(at: At, sign: str) -> None:
    """Raw in the middle of a row, as servers send them that do not escape."""
    world = at(OPENAI, Play(data=lambda data: data.replace(b"answer to", f"answer{sign} to".encode())))
    ids = world.ask()
    world.until_final()
    assert world.states() == {"succeeded": 10}
    assert world.batches() == 1
    said = json.loads(f'"answer{sign} to: {PROMPTS[0]}"', strict=False)
    assert world.job(ids[0])["text"] == said


@pytest.mark.parametrize("end", [b"\r\n", b"\n\n\n", b" \n", b"\n\r\n\t\n"])
def test_ends_of_lines_of_any_kind(at: At, end: bytes) -> None:
    lived(at(OPENAI, Play(data=lambda data: data.replace(b"\n", end))))


def test_a_carriage_return_inside_a_row(at: At) -> None:
    lived(at(OPENAI, Play(data=lambda data: data.replace(b', "response"', b',\r "response"'))))


def test_a_file_that_begins_with_a_mark_of_its_encoding(at: At) -> None:
    lived(at(OPENAI, Play(data=lambda data: b"\xef\xbb\xbf" + data)))
