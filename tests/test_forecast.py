"""What a file will have cost: a range at first, within a tenth once fifty rows have ended."""

from pathlib import Path
from random import Random

import pytest

from db import forecasts, queue, settle
from db.engine import Store
from db.forecasts import Sums
from db.ledger import Charge
from db.settle import Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from jobs.sandbox.server import Sandbox
from router.forecast import forecast, view
from tests import lanes
from tests.commands import Shell
from tests.lanes import KEY, MODEL, NOW, World

LONG = NOW.replace(year=2027)


def filled(store: Store, costs: list[int], expected: tuple[int, int] = (1000, 3000)) -> str:
    """A file of rows, one decision for all of them."""
    jobs = [lanes.job(str(n), lane="sync") for n in range(len(costs))]
    decision = lanes.decision(lane="sync") | {"cost_nano": expected[0], "cost_p90_nano": expected[1]}
    queue.open_submission(store, "file-1", "rows.jsonl", NOW)
    queue.add(store, "file-1", [decision], jobs, NOW)
    return "file-1"


def answered(store: Store, costs: list[int]) -> None:
    claims = queue.claim(store, "me", LONG, len(costs), NOW, ["openai"])
    done = [
        Settlement(one.job_id, one.n, Charge(AttemptState.OK, cost, CostSource.COMPUTED), Succeeded(Text("a")))
        for one, cost in zip(claims, costs, strict=True)
    ]
    settle.settle(store, done, NOW)


@pytest.mark.both
def test_a_range_before_and_an_estimate_after_fifty_rows(store: Store) -> None:
    chance = Random(5)
    costs = [round(400 * chance.lognormvariate(0, 0.4)) for _ in range(400)]  # less than half of what was expected
    filled(store, costs)
    [before] = forecasts.sums(store)
    first = forecast(before)
    assert first is not None
    assert not first.from_answers
    assert first.low < 400 * 1000 < first.expected < first.high == 400 * 3000
    answered(store, costs[:50])
    [half] = forecasts.sums(store)
    then = forecast(half)
    assert then is not None
    assert then.from_answers
    assert then.expected == pytest.approx(sum(costs), rel=0.1)
    assert then.low < sum(costs) < then.high
    assert then.high - then.low < first.high - first.low
    answered(store, costs[50:])
    [end] = forecasts.sums(store)
    assert forecast(end) == (sum(costs),) * 3 + (True,)


@pytest.mark.parametrize("off", [0.4, 1.0, 2.5])
def test_within_a_tenth_after_fifty_rows_nineteen_times_of_twenty(off: float) -> None:
    """Over many files whose rows differ in size, with an estimate that is off."""
    chance, near, inside = Random(11), 0, 0
    for _ in range(300):
        sizes = [chance.lognormvariate(7, 0.6) for _ in range(500)]
        rows = [(size, size * off * chance.lognormvariate(0, 0.3)) for size in sizes]
        seen, left = rows[:50], rows[50:]
        x, y = sum(one for one, _ in seen), sum(cost for _, cost in seen)
        squares = (sum(a * a for a, _ in seen), sum(a * b for a, b in seen), sum(b * b for _, b in seen))
        rest = sum(one for one, _ in left)
        found = forecast(
            Sums("s", "f", NOW, 500, 50, round(y), 0, 50, x, y, *squares, 450, 0, rest, rest / 3, rest * 3)
        )
        assert found is not None
        whole = sum(cost for _, cost in rows)
        near += abs(found.expected - whole) <= 0.1 * whole
        inside += found.low <= whole <= found.high
    assert near >= 0.95 * 300
    assert inside >= 0.9 * 300


@pytest.mark.both
def test_what_has_no_price_has_no_forecast(store: Store) -> None:
    queue.open_submission(store, "file-1", "rows.jsonl", NOW)
    unpriced = lanes.decision(lane="sync") | {"cost_nano": None, "cost_p90_nano": None}
    queue.add(store, "file-1", [unpriced], [lanes.job("a", lane="sync")], NOW)
    [found] = forecasts.sums(store)
    assert forecast(found) is None
    assert view(found)["expected_usd"] is None


@pytest.mark.both
def test_failed_rows_and_unknown_costs_are_told_apart(store: Store) -> None:
    filled(store, [1] * 4)
    claims = queue.claim(store, "me", LONG, 3, NOW, ["openai"])
    free, unknown = Charge.free(AttemptState.FAILED, code="bad"), Charge(AttemptState.UNKNOWN)
    ends = [(free, Failed("bad", "bad")), (unknown, Failed("cut", "cut"))]
    settle.settle(store, [Settlement(one.job_id, one.n, *end) for one, end in zip(claims, ends, strict=False)], NOW)
    [found] = forecasts.sums(store)
    assert (found.rows, found.finished, found.left, found.n, found.unknown, found.paid) == (4, 2, 2, 1, 2, 0)


def test_the_command(
    store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Shell(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    assert "no file was submitted yet" in run("report", "forecast").err
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "Say {n}.", "model": "{MODEL}"}}\n' for n in range(12)))
    submission = run("submit", "--file", "rows.jsonl", "--json").json["submission"]
    [before] = run("report", "forecast", "--json").json
    assert (before["submission"], before["rows"], before["finished"]) == (submission, 12, 0)
    assert float(before["low_usd"]) < float(before["expected_usd"]) < float(before["high_usd"])
    assert "between" in run("report", "forecast").out
    World(store, sandbox, tmp_path).work()
    [after] = run("report", "forecast", submission, "--json").json
    assert after["finished"] == 12
    assert after["paid_usd"] == after["expected_usd"]
    assert "that is all" in run("report", "forecast").out
    assert run("report", "forecast", "nothing").code == 2
