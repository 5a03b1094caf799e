"""whatif as it is used: jobs that were submitted and worked on, then what another policy would have made of them."""

from pathlib import Path
from typing import Any

import pytest

from db.engine import Store
from router.hindsight import sentences
from router.rules import SHIPPED
from tests.commands import Shell, refused
from tests.lanes import CLAUDE, KEY, MODEL, NOW, World
from tests.past import batched, called, forcing


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


@pytest.fixture
def worked(run: Shell, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    """Prompts and a file, of which a worker has answered all."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.sandbox.url}/v1")
    rows = "".join(f'{{"prompt": "Name a colour for number {n}."}}\n' for n in range(4))
    tmp_path.joinpath("rows.jsonl").write_text(rows, encoding="utf-8")
    for words in (
        ["Write an essay of ten pages about freight trains."],
        ["Yes or no: is water wet?"],
        ["--file", "rows.jsonl"],
        ["Write a poem about a bridge.", "--deadline", "10m"],
        ["Write a story about a bridge and a river.", "--whole"],
        ["Say hello.", "--no-interactive", "--lane", "sync", "--max-cost", "0.5"],
    ):
        assert run("submit", *words).code == 0
    assert run("worker", "--once").code == 0
    return run


def test_the_policy_in_force_moves_nothing(worked: Shell) -> None:
    found = worked("whatif", "--policy", str(SHIPPED), "--json").json
    assert (found["jobs"], found["moved"], found["untold"]) == (9, 0, [])
    assert (
        found["cost"]["paid_usd"] == found["cost"]["would_usd"] == worked("report", "cost", "--json").json["total_usd"]
    )
    assert found["cost"]["jobs"] == sum(row["jobs"] for row in found["waits"]) == 9
    assert all(row["really"] == row["would"] for row in found["waits"])
    drawn = worked("whatif", "--policy", str(SHIPPED))
    assert (drawn.code, drawn.err) == (0, "")
    assert drawn.out.startswith("Under policy.toml the same 9 jobs would have gone the same way, for $")


NOBODY = "http://127.0.0.1:1"


@pytest.mark.parametrize("model", [CLAUDE, MODEL])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"OPENAI_API_KEY": "sk-x"},
        {"OPENAI_BASE_URL": f"{NOBODY}/v1"},
        {"OPENAI_BASE_URL": f"{NOBODY}/v1", "SHUNTER_OPENAI_BATCH_API": "false"},
        {"ANTHROPIC_BASE_URL": NOBODY, "SHUNTER_ANTHROPIC_BATCH_API": "false"},
    ],
)
def test_no_key_of_today_is_needed(
    run: Shell, world: World, monkeypatch: pytest.MonkeyPatch, model: str, keys: dict[str, str]
) -> None:
    """The jobs say who served them and what was there; a replay reaches nobody."""
    settings = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.sandbox.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", world.sandbox.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert run("submit", "-m", model, "Write an essay of ten pages about freight trains.").code == 0
    assert run("submit", "-m", model, "Name a colour.", "--deadline", "2d").code == 0
    assert run("worker", "--once").code == 0
    asked = len(world.sandbox.requests()["requests"])
    for name in settings:
        monkeypatch.delenv(name)
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    found = run("whatif", "--policy", str(SHIPPED), "--json").json
    assert (found["jobs"], found["moved"], found["untold"]) == (2, 0, [])
    assert {one["from"] for one in found["moves"]} == {"stream", "batch, then sync"}
    assert len(world.sandbox.requests()["requests"]) == asked


def test_another_policy_is_told_in_a_sentence_and_tables(worked: Shell, tmp_path: Path) -> None:
    policy = forcing("sync", tmp_path)
    drawn = worked("whatif", "--policy", str(policy))
    assert (drawn.code, drawn.err) == (0, "")
    assert max(map(len, drawn.out.splitlines())) <= 80
    said = " ".join(drawn.out.split())
    assert said.startswith("Under sync.toml the same 9 jobs would have cost $")
    for words in ("% more", "as many deadlines would have been met (1 of 1)", "the same way", "bulk", "p95 wait"):
        assert words in said
    found = worked("whatif", "--policy", str(policy), "--json").json
    assert {(one["from"], one["to"]): one["jobs"] for one in found["moves"]} == {
        ("batch", "sync"): 4, ("stream", "sync"): 1, ("sync", "sync"): 4,
    }  # fmt: skip
    assert (found["policy"], found["until"]) == ("shipped", None)
    assert found["file"] == str(policy)
    assert len(found["largest"]) == 4


def test_without_jobs_there_is_nothing_to_say(run: Shell) -> None:
    done = run("whatif", "--policy", str(SHIPPED))
    assert (done.code, done.out) == (0, "")
    assert "no jobs" in done.err
    found = run("whatif", "--policy", str(SHIPPED), "--since", "2d", "--json")
    assert (found.code, found.json["jobs"], found.json["moves"]) == (0, 0, [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "none.toml"], "none.toml"),
        (["--policy", "bad.toml"], "bad.toml: Invalid value (at line 1"),
        (["--policy", str(SHIPPED), "--since", "-7d"], "negative"),
        (["--policy", str(SHIPPED), "--until", "then"], "'then'"),
    ],
)
def test_what_cannot_be_says_why(run: Shell, tmp_path: Path, words: list[str], said: str) -> None:
    tmp_path.joinpath("bad.toml").write_text("confidence = \n", encoding="utf-8")
    refused(run("whatif", *words), 2, said)
    assert run("whatif").code == 2


def test_what_cannot_be_told_is_shown(store: Store, run: Shell, tmp_path: Path) -> None:
    batched(store, 600)
    called(store, 9, model="nobody-knows", lane="stream")
    policy, since = str(forcing("sync", tmp_path)), (NOW.replace(hour=0)).isoformat()
    drawn = run("whatif", "--policy", policy, "--since", since)
    assert "no history of sync for gpt-6-luna" in drawn.out
    assert "Of 2 jobs in this time" in " ".join(drawn.out.split())
    assert max(map(len, drawn.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "Under a.toml the same 1,204 jobs would have cost $3.10 instead of $5.92 (47.6 % less); "
             "2 more deadlines would have been missed."),
        ({"moved": 0, "paid": "3.1", "saved": "0", "percent": 0.0, "would_meet": 12.0},
         "Under a.toml the same 1,204 jobs would have gone the same way, for $3.10; "
         "as many deadlines would have been met (12 of 14)."),
        ({"saved": "0", "percent": 0.0, "due": 0, "told": 1200},
         "Under a.toml the same 1,200 jobs would have cost as much, $5.92. "
         "Of 1,204 jobs in this time 4 cannot be told: see below."),
        ({"would_meet": 13.4, "percent": -12.0},
         "Under a.toml the same 1,204 jobs would have cost $3.10 instead of $5.92 (12 % more); "
         "about 1 fewer deadline would have been missed."),
        ({"due": 0, "jobs": 1300},
         "Under a.toml the same 1,204 jobs would have cost $3.10 instead of $5.92 (47.6 % less). "
         "Of 1,300 jobs in this time the cost of 96 and the wait of 100 cannot be told: see below."),
        ({"told": 0, "due": 0}, "Under a.toml nothing can be told of the cost of 1,204 jobs. "
         "Of 1,204 jobs in this time the cost of 1,204 and the wait of 4 cannot be told: see below."),
    ],
)  # fmt: skip
def test_the_sentences(more: dict[str, Any], said: str) -> None:
    given = {"jobs": 1204, "told": 1204, "moved": 9, "paid": "5.92", "saved": "2.82", "percent": 47.6, "due": 14,
             "would_meet": 10.0} | more  # fmt: skip
    waits = given["jobs"] if not {"told", "jobs"} & set(more) else 1200
    value = {
        "file": "/x/a.toml", "jobs": given["jobs"], "moved": given["moved"],
        "cost": {"jobs": given["told"], "paid_usd": given["paid"], "would_usd": "3.1", "saved_usd": given["saved"],
                 "saved_percent": given["percent"]},
        "deadlines": {"jobs": given["due"], "met": 12, "would_meet": given["would_meet"]},
        "waits": [{"jobs": waits}],
    }  # fmt: skip
    assert sentences(value) == said
