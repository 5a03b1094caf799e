"""Exports: every job once and in order, however often they are cut off, in each of the three forms."""

import csv
import json
from pathlib import Path

import pytest

from db import export, queue, settle
from db.engine import Store
from db.ledger import Charge
from db.settle import Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from jobs.errors import UsageError
from router.exporting import export_to
from tests.commands import Shell, refused
from tests.lanes import NOW, add, job

PAID = Charge(AttemptState.OK, 12_345, CostSource.COMPUTED, 24_690, input_tokens=3, cached_tokens=1, output_tokens=5,
              request_id="req_1")  # fmt: skip
CALL = {"id": "call_1", "name": "look", "arguments": {"at": 1}, "raw": '{"at":1}'}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


def past(store: Store, count: int = 3) -> list[str]:
    """Jobs that were answered, one that failed, and one that waits."""
    ids = [add(store, job(lane="sync", client_key=f"k{n}", tags={"n": "1"}))[0] for n in range(count + 1)]
    for n, claim in enumerate(queue.claim(store, "me", NOW, count + 1, NOW, ["openai"])):
        end = Succeeded(Text('say "hi",\nyes', "stop", tool_calls=[CALL] if n == 0 else None))
        charge = PAID
        if n == count:
            end, charge = Failed("http_500", "no"), Charge.free(AttemptState.FAILED, code="http_500", error="no")  # type: ignore[assignment]
        settle.settle(store, [Settlement(claim.job_id, claim.n, charge, end)], NOW)
    return [*ids, *add(store, job())]


@pytest.mark.both
def test_the_form_of_a_batch_api_has_final_jobs_with_all_of_their_answer(store: Store, tmp_path: Path) -> None:
    ids, path = past(store), tmp_path / "out.jsonl"
    assert export_to(store, None, None, str(path), "batch") == 4
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines] == ids[:4]
    assert [line["custom_id"] for line in lines] == ["k0", "k1", "k2", "k3"]
    body = lines[0]["response"]["body"]
    assert (lines[0]["response"]["status_code"], lines[0]["response"]["request_id"], lines[0]["error"]) == (
        200, "req_1", None,
    )  # fmt: skip
    assert body["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    (choice,) = body["choices"]
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
    assert choice["message"] == {
        "role": "assistant", "content": 'say "hi",\nyes', "refusal": None, "tool_calls": [call],
    }  # fmt: skip
    assert (choice["finish_reason"], body["created"]) == ("stop", int(NOW.timestamp()))
    assert (lines[3]["response"], lines[3]["error"]) == (None, {"code": "http_500", "message": "no"})


@pytest.mark.parametrize("form", ["jsonl", "batch"])
def test_an_export_that_was_cut_off_goes_on_to_the_same_bytes(
    store: Store, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PAGE", 2)
    past(store)
    whole, part = tmp_path / "whole", tmp_path / "part"
    export_to(store, None, None, str(whole), form, resume=True)
    wanted = whole.read_bytes()
    for cut in [0, 3, *(wanted.index(b"\n") + n for n in (0, 1, 9)), len(wanted) - 1, len(wanted)]:
        part.write_bytes(wanted[:cut])
        export_to(store, None, None, str(part), form, resume=True)
        assert part.read_bytes() == wanted


@pytest.mark.parametrize("text", ["my notes", "my notes\n", '{"a": 1}\n{"id'])
def test_a_file_that_is_no_export_is_left_as_it_is(store: Store, tmp_path: Path, text: str) -> None:
    (tmp_path / "notes").write_text(text)
    with pytest.raises(UsageError, match="name a new file"):
        export_to(store, None, None, str(tmp_path / "notes"), resume=True)
    assert (tmp_path / "notes").read_text() == text


@pytest.mark.parametrize(("form", "other"), [("jsonl", "batch"), ("batch", "jsonl")])
def test_an_export_is_not_gone_on_with_in_another_form(store: Store, tmp_path: Path, form: str, other: str) -> None:
    past(store)
    export_to(store, None, None, str(tmp_path / "out"), form)
    wanted = (tmp_path / "out").read_bytes()
    with pytest.raises(UsageError, match="of this form"):
        export_to(store, None, None, str(tmp_path / "out"), other, resume=True)
    assert (tmp_path / "out").read_bytes() == wanted


def test_csv_has_a_row_for_each_job(store: Store, run: Shell, tmp_path: Path) -> None:
    ids = past(store)
    assert run("jobs", "export", "--format", "csv", "-o", "out.csv").code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ids
    assert (rows[0]["text"], rows[0]["cost_usd"], rows[0]["tags"]) == ('say "hi",\nyes', "0.000012345", '{"n":"1"}')
    assert (rows[3]["error_code"], rows[3]["error"], rows[4]["state"]) == ("http_500", "no", "queued")
    after = run("jobs", "export", "--after", ids[2]).out.splitlines()
    assert [json.loads(line)["id"] for line in after] == ids[3:]
    assert run("jobs", "export", "--after", "k2").out.splitlines() == after
    refused(run("jobs", "export", "--after", "nobody"), 2, "there is no job 'nobody'")
    refused(run("jobs", "export", "--format", "xml"), 2, "jsonl, csv, batch")
    refused(run("jobs", "export", "--format", "csv", "-o", "out.csv", "--resume"), 2, "jsonl or batch")
