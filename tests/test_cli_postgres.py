"""Commands on a PostgreSQL database: they work or say what to do, and never show its password."""

from pathlib import Path

import pytest

from db.engine import connect
from db.migrations import MIGRATIONS
from tests.commands import Shell, refused
from tests.lanes import add, job
from tests.postgres import PASSWORD, Postgres


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


def test_the_database_is_made_where_there_is_none(
    run: Shell, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHUNTER_DATABASE_URL", server.create("template1"))
    before = run("db", "path", "--json")
    assert before.json["exists"] is False
    made = run("db", "migrate", "--json")
    assert made.json == {"path": before.json["path"], "schema": len(MIGRATIONS), "applied": len(MIGRATIONS)}
    assert run("db", "path", "--json").json["exists"] is True
    assert ":***@127.0.0.1" in run("db", "path").out
    for done in (before, made, run("db", "path"), run("db", "migrate")):
        assert PASSWORD not in done.out + done.err


def test_a_backup_names_the_command_that_makes_one(
    run: Shell, server: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = server.create()
    monkeypatch.setenv("SHUNTER_DATABASE_URL", url)
    done = run("db", "backup", "my copy.dump")
    source = f"postgresql://shunter@127.0.0.1:{server.port}/{url.rpartition('/')[2]}"
    refused(done, 2, f"pg_dump -Fc -f 'my copy.dump' {source}")
    assert not list(tmp_path.glob("*.dump"))


def test_jobs_and_reports(run: Shell, server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.create()
    monkeypatch.setenv("SHUNTER_DATABASE_URL", url)
    store = connect(url)
    ids = add(store, job(), job(lane="sync", tags={"team": "a"}))
    store.close()
    assert {one["id"] for one in run("jobs", "list", "--json").json["jobs"]} == set(ids)
    assert run("jobs", "show", ids[0], "--json").json["state"] == "queued"
    assert run("report", "cost", "--by", "day,tag:team", "--json").json["rows"] == []
    assert run("report", "latency", "--json").code == 0
    assert run("report", "savings", "--json").code == 0
    assert len(run("jobs", "export").out.splitlines()) == 2
    assert run("jobs", "cancel", ids[0]).code == 0
    looked = run("doctor", "--json").json
    assert looked["account"]["balances"]
    assert PASSWORD not in str(looked)


def test_a_server_that_is_away_is_one_line(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"postgresql://u:{PASSWORD}@127.0.0.1:1/x")
    done = run("jobs", "list")
    refused(done, 2, "cannot be reached", "u:***@127.0.0.1")
    assert PASSWORD not in done.err
