"""Attempts of unknown cost, settled by a person who has seen the bill."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from db import byhand, queue, settle
from db.engine import Store
from db.queue import Claim
from db.settle import Failed
from tests.commands import Shell
from tests.lanes import NOW, add, balanced, job, rows
from tests.purses import budget, even, lost, paid, purse, sums

SOON, LATER = NOW + timedelta(seconds=1), NOW + timedelta(hours=1)


def lose(store: Store, count: int = 1) -> list[Claim]:
    """So many jobs whose only attempt may have been billed; each may cost 100 nano-dollars."""
    add(store, *(job(lane="sync") for _ in range(count)))
    claims = queue.claim(store, "me", LATER, count, SOON, ["openai"], None, purse())
    settle.settle(store, [lost(one, Failed("cut", "cut")) for one in claims], SOON)
    return claims


@pytest.mark.both
def test_a_cost_that_is_said_is_booked_and_the_rest_comes_back(store: Store) -> None:
    budget(store, 1000)
    mine, other = lose(store, 2)
    assert sums(store) == (0, 200)
    assert [(one.n, one.at_risk_nano, one.reserved_nano) for one in byhand.unknown(store, mine.job_id)] == [(1, 7, 100)]
    assert byhand.settle(store, [(mine.job_id, 1)], 30, LATER) == [(mine.job_id, 1)]
    assert sums(store) == (30, 100), "the other one still holds its own"
    assert byhand.settle(store, [(mine.job_id, 1)], 99, LATER) == [], "once"
    assert byhand.settle(store, [(other.job_id, 1)], 0, LATER) == [(other.job_id, 1)]
    assert sums(store) == (30, 0)
    assert byhand.unknown(store) == []
    even(store)
    balanced(store)


@pytest.mark.both
def test_what_happened_to_the_call_stays_as_it_was(store: Store) -> None:
    (mine,) = lose(store)
    byhand.settle(store, [(mine.job_id, 1)], 30, LATER)
    columns = "state, cost_nano, cost_source, price, at_risk_nano, reserved_nano, error_code, error, tier"
    found = rows(store, f"SELECT {columns} FROM attempt")[0]
    assert found == ("failed", 30, "reported", byhand.BILLED, None, None, "cut", "cut", "default")
    assert rows(store, "SELECT state, error_code FROM job") == [("failed", "cut")]
    balanced(store)


@pytest.mark.both
def test_a_late_answer_leaves_its_words_and_is_not_charged_again(store: Store) -> None:
    budget(store, 1000)
    (mine,) = lose(store)
    byhand.settle(store, [(mine.job_id, 1)], 30, LATER)
    settle.settle(store, [paid(mine, 44)], LATER)
    assert sums(store) == (30, 0), "a person has said what it cost"
    assert rows(store, "SELECT job.state, result.text FROM job JOIN result ON result.job_id = job.id") == [
        ("failed", "done")
    ]
    balanced(store)
    even(store)


def test_the_command_lists_them_and_settles_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shell = Shell(monkeypatch, capsys, tmp_path)
    budget(store, 10**9)
    mine, other = lose(store, 2)
    listed = shell("jobs", "settle", "--json").json["attempts"]
    assert {(one["job"], one["attempt"], one["reserved_usd"]) for one in listed} == {
        (mine.job_id, 1, "0.0000001"), (other.job_id, 1, "0.0000001"),
    }  # fmt: skip
    assert mine.job_id in shell("jobs", "settle").out.replace("\n", "")
    done = shell("jobs", "settle", mine.job_id, "--usd", "0.00000003", "--json")
    assert json.loads(done.out)["cost_usd"] == "0.00000003"
    assert "set aside no more" in shell("jobs", "settle", other.job_id, "--usd", "0", "--attempt", "1").err
    assert sums(store) == (30, 0)
    assert "no attempt is of unknown cost" in shell("jobs", "settle").err
    for words, said in (
        ((mine.job_id, "--usd", "1"), "is not unknown"), ((mine.job_id,), "--usd"), (("--usd", "1"), "which job"),
        ((mine.job_id, "--usd", "-1"), "at least 0"), (("nobody", "--usd", "1"), "there is no job"),
    ):  # fmt: skip
        refused = shell("jobs", "settle", *words)
        assert refused.code == 2
        assert said in refused.err.replace("\n", " ")


def test_of_several_attempts_one_has_to_be_named(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shell = Shell(monkeypatch, capsys, tmp_path)
    add(store, job(lane="sync"))
    for hours in (1, 2):
        at = NOW + timedelta(hours=hours)
        (mine,) = queue.claim(store, "me", at + timedelta(hours=1), 1, at, ["openai"])
        settle.settle(store, [lost(mine)], at)
    refused = shell("jobs", "settle", mine.job_id, "--usd", "1")
    assert "say which with --attempt N" in refused.err.replace("\n", " ")
    assert shell("jobs", "settle", mine.job_id, "--usd", "0.5", "--attempt", "2").code == 0
    assert [one.n for one in byhand.unknown(store, mine.job_id)] == [1]
