"""Batches whose files come in pieces, and that say of themselves what nobody can read, from pack to import."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db.engine import Store
from tests.lanes import rows
from tests.personalities import AIMOCK, OGX, OPENAI, Fault, Play, Raw
from tests.quirk_lanes import HOUR, PAST_ITS_END, At, lanes_at, lived, shown

CONTENT = "/v1/files/*/content"


@pytest.fixture
def at(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    with lanes_at(store, tmp_path, monkeypatch) as made:
        yield made


# ---- downloads that go wrong ----


@pytest.mark.parametrize("status", [0, 404, 408, 429, 500, 502])
def test_a_download_that_fails_once(at: At, status: int) -> None:
    world = at(OPENAI)
    world.server.faults = [Fault("GET", CONTENT, status), Fault("GET", CONTENT, status)]
    lived(world)
    assert world.batches() == 1


@pytest.mark.parametrize("failures", [0, 2])
def test_rows_hear_why_their_batch_ended_and_not_of_a_download_that_failed(at: At, failures: int) -> None:
    """Three are in neither file: while they wait for their next try they say how the first one ended."""
    world = at(OPENAI, Play(output=lambda rows: rows[:7]), Play(end=""))
    world.server.faults = [Fault("GET", CONTENT, 500)] * failures
    world.ask()
    while not rows(world.store, "SELECT 1 FROM attempt WHERE state = 'unknown'"):
        world.look(60)
    assert rows(world.store, "SELECT error_code FROM job WHERE state <> 'succeeded'") == [("batch_completed",)] * 3


def test_a_last_line_that_was_cut_once(at: At) -> None:
    world = at(OPENAI)
    world.ask()
    world.look()
    (held,) = world.server.batches.values()
    held.play = Play(data=lambda data: data[:-40])
    for _ in range(4):
        world.look(60)
    assert not world.ended()
    whole = b"".join(json.dumps(row).encode() + b"\n" for row in held.ran)
    world.server.files[str(held.files["output_file_id"])] = ("out", whole)
    world.until_final()
    world.holds()
    assert world.batches() == 1


def test_a_last_line_that_stays_cut(at: At) -> None:
    """Nine answers are whole: they are neither lost nor paid for again."""
    world = lived(at(OPENAI, Play(data=lambda data: data[:-40])), paid=11)
    assert world.attempts() == {"unknown": 1, "ok": 10}


def test_a_line_in_the_middle_that_is_broken(at: At) -> None:
    def broken(data: bytes) -> bytes:
        lines = data.split(b"\n")
        return b"\n".join([*lines[:3], lines[3][:50], *lines[4:]])

    world = lived(at(OPENAI, Play(data=broken)), paid=11)
    assert world.attempts() == {"unknown": 1, "ok": 10}


def test_an_output_file_that_is_gone(at: At) -> None:
    """A restart after the end: the batch is known, its file is not. An hour past its end its rows go again."""
    world = at(AIMOCK)
    world.ask()
    world.server.faults = [Fault("GET", CONTENT, 404) for _ in range(400)]
    for _ in range(6):
        world.look(60)
    assert world.states() == {"submitted": 10}
    world.look(PAST_ITS_END)
    world.server.faults = []
    world.until_final()
    assert world.states() == {"succeeded": 10}
    assert set(world.server.bill.values()) == {1}


# ---- words and times ----


@pytest.mark.parametrize("word", ["error", "succeeded", "", "COMPLETED"])
def test_a_status_that_no_one_knows_and_that_stays(at: At, word: str) -> None:
    """An hour past its end what it shows is imported; only rows without an answer are sent again."""
    world = at(OPENAI, Play(end=word or "nothing", batch=lambda raw: {**raw, "status": raw["status"] or None}))
    world.ask()
    for _ in range(8):
        world.look(HOUR)
    world.look(PAST_ITS_END)
    world.until_final()
    world.holds()
    assert world.batches() == 1


def test_a_batch_that_stays_in_progress_and_shows_a_part(at: At) -> None:
    def early(raw: Raw) -> Raw:
        return {**raw, "output_file_id": "part"} if raw["status"] in ("in_progress", "cancelling") else raw

    world = at(OGX, Play(end="", runs=6, batch=early))
    world.ask()
    for _ in range(4):
        world.look(60)
    (held,) = world.server.batches.values()
    world.server.files["part"] = ("out", b"".join(json.dumps(row).encode() + b"\n" for row in held.ran))
    held.stands = True
    world.look(PAST_ITS_END)
    world.until_final()
    world.holds(paid=10)
    assert world.batches() == 2


@pytest.mark.parametrize(
    ("expires", "created"),
    [
        (None, None),
        (0, 0),
        ("soon", "yesterday"),
        (1, None),
        ("2020-01-01T00:00:00Z", 1),
        (1e18, 1e18),
        (True, []),
        ([], -1),
    ],
)
def test_times_that_are_absent_or_nonsense(at: At, expires: Any, created: Any) -> None:
    world = at(OPENAI, Play(batch=shown(expires_at=expires, created_at=created)))
    world.server.faults = [Fault("POST", "/v1/batches", done=True)]
    lived(world)
    assert world.batches() == 1
    assert not any(path.endswith("/cancel") for _, path in world.server.asked)


@pytest.mark.parametrize("status", [None, 7, [], {"a": 1}])
def test_a_status_that_is_no_word_for_a_while(at: At, status: Any) -> None:
    def early(raw: Raw) -> Raw:
        return raw if raw["status"] in ("finalizing", "completed") else {**raw, "status": status}

    lived(at(OPENAI, Play(batch=early)))


@pytest.mark.parametrize("counts", [None, [], "3", {"total": "10", "completed": None}, {"total": -1}])
def test_counts_of_any_shape(at: At, counts: Any) -> None:
    lived(at(OPENAI, Play(batch=lambda raw: {**raw, "request_counts": counts})))


@pytest.mark.parametrize("metadata", [None, {}, "x", {"shunter_batch": None}])
def test_a_server_that_keeps_no_metadata(at: At, metadata: Any) -> None:
    """A lost create is known by its input file."""
    world = at(OPENAI, Play(batch=lambda raw: {**raw, "metadata": metadata}))
    world.server.faults = [Fault("POST", "/v1/batches", done=True)]
    lived(world)
    assert world.batches() == 1
