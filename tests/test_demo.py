"""The demo takes every lane, and its ledger is the sandbox's bill."""

from pathlib import Path

import pytest

from tests.commands import Shell


def test_the_demo_takes_every_lane_and_balances(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    done = Shell(monkeypatch, capsys, tmp_path)("demo", "--json")
    assert done.code == 0
    told = done.json
    assert told["balanced"]
    assert {(row["lane"], row["class"]): row["jobs"] for row in told["cost"]["rows"]} == {
        ("stream", "interactive-long"): 1,
        ("sync", "short"): 2,
        ("sync", "structured-output"): 2,
        ("batch", "bulk"): 24,
    }
    assert {job["state"] for job in told["jobs"]} == {"succeeded"}
    assert told["savings"]["saved_percent"] > 0
    assert not list(tmp_path.glob("shunter.db*"))  # nothing of the user's is touched
