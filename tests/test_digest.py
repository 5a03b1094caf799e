"""The digest: what a worker's run did, on the terminal, in a file, and on a command's stdin."""

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from db import digests, queue, settle
from db.engine import Store
from db.ledger import Charge
from db.settle import Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from jobs.sandbox.server import Sandbox
from router import digest
from tests.commands import Shell
from tests.lanes import KEY, NOW, add, job

LATER = NOW + timedelta(hours=1)
PAID = Charge(AttemptState.OK, 5_000_000, CostSource.COMPUTED, 10_000_000)
LOST = Charge(AttemptState.UNKNOWN, error_code="http_500", error="it said | no\nto that")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


def night(store: Store) -> dict[str, object]:
    """One job that was answered, one that failed, one that waits."""
    add(store, *(job(lane="sync") for _ in range(2)), job(deadline_at=LATER))
    ends = [Succeeded(Text("yes")), Failed("http_500", "it said | no\nto that")]
    claims = queue.claim(store, "me", LATER, 2, NOW, ["openai"])
    for claim, end, charge in zip(claims, ends, (PAID, LOST), strict=True):
        settle.settle(store, [Settlement(claim.job_id, claim.n, charge, end)], NOW)
    return digests.since(store, NOW, LATER)


@pytest.mark.both
def test_it_says_what_was_done_what_it_cost_what_failed_and_what_waits(store: Store) -> None:
    value = night(store)
    assert value["done"] == {"succeeded": 1, "failed": 1, "cancelled": 0}
    assert (value["cost_usd"], value["saved_usd"], value["unknown_attempts"]) == ("0.005", "0.005", 1)
    assert value["failures"] == [{"error": "http_500", "jobs": 1, "example": "it said | no\nto that"}]
    assert value["waiting"] == [
        {"state": "queued", "lane": "batch", "jobs": 1, "next_deadline": "2026-11-22T13:00:00.000Z"}
    ]
    assert digests.since(store, LATER, LATER)["attempts"] == 0
    text = digest.markdown(value)
    assert "- Jobs: 1 succeeded, 1 failed\n" in text
    assert "$0.005 for 2 attempts, $0.005 (50 %) less than plain calls, 1 attempt of unknown cost" in text
    assert "| http_500 | 1 | it said \\| no to that |\n" in text
    assert "| queued | batch | 1 | 2026-11-22 13:00 UTC |\n" in text


def test_costs_of_one_column_have_as_many_decimals(store: Store) -> None:
    lane = {"lane": "batch", "model": "m", "attempts": 1, "unknown_attempts": 0}
    lanes = [{**lane, "cost_usd": "0.00161"}, {**lane, "cost_usd": "0.000369"}]
    text = digest.markdown(night(store) | {"lanes": lanes})
    assert "| batch | m | 1 | $0.001610 |\n| batch | m | 1 | $0.000369 |\n" in text


def test_a_file_is_replaced_in_one_piece_and_is_its_owners(store: Store, tmp_path: Path) -> None:
    value, files = night(store), [tmp_path / "night.md", tmp_path / "night.json"]
    files[0].write_text("the last one")
    for file in files:
        assert digest.hand_over(value, str(file), None) == []
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert files[0].read_text() == digest.markdown(value)
    assert json.loads(files[1].read_text()) == value
    assert sorted(path.name for path in tmp_path.glob("*night*")) == ["night.json", "night.md"]
    (trouble,) = digest.hand_over(value, str(tmp_path / "no" / "x.md"), None)
    assert "digest_file" in trouble


def test_a_command_gets_both_forms_and_its_failure_is_told(store: Store, tmp_path: Path) -> None:
    value, out = night(store), tmp_path / "out"
    command = f'cat > {out}; printf "%s" "$SHUNTER_DIGEST_JSON" > {out}.json'
    assert digest.hand_over(value, None, command) == []
    assert (out.read_text(), json.loads(Path(f"{out}.json").read_text())) == (digest.markdown(value), value)
    assert digest.hand_over(value, None, "echo sad >&2; exit 3") == [
        "the digest's command 'echo sad >&2; exit 3' ended with 3: sad"
    ]


def test_a_run_in_which_nothing_ended_leaves_the_last_one(
    run: Shell, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("SHUNTER_DIGEST_FILE", str(tmp_path / "night.json"))
    (tmp_path / "rows.txt").write_text("One.\nTwo.\n")
    assert run("submit", "--file", "rows.txt").code == 0
    done = run("worker", "--once", "--json")
    assert (done.code, done.json["digest"]["done"]["succeeded"]) == (0, 2)
    assert json.loads((tmp_path / "night.json").read_text()) == done.json["digest"]
    assert run("worker", "--once").code == 0
    assert json.loads((tmp_path / "night.json").read_text()) == done.json["digest"]
