"""policy test: requests of a user's own, and where a policy sends them."""

from pathlib import Path

import pytest

from router.rules import SHIPPED
from tests.commands import Shell, refused

CASES = """
[[case]]
name = "an essay"
prompt = "Write an essay of ten pages about freight trains."
interactive = true
expect = { lane = "stream", class = "interactive-long", rule = "long" }

[[case]]
name = "at night"
prompt = "Summarize the day."
deadline = "8h"
tags = { team = "search" }
expect = { lane = "batch" }

[[case]]
name = "soon"
prompt = "Summarize the day."
deadline = "10m"
expect = { lane = "sync" }

[[case]]
name = "too dear"
prompt = "Summarize the day."
max_cost = "0.000000001"
expect = { refused = true }
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    file = tmp_path / "cases.toml"
    file.write_text(CASES, encoding="utf-8")
    return file


def test_all_as_expected(run: Shell, cases: Path) -> None:
    done = run("policy", "test", str(cases))
    assert done.code == 0, done.err
    assert "4 cases: all as expected" in done.err
    assert all(name in done.out for name in ("an essay", "at night", "soon", "too dear"))
    told = run("policy", "test", str(cases), "--json").json
    assert [one["ok"] for one in told] == [True] * 4
    assert told[1]["got"]["lane"] == "batch"
    assert told[3]["got"] == {"refused": True}


def test_another_policy_and_a_case_that_goes_otherwise(run: Shell, cases: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    forced = '[[rule]]\nname = "search"\nwhen = { tags = { team = "search" } }\nlane = "sync"\nwhy = "it is search"\n'
    text = SHIPPED.read_text(encoding="utf-8")
    mine.write_text(text.replace("[[rule]]", f"{forced}\n[[rule]]", 1), encoding="utf-8")
    done = run("policy", "test", str(cases), "--policy", str(mine))
    assert done.code == 1
    assert "4 cases: 1 went otherwise" in done.err
    assert "search" in done.out
    told = run("policy", "test", str(cases), "--policy", str(mine), "--json").json
    assert [one["name"] for one in told if not one["ok"]] == ["at night"]
    assert (told[1]["expected"], told[1]["got"]["lane"]) == ({"lane": "batch"}, "sync")


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('name = "at night"', "name = 7", 9, "case 2: 'name' must be a text, not 7"),
        ('lane = "batch"', 'lane = "siding"', 13, "case 2 ('at night'): expect: 'lane' must be one of"),
        ('lane = "batch"', 'lan = "batch"', 13, "unknown key 'lan'"),
        ('{ lane = "batch" }', "{}", 13, "nothing is expected; give one of class, lane, tier, rule, refused"),
        ("interactive = true", 'interactive = "yes"', 5, "'interactive' must be true or false"),
    ],
)
def test_mistakes_are_named_with_their_lines(
    run: Shell, cases: Path, old: str, new: str, line: int, words: str
) -> None:
    cases.write_text(CASES.replace(old, new, 1), encoding="utf-8")
    refused(run("policy", "test", str(cases)), 2, f"cases.toml:{line}: ", words)


def test_a_request_that_cannot_be_is_named(run: Shell, cases: Path) -> None:
    cases.write_text(CASES.replace('"8h"', '"soon"'), encoding="utf-8")
    refused(run("policy", "test", str(cases)), 2, "cases.toml: case 2 ('at night')", "soon")
