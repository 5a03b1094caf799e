"""report, policy, doctor and db: JSON, CSV, exit codes, one line for each error, over a real store and server."""

import socket
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import text

from db import queue, reports
from db.engine import Store
from db.migrations import MIGRATIONS
from jobs.sandbox.server import Sandbox
from tests.commands import Shell, finish, refused, submitted
from tests.lanes import KEY, add, job, states


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


# ---- reports ----


def test_reports_are_drawn_in_eighty_columns(store: Store, run: Shell) -> None:
    finish(store, tags={"team": "search"})
    for kind in ("cost", "latency", "savings"):
        for by in ("lane", "lane,class,model,provider", "day,tag:team", "hour", ""):
            for how in ((), ("--plot",)):
                drawn = run("report", kind, "--by", by, *how)
                assert (drawn.code, drawn.err) == (0, "")
                assert max(map(len, drawn.out.splitlines())) <= 80
    assert "$0.000012" in run("report", "cost").out
    assert "50.0" in run("report", "savings").out


@pytest.mark.parametrize("kind", ["cost", "savings", "latency"])
def test_no_figure_and_no_name_is_cut_off_where_there_is_no_room_for_both(store: Store, run: Shell, kind: str) -> None:
    model, team = "gpt-6-luna-of-our-own-department", "search-and-recommendations"
    finish(store, model=model, tags={"team": team})
    drawn = run("report", kind, "--by", "hour,lane,model,tag:team").out
    assert max(map(len, drawn.splitlines())) <= 80
    assert "…" not in drawn
    figures = {"cost": ["$0.000012"], "latency": ["40 ms"], "savings": ["$0.000025", "$0.000012", "50.0"]}[kind]
    assert all(word in drawn for word in ("sync", model, team, *figures))


def test_a_report_is_json_with_exact_money_or_csv(store: Store, run: Shell) -> None:
    finish(store, tags={"team": "search"})
    assert run("report", "cost", "--json").json["total_usd"] == "0.000012345"
    assert run("report", "savings", "--json").json["saved_percent"] == 50.0
    assert run("report", "cost", "--by", "lane,tag:team", "--csv").out == (
        "lane,tag:team,jobs,attempts,input_tokens,cached_tokens,cache_write_tokens,output_tokens,reasoning_tokens,"
        "cost_usd,standard_usd,unknown_attempts\n"
        "sync,search,1,1,3,0,0,5,0,0.000012345,0.00002469,0\n"
    )
    header, row = run("report", "latency", "--csv").out.splitlines()
    p95 = dict(zip(header.split(","), row.split(","), strict=True))["call_ms_p95"]
    assert float(p95) == pytest.approx(40.0, rel=0.005)
    refused(run("report", "cost", "--csv", "--plot"), 2, "write one of them")
    refused(run("report", "cost", "--by", "day", "--tz", "Nowhere"), 2, "Europe/Berlin")
    assert run("report", "cost", "--since", "30s", "--json").json["rows"] == []
    assert run("report", "cost", "--since", "1h", "--until", "30s", "--json").json["rows"] != []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "lanes"], ["'lanes'", "lane, class"]),
        (["--by", "tag:"], ["'tag:'"]),
        (["--by", "lane,lane"], ["twice"]),
        (["--since", "-7d"], ["negative"]),
        (["--since", "99999d"], ["ten years"]),
        (["--until", "then"], ["'then'", "7d"]),
        (["--since", "1h", "--until", "2h"], ["--until '2h' is not after --since '1h'"]),
    ],
)
def test_a_report_that_cannot_be_says_why(run: Shell, words: list[str], said: list[str]) -> None:
    refused(run("report", "cost", *words), 2, *said)


def test_an_unknown_cost_is_told_and_never_shown_as_nothing(store: Store, run: Shell) -> None:
    now = datetime.now(UTC)
    add(store, job(lane="sync", now=now), now=now)
    queue.claim(store, "me", now + timedelta(hours=1), 1, now, ["openai"])
    drawn = run("report", "cost").out
    assert "unknown" in drawn
    assert "1 attempt of unknown cost (1 still on their way)" in drawn
    assert "$0.01" in drawn


# ---- policy ----


def test_the_policy_is_shown_as_it_is_written(run: Shell, tmp_path: Path) -> None:
    shown = run("policy", "show", "--json").json
    assert [rule["name"] for rule in shown["rules"]] == ["bulk", "whole", "short", "long"]
    assert shown["rules"][0]["when"]["seconds_left_at_least"] == 1800
    assert (shown["confidence"], Path(shown["file"]).name) == (0.95, "policy.toml")
    assert "because" in run("policy", "show").out
    mine = tmp_path / "mine.toml"
    mine.write_text(Path(shown["file"]).read_text().replace('name = "shipped"', 'name = "mine"'))
    assert run("policy", "show", "--policy", str(mine), "--json").json["name"] == "mine"
    assert run("policy", "check", str(mine)).code == 0
    mine.write_text(mine.read_text().replace('class = "short"', 'class = "tall"'))
    refused(run("policy", "check", str(mine)), 2, "mine.toml", "'short'", "tall")
    mine.write_text(mine.read_text().replace("idle = 60", "idle = 0"))
    both = run("policy", "check", str(mine))
    assert [line.split("mine.toml:")[1].split(":")[1] for line in both.err.splitlines()] == [
        " timeouts",
        " rule 3 ('short')",
    ]
    refused(run("policy", "check", str(tmp_path / "none.toml")), 2, "none.toml")


# ---- doctor ----


@pytest.fixture
def provider(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return sandbox


@pytest.mark.usefixtures("provider")
def test_the_doctor_finds_all_well(store: Store, run: Shell) -> None:
    finish(store)
    done = run("doctor", "--json")
    view = done.json
    assert (done.code, view["ok"], view["problems"]) == (0, True, [])
    assert view["account"]["balances"]
    assert view["database"]["mode"] == "0600"
    (asked,) = view["providers"]
    assert (asked["reachable"], asked["key_accepted"], asked["batch_api"], asked["key"]) == (True, True, True, "set")
    assert view["settings"]["keys"]["OPENAI_API_KEY"] == "set"
    drawn = run("doctor")
    assert "balances" in drawn.out
    assert KEY not in done.out + drawn.out + drawn.err


@pytest.mark.usefixtures("provider")
def test_the_doctor_takes_back_jobs_of_the_dead_and_names_what_is_late(store: Store, run: Shell) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    add(store, job(lane="sync", now=long_ago), now=long_ago)
    queue.claim(store, "dead", long_ago, 1, long_ago, ["openai"])
    ident = submitted(store)
    with store.write() as connection:
        connection.execute(text("UPDATE batch SET expires_at = :then"), {"then": f"{long_ago:%Y-%m-%d %H:%M:%S.%f}"})
    done = run("doctor", "--json")
    assert (done.code, done.json["rescued"], done.json["overdue_batches"]) == (1, 1, [ident])
    assert "overdue" in done.json["problems"][0]
    assert states(store) == {"queued": 1, "submitted": 2}


def test_the_doctor_says_what_to_do_where_nothing_works(
    store: Store, run: Shell, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    done = run("doctor", "--json")
    assert (done.code, done.json["providers"]) == (1, [])
    assert "OPENAI_API_KEY" in done.json["problems"][0]
    assert store.path is not None
    store.path.chmod(0o644)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://user:secret@127.0.0.1:{unused_port}/v1")
    done = run("doctor", "--json")
    assert done.code == 1
    assert not done.json["providers"][0]["reachable"]
    assert "chmod 600" in done.json["problems"][0]
    assert "secret" not in done.out + done.err + run("doctor").out


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.usefixtures("provider")
def test_the_doctor_goes_on_where_the_database_cannot_be_read(
    run: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x" * 5000)
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / 'file'}")
    done = run("doctor", "--json")
    assert (done.code, done.json["account"], done.json["providers"][0]["reachable"]) == (1, None, True)
    assert run("doctor").code == 1


# ---- db ----


def test_the_database_is_named_made_and_copied(run: Shell, tmp_path: Path) -> None:
    path = tmp_path / "shunter.db"
    assert run("db", "path").out == f"{path}\n"
    assert run("db", "path", "--json").json == {"path": str(path), "exists": False}
    made = {"path": str(path), "schema": len(MIGRATIONS), "applied": len(MIGRATIONS)}
    assert run("db", "migrate", "--json").json == made
    assert run("db", "migrate", "--json").json == made | {"applied": 0}
    assert run("db", "backup", "copy.db").code == 0
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    refused(run("db", "backup", "copy.db"), 2, "there already")
    refused(run("db", "backup", "no/copy.db"), 2, "no/copy.db")


def test_a_backup_while_others_write_is_whole(store: Store, run: Shell, tmp_path: Path) -> None:
    stop = Event()

    def write() -> None:
        while not stop.is_set():
            add(store, job())

    writer = Thread(target=write)
    writer.start()
    try:
        assert run("db", "backup", "copy.db").code == 0
    finally:
        stop.set()
        writer.join()
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    accepted, jobs = copy.execute(
        "SELECT (SELECT sum(accepted) FROM submission), (SELECT count(*) FROM job)"
    ).fetchone()
    copy.close()
    assert accepted == jobs
    assert reports.account(store)["balances"]
