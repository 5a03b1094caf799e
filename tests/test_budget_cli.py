"""budget set, list and remove as a person types them, and what submit, worker and doctor say of budgets."""

import json
from pathlib import Path

import pytest

from db.engine import Store
from jobs.sandbox.server import Sandbox
from tests.commands import Shell, refused
from tests.lanes import rows


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, sandbox: Sandbox
) -> Shell:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sandbox")
    return Shell(monkeypatch, capsys, tmp_path)


def test_set_list_and_remove(shell: Shell) -> None:
    made = shell("budget", "set", "search", "--usd", "20", "--per", "month", "--tag", "team=search", "--tz",
                 "Europe/Berlin", "--json").json  # fmt: skip
    assert made["starts_at"].endswith(("T22:00:00.000Z", "T23:00:00.000Z"))
    assert made | {"starts_at": "", "ends_at": ""} == {
        "name": "search", "limit_usd": "20", "per": "month", "tag": "team=search", "zone": "Europe/Berlin",
        "spent_usd": "0", "reserved_usd": "0", "left_usd": "20", "nearly_used": False, "starts_at": "", "ends_at": "",
    }  # fmt: skip
    shell("budget", "set", "all", "--usd", "$0.5", "--per", "total")
    listed = shell("budget", "list", "--json").json
    assert [(one["name"], one["ends_at"] is None) for one in listed["budgets"]] == [("all", True), ("search", False)]
    assert listed["waiting_jobs"] == 0
    drawn = shell("budget", "list")
    assert "search" in drawn.out
    assert "$20" in drawn.out
    assert shell("budget", "remove", "all").code == 0
    assert [one["name"] for one in shell("budget", "list", "--json").json["budgets"]] == ["search"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "b", "--usd", "five", "--per", "day"), "--usd is 'five'"),
        (("set", "b", "--usd", "0", "--per", "day"), "must be above 0"),
        (("set", "b", "--usd", "5", "--per", "week"), "one of day, month, total"),
        (("set", "b", "--usd", "5", "--per", "day", "--tag", "team"), "write key=value"),
        (("set", "b", "--usd", "5", "--per", "day", "--tz", "Berlin"), "like Europe/Berlin"),
        (("set", "a b", "--usd", "5", "--per", "day"), "the name 'a b'"),
        (("remove", "b"), "shunter budget list"),
    ],
)
def test_what_is_wrong_is_said(shell: Shell, words: tuple[str, ...], said: str) -> None:
    refused(shell("budget", *words), 2, said)


def test_a_person_is_refused_where_nothing_is_left(shell: Shell, store: Store, sandbox: Sandbox) -> None:
    shell("budget", "set", "tiny", "--usd", "0.0025", "--per", "day")
    first = shell("submit", "Capital of France, in one word?")
    assert first.code == 0
    assert "budget 'tiny'" in first.err, "80 % were set aside"
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE budget_period SET spent_nano = 2400000")
    refused(shell("submit", "Capital of Italy, in one word?"), 3, "budget 'tiny' ($0.0025 a day): $0.0024 spent and $0 "
            "set aside", "shunter budget set tiny --usd N")  # fmt: skip
    assert rows(store, "SELECT count(*) FROM job")[0][0] == 1
    queued = shell("submit", "--no-interactive", "--json", "Capital of Italy, in one word?")
    assert queued.code == 0
    done = shell("worker", "--once")
    assert (done.code, rows(store, "SELECT count(*) FROM job WHERE state = 'queued'")[0][0]) == (0, 1)
    assert "waits until" in done.err
    assert "wait for room" in shell("budget", "list").err
    shell("budget", "set", "tiny", "--usd", "0.01", "--per", "day")
    assert shell("worker", "--once").code == 0
    assert rows(store, "SELECT count(*) FROM job WHERE state = 'succeeded'")[0][0] == 2


def test_what_can_never_go_is_refused_at_once(shell: Shell, store: Store, tmp_path: Path) -> None:
    shell("budget", "set", "tiny", "--usd", "0.0001", "--per", "month", "--tag", "team=search")
    tag = ("--tag", "team=search")
    for more in ((), ("--no-interactive",)):
        refused(shell("submit", "Say hello.", *tag, *more), 3, "budget 'tiny'", "lower --max-tokens")
        refused(shell("submit", "-m", "nobodys-model", "Say hello.", *tag, *more), 3, "nobody can tell", "known price")
    assert shell("submit", "Say hello.").code == 0
    assert shell("submit", "Say hello.", "--max-tokens", "20", *tag).code == 0
    tmp_path.joinpath("rows.jsonl").write_text(
        "".join(json.dumps({"prompt": "Name a bird.", "max_tokens": cap}) + "\n" for cap in (10, 4000, 10))
    )
    told = shell("submit", "--file", "rows.jsonl", *tag, "--json")
    assert (told.json["accepted"], told.json["rejected"]) == (2, 1)
    assert "line 2: budget 'tiny'" in told.err


def test_a_cap_of_its_own_shortens_the_answer(shell: Shell, sandbox: Sandbox) -> None:
    done = shell("submit", "--max-cost", "0.0005", "--json", "Explain rivers in detail")
    job = json.loads(done.out.splitlines()[-1])
    assert job["state"] == "succeeded"
    assert sandbox.bill()["totals"]["cost_nano_usd"] <= 500_000


def test_doctor_shows_them_and_what_is_astray(shell: Shell, store: Store) -> None:
    shell("budget", "set", "b", "--usd", "5", "--per", "day")
    shell("submit", "Capital of France, in one word?")
    well = shell("doctor", "--json").json
    assert well["problems"] == []
    assert [one["name"] for one in well["budgets"]] == ["b"]
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE budget_period SET reserved_nano = 1000000000")
    ill = shell("doctor")
    assert ill.code == 1
    assert "$1 set aside where they hold $0" in " ".join(ill.out.split())


def test_explain_says_what_a_budget_could_never_pay(shell: Shell) -> None:
    shell("budget", "set", "tiny", "--usd", "0.0000001", "--per", "day")
    for words in (("--deadline", "6h"), ()):
        done = shell("explain", "Say hello.", *words)
        assert done.code == 3
        assert "budget 'tiny'" in done.err
