"""submit, explain and worker as a person types them, against a real sandbox, with every wrong input of the book."""

import io
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from jobs.sandbox.server import Sandbox
from tests.commands import Shell, refused

ROWS = "".join(json.dumps({"prompt": f"Name bird number {n}.", "custom_id": f"bird-{n}"}) + "\n" for n in range(5))


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, sandbox: Sandbox
) -> Shell:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sandbox")
    return Shell(monkeypatch, capsys, tmp_path)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    path = tmp_path / "birds.jsonl"
    path.write_text(ROWS)
    return path


def test_a_prompt_is_answered_on_stdout_and_talked_about_on_stderr(shell: Shell) -> None:
    done = shell("submit", "Capital of France, in one word?")
    assert done.code == 0
    assert done.out.startswith("[sandbox]")
    assert done.err.startswith("sync · ")


def test_a_long_answer_is_streamed(shell: Shell) -> None:
    events = [json.loads(line) for line in shell("submit", "--json", "Explain rivers in detail").out.splitlines()]
    assert [event["event"] for event in events[:2]] == ["decision", "delta"]
    job = events[-1]
    assert (job["event"], job["state"], job["lane"]) == ("job", "succeeded", "stream")
    assert job["text"] == "".join(event.get("text", "") for event in events if event["event"] == "delta")


def test_a_file_goes_from_submit_to_the_report(shell: Shell, birds: Path, sandbox: Sandbox) -> None:
    told = shell("submit", "--file", str(birds), "--json").json
    assert told | {"submission": ""} == {
        "submission": "", "accepted": 5, "duplicates": 0, "rejected": 0, "rejects_file": None,
    }  # fmt: skip
    assert shell("worker", "--once").code == 0
    billed = sandbox.bill()["totals"]["cost_nano_usd"]
    assert round(float(shell("report", "cost", "--json").json["total_usd"]) * 1e9) == billed > 0
    jobs = shell("jobs", "list", "--json").json["jobs"]
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert "Batch API" in shell("jobs", "show", "bird-3", "--json").json["decision"]["reason"]


def test_the_same_file_again_adds_nothing_and_says_so(shell: Shell, birds: Path) -> None:
    shell("submit", "--file", str(birds))
    again = shell("submit", "--file", str(birds), "--json")
    assert (again.json["accepted"], again.json["duplicates"]) == (0, 5)
    assert "5 known already and skipped (bird-0, bird-1" in again.err
    dry = shell("submit", "--file", str(birds), "--dry-run")
    assert "5 known already" in dry.err
    assert shell("submit", "--file", str(birds), "--again", "--json").json["accepted"] == 5


def test_a_dry_run_prints_one_decision_a_line_and_keeps_nothing(shell: Shell, birds: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in shell("submit", "--file", str(birds), "--dry-run", "--json").out.splitlines()]
    assert [line["client_key"] for line in lines] == [f"bird-{n}" for n in range(5)]
    assert all(line["lane"] == "batch" and line["options"] and not line["known"] for line in lines)
    assert not list(tmp_path.glob("shunter.db*"))


def test_bad_rows_are_kept_beside_the_others_success(shell: Shell, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_bytes(b'{"prompt": "Hi"}\n[1]\n{"prompt": ""}\n{"prompt": "caf\xe9"}\n')
    done = shell("submit", "--file", str(mixed), "--json")
    assert done.code == 4
    assert (done.json["accepted"], done.json["rejected"]) == (1, 3)
    kept = [json.loads(line) for line in Path(done.json["rejects_file"]).read_text().splitlines()]
    assert [row["line"] for row in kept] == [2, 3, 4]


def test_a_cap_that_refuses_every_row_is_a_refusal(shell: Shell, birds: Path) -> None:
    done = shell("submit", "--file", str(birds), "--max-cost", "0.00000001")
    assert done.code == 3
    assert "over the cap" in done.err


def test_wait_runs_the_live_jobs_of_a_file(shell: Shell, birds: Path) -> None:
    done = shell("submit", "--file", str(birds), "--lane", "sync", "--wait")
    assert done.code == 0
    assert "5 succeeded" in done.err


def test_a_key_stands_for_one_request(shell: Shell, sandbox: Sandbox) -> None:
    first = shell("submit", "--key", "k", "--post-process", "tr a-z A-Z", "Say hi in one word.")
    assert first.out.startswith("[SANDBOX]")
    again = shell("submit", "--key", "k", "--post-process", "tr a-z A-Z", "Say hi in one word.")
    assert again.out == first.out
    assert "nothing new is sent" in again.err
    refused(shell("submit", "--key", "k", "--post-process", "rev", "Say hi in one word."), 2, "another request")
    refused(shell("submit", "--key", "k", "Say ho in one word."), 2, "another request", "--again")
    assert sandbox.bill()["totals"]["rows"] == 1


def test_explain_shows_every_road_and_sends_nothing(shell: Shell, sandbox: Sandbox) -> None:
    shown = shell("explain", "--deadline", "8h", "Summarize the history of Rome in detail")
    assert shown.code == 0
    for word in ("stream", "sync", "batch", "→", "taken"):
        assert word in shown.out
    assert sandbox.bill()["totals"]["rows"] == 0


def test_a_deadline_or_no_interactive_is_queued(shell: Shell) -> None:
    done = shell("submit", "--deadline", "2d", "Explain rivers.")
    assert done.code == 0
    assert shell("jobs", "show", done.out.strip(), "--json").json["state"] == "queued"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["submit", ""], 2, ["prompt is empty"]),
        (["submit"], 2, ["nothing to submit", "--file"]),
        (["submit", "hi", "--file", "x"], 2, ["not both"]),
        (["submit", "--max-tokens", "0", "hi"], 2, ["--max-tokens"]),
        (["submit", "--max-tokens", "99999999999", "hi"], 2, ["max_tokens"]),
        (["submit", "--priority", "12345", "hi"], 2, ["--priority"]),
        (["submit", "--deadline", "-3h", "hi"], 2, ["-3h", "negative"]),
        (["submit", "--deadline", "yesterday", "hi"], 2, ["yesterday", "6h"]),
        (["submit", "--deadline", "2020-01-01", "hi"], 2, ["past"]),
        (["submit", "--max-cost", "much", "hi"], 2, ["--max-cost", "0.25"]),
        (["submit", "--max-cost", "0.000000001", "Explain rivers"], 3, ["over the cap"]),
        (["submit", "--lane", "warp", "hi"], 2, ["--lane", "batch"]),
        (["submit", "--tag", "lonely", "hi"], 2, ["key=value"]),
        (["submit", "--schema", "none.json", "hi"], 2, ["none.json", "No such file"]),
        (["submit", "--schema", "list.json", "hi"], 2, ["list.json", "a list"]),
        (["submit", "--schema", "broken.json", "hi"], 2, ["broken.json", "not JSON"]),
        (["submit", "--schema", "wrong.json", "hi"], 2, ["wrong.json", "$.type"]),
        (["submit", "--tool", "list.json", "hi"], 2, ["list.json", "name"]),
        (["submit", "--file", "none.jsonl"], 2, ["none.jsonl", "No such file"]),
        (["submit", "--file", "utf16.txt"], 2, ["UTF-16", "iconv"]),
        (["submit", "--file", "latin.txt"], 2, ["line 1", "UTF-8", "0xE9"]),
        (["submit", "--file", "list.jsonl"], 2, ["line 1", "not a JSON object"]),
        (["submit", "--file", "x.jsonl", "--format", "xml"], 2, ["--format", "csv"]),
        (["submit", "-m", "no-such-model", "hi"], 2, ["no-such-model", "does not exist"]),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_that_says_what_where_and_what_to_do(
    shell: Shell, tmp_path: Path, words: list[str], code: int, says: list[str]
) -> None:
    tmp_path.joinpath("list.json").write_text("[1]")
    tmp_path.joinpath("broken.json").write_text("{x")
    tmp_path.joinpath("wrong.json").write_text('{"type": "nope"}')
    tmp_path.joinpath("utf16.txt").write_bytes("hello".encode("utf-16"))
    tmp_path.joinpath("latin.txt").write_bytes("café\n".encode("latin-1"))
    tmp_path.joinpath("list.jsonl").write_text("[1, 2]\n")
    tmp_path.joinpath("x.jsonl").write_text("{}\n")
    refused(shell(*words), code, *says)


@pytest.mark.parametrize("words", [["submit", "hi"], ["submit", "--file", "birds.jsonl"], ["worker", "--once"]])
def test_without_a_key_it_says_which_and_names_the_demo(
    shell: Shell, birds: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    refused(shell(*words), 2, "OPENAI_API_KEY", "shunter demo")


def test_a_wrong_key_is_said_without_the_key(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-2f81c0")
    done = shell("submit", "hi")
    refused(done, 2, "401", "OPENAI_API_KEY")
    assert "2f81c0" not in done.err


def test_a_database_from_a_newer_version_is_left_alone(shell: Shell, tmp_path: Path) -> None:
    shell("jobs", "list")
    with sqlite3.connect(tmp_path / "shunter.db") as connection:
        connection.execute("INSERT INTO migration VALUES (99, 'm099_later', 'x')")
    connection.close()
    refused(shell("submit", "hi"), 2, "newer version", "schema 99")


def test_a_prompt_on_stdin(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Wie heißt du?".encode())))
    assert shell("submit", "-").out.startswith("[sandbox]")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
    refused(shell("submit", "-"), 2, "UTF-8")
