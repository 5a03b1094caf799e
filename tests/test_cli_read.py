"""The commands that look at jobs and batches: JSON, exit codes, one line for each error, over a real store."""

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import text

from db import batches, queue
from db.engine import Store
from db.migrations import MIGRATIONS
from tests.commands import Shell, finish, packed, refused, submitted
from tests.lanes import add, job, rows, states

EVERY = [
    ["jobs", "list"], ["jobs", "show", "x"], ["jobs", "cancel", "x"], ["jobs", "retry", "x"], ["jobs", "wait", "x"],
    ["jobs", "export"], ["batches", "list"], ["batches", "show", "x"], ["batches", "cancel", "x"], ["report", "cost"],
    ["report", "latency"], ["report", "savings"], ["db", "migrate"], ["db", "backup", "copy.db"],
]  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


# ---- an empty database, a bad one, none ----


def test_an_empty_database_is_no_error(run: Shell) -> None:
    for command in (
        ["jobs", "list"],
        ["batches", "list"],
        ["report", "cost"],
        ["report", "latency"],
        ["report", "savings"],
    ):
        assert run(*command).code == 0
        assert run(*command, "--json").json
    assert run("jobs", "list", "--json").json == {"jobs": [], "next": None}
    assert run("batches", "list", "--json").json == {"batches": []}
    assert run("report", "cost", "--json").json == {
        "total_usd": "0", "unknown_attempts": 0, "open_attempts": 0, "at_risk_usd": "0", "rows": [],
    }  # fmt: skip
    assert run("jobs", "export").out == ""


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_a_database_from_a_newer_version_is_named_by_every_command(
    store: Store, run: Shell, command: list[str]
) -> None:
    with store.write() as connection:
        connection.execute(text("INSERT INTO migration VALUES (:n, 'm999', '2027')"), {"n": len(MIGRATIONS) + 1})
    refused(run(*command), 2, "newer version", "upgrade")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    folder = locked if os.geteuid() else Path("/proc")  # root may write everywhere but there
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{folder / 'x.db'}")
    refused(run("report", "cost"), 2, f"{folder}/x.db", "writable")


@pytest.mark.parametrize("command", [["jobs", "list"], ["report", "cost"], ["db", "migrate"]])
def test_a_path_that_is_no_database_is_named(
    tmp_path: Path, run: Shell, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "file").write_text("not a database, but long enough to be taken for one\n" * 30)
    for path, word in (("file", "not a SQLite database"), ("file/x.db", "cannot be opened")):
        monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / path}")
        refused(run(*command), 2, path, word)


# ---- jobs ----


def test_a_page_of_jobs_goes_on_where_it_ended(store: Store, run: Shell) -> None:
    idents = [finish(store) for _ in range(3)]
    page = run("jobs", "list", "-n", "2", "--json").json
    assert [one["id"] for one in page["jobs"]] == idents[:0:-1]
    rest = run("jobs", "list", "--after", page["next"], "--json").json
    assert ([one["id"] for one in rest["jobs"]], rest["next"]) == (idents[:1], None)
    drawn = run("jobs", "list", "-n", "2")
    assert idents[2] in drawn.out
    assert f"--after {page['next']}" in drawn.err
    assert max(map(len, drawn.out.splitlines())) <= 80


def test_jobs_are_listed_by_state(store: Store, run: Shell) -> None:
    finish(store)
    bad = finish(store, failed=True)
    assert [one["id"] for one in run("jobs", "list", "--state", "failed", "--json").json["jobs"]] == [bad]
    refused(run("jobs", "list", "--state", "lost"), 2, "'lost'", "succeeded")


def test_a_job_is_shown_by_id_beginning_or_key(store: Store, run: Shell) -> None:
    ident = finish(store, client_key="invoice-17", tags={"team": "a"})
    for word in (ident, ident[:-1], "invoice-17"):
        shown = run("jobs", "show", word, "--json").json
        assert (shown["id"], shown["cost_usd"], shown["text"]) == (ident, "0.000012345", "yes")
    drawn = run("jobs", "show", ident)
    for words in (ident, "invoice-17", "succeeded", "$0.000012", "yes", "team=a"):
        assert words in drawn.out


def test_a_word_that_names_no_job_or_several_is_refused(store: Store, run: Shell) -> None:
    first, second = finish(store, client_key="twice"), finish(store, client_key="twice")
    refused(run("jobs", "show", "twice"), 2, first, second)
    refused(run("jobs", "show", first[:3]), 2, first)
    for command in (["show"], ["cancel"], ["retry"], ["wait"]):
        refused(run("jobs", *command, "nobody"), 2, "'nobody'", "shunter jobs list")


def test_jobs_are_cancelled_and_tried_again(store: Store, run: Shell) -> None:
    (ident,) = add(store, job())
    assert run("jobs", "cancel", ident, ident, "--json").json == {"cancelled": [ident], "stopping": [], "left": []}
    again = run("jobs", "cancel", ident, "--json")
    left = [{"id": ident, "state": "cancelled"}]
    assert (again.code, again.json) == (1, {"cancelled": [], "stopping": [], "left": left})
    assert again.err.count("\n") == 1
    assert run("jobs", "retry", ident, "--json").json == {"queued": [ident], "left": []}
    assert states(store) == {"queued": 1}
    refused_ = run("jobs", "retry", ident)
    assert (refused_.code, "queued" in refused_.err) == (1, True)


def test_waiting_ends_with_the_jobs(store: Store, run: Shell) -> None:
    good, bad = finish(store), finish(store, failed=True)
    assert run("jobs", "wait", good).code == 0
    done = run("jobs", "wait", good, bad, "--json")
    assert (done.code, done.json) == (4, {"jobs": [{"id": good, "state": "succeeded"}, {"id": bad, "state": "failed"}]})
    (queued,) = add(store, job())
    done = run("jobs", "wait", good, queued, "--timeout", "0.1s")
    assert (done.code, done.out) == (1, "")
    assert "no worker runs: start one" in done.err
    assert "1 of 2" in done.err
    refused(run("jobs", "wait", good, "--timeout", "soon"), 2, "'soon'", "90m")


def test_waiting_sees_what_another_process_does(store: Store, run: Shell) -> None:
    (ident,) = add(store, job())
    other = Thread(target=lambda: (Event().wait(0.4), queue.cancel(store, [ident], datetime.now(UTC))))
    other.start()
    assert run("jobs", "wait", ident, "--timeout", "30s").code == 4
    other.join()


def test_an_export_is_jsonl_in_order_and_its_file_is_private_and_new(store: Store, run: Shell, tmp_path: Path) -> None:
    idents = [finish(store), finish(store, failed=True), finish(store)]
    lines = [json.loads(line) for line in run("jobs", "export").out.splitlines()]
    assert [line["id"] for line in lines] == idents
    done = run("jobs", "export", "--state", "succeeded", "--since", "1h", "-o", "out.jsonl")
    assert (done.out, done.err) == ("", "2 jobs written to out.jsonl\n")
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    refused(run("jobs", "export", "-o", "out.jsonl"), 2, "out.jsonl", "exists")
    refused(run("jobs", "export", "-o", "no/where.jsonl"), 2, "no/where.jsonl")


# ---- batches ----


def test_batches_are_listed_and_shown(store: Store, run: Shell) -> None:
    ident = submitted(store)
    (row,) = run("batches", "list", "--json").json["batches"]
    assert (row["id"], row["rows"], row["done"], row["state"]) == (ident, 2, 0, "submitted")
    assert run("batches", "show", "batch_9", "--json").json["jobs"] == {"submitted": 2}
    assert ident in run("batches", "list").out
    assert "2 submitted" in run("batches", "show", ident).out
    refused(run("batches", "show", "batch_8"), 2, "'batch_8'", "shunter batches list")


def test_a_batch_that_was_not_sent_is_cancelled_for_nothing(store: Store, run: Shell) -> None:
    ident = packed(store)
    assert run("batches", "cancel", ident, "--json").json == {"batch": ident, "jobs_cancelled": 2, "at_provider": False}
    assert states(store) == {"cancelled": 2}
    assert rows(store, "SELECT DISTINCT state, cost_nano FROM attempt") == [("cancelled", 0)]


def test_a_batch_at_the_provider_is_marked_and_may_still_be_billed(store: Store, run: Shell) -> None:
    ident = submitted(store)
    assert run("batches", "cancel", ident, "--json").json == {"batch": ident, "jobs_cancelled": 2, "at_provider": True}
    assert rows(store, "SELECT DISTINCT state, cost_nano FROM attempt") == [("sent", None)]
    assert rows(store, "SELECT cancel_at IS NOT NULL FROM batch") == [(1,)]
    batches.imported(store, ident, datetime.now(UTC))
    refused(run("batches", "cancel", ident), 1, "nothing left to cancel")


# ---- as a process ----


def test_a_process_keeps_data_and_talk_apart_and_survives_a_closed_pipe(store: Store, tmp_path: Path) -> None:
    for _ in range(30):
        finish(store)
    env = os.environ | {"SHUNTER_DATABASE_URL": f"sqlite:///{tmp_path / 'shunter.db'}"}
    command = f"{sys.executable} -W error -m router jobs export | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=env, capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout)
    assert done.stderr == ""
    assert done.returncode in (0, 1, 141)  # as the pipe breaks while it writes, at its end, or not at all


@pytest.mark.parametrize("group", ["", "jobs", "batches", "report", "policy", "db"])
def test_every_command_helps_with_an_example(run: Shell, group: str) -> None:
    words = [group] if group else []
    shown = run(*words, "--help")
    assert shown.code == 0
    for line in shown.out.splitlines():
        name = line.removeprefix("│ ").split(" ")[0]
        if group and line.startswith("│ ") and name.isalpha():
            one = run(*words, name, "--help").out
            assert "Examples:" in one, name
            assert f"shunter {group} {name}" in one, name
