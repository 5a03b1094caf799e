"""The sums of a replay: like with like, each job in the sums or under one reason, and the largest differences."""

from typing import Any

import pytest

from router.tally import LARGEST, Tally, Waits
from router.whatif import COST, WAIT, Replayed, Untold, left_out
from tests.past import BATCH, SYNC
from tests.test_whatif import at, recorded


def told(would: int = SYNC, waits: Any = ((2.0, 1.0),), to: str = "sync", **more: Any) -> Replayed:
    return Replayed(recorded(**more), "batch", to, BATCH, would, waits)


def tally(*rows: Replayed) -> Any:
    made = Tally()
    for row in rows:
        made.add([row])
    return made.json()


def test_nothing_is_all_empty() -> None:
    empty = tally()
    assert (empty["jobs"], empty["moved"], empty["waits"], empty["moves"], empty["untold"]) == (0, 0, [], [], [])
    assert empty["cost"] == {"jobs": 0, "paid_usd": "0", "would_usd": "0", "saved_usd": "0", "saved_percent": None}


def test_only_what_is_told_is_compared() -> None:
    unpriced = Untold("unknown_cost", "", (COST,))
    blind = Untold("no_history", "sync for m", (WAIT,))
    found = tally(
        told(),
        told(BATCH, to="batch"),
        Replayed(recorded(), "batch", "sync", None, None, [(3.0, 1.0)], (unpriced,)),
        Replayed(recorded(), "batch", "sync", BATCH, SYNC, None, (blind,)),
        left_out(recorded(state="failed"), Untold("unanswered")),
    )
    assert (found["jobs"], found["moved"]) == (5, 3)
    money = {"paid_usd": "0.000225", "would_usd": "0.000375", "saved_usd": "-0.00015", "saved_percent": -66.7}
    assert found["cost"] == {"jobs": 3, **money}
    moved, stayed = found["moves"]
    assert (moved["from"], moved["to"], moved["jobs"], moved["cost"]["jobs"]) == ("batch", "sync", 3, 2)
    assert (moved["cost"]["paid_usd"], moved["cost"]["would_usd"]) == ("0.00015", "0.0003")
    assert (stayed["from"], stayed["to"], stayed["jobs"], stayed["cost"]["saved_usd"]) == ("batch", "batch", 1, "0")
    assert [(one["why"], one["lacks"], one["jobs"], one["paid_usd"]) for one in found["untold"]] == [
        ("no_history", ["wait"], 1, "0.000075"),
        ("unanswered", ["cost", "wait"], 1, "0.000075"),
        ("unknown_cost", ["cost"], 1, "0.000075"),
    ]
    for what, known in ((COST, found["cost"]["jobs"]), (WAIT, sum(row["jobs"] for row in found["waits"]))):
        assert found["jobs"] == known + sum(one["jobs"] for one in found["untold"] if what in one["lacks"])


def test_deadlines_are_an_expected_number() -> None:
    due = {"deadline_at": at(700)}
    found = tally(
        told(waits=((600.0, 0.25), (700.0, 0.25), (701.0, 0.5)), **due),
        told(waits=((100.0, 0.75),), **due),  # a quarter was never seen to end
        told(took=800, waits=((1.0, 1.0),), **due),
        told(),
    )
    assert found["deadlines"] == {"jobs": 3, "met": 2, "would_meet": 2.25}


def test_waits_are_told_by_class_really_and_otherwise() -> None:
    found = tally(*(told(took=10.0 * n, waits=((float(n), 0.5), (2.0 * n, 0.5))) for n in range(1, 101)))
    (row,) = found["waits"]
    assert (row["class"], row["jobs"]) == ("bulk", 100)
    assert row["really"] == pytest.approx({"p50_s": 500, "p95_s": 950}, rel=0.011)
    assert row["would"]["p50_s"] == pytest.approx(67, rel=0.02)
    assert row["would"]["p95_s"] == pytest.approx(180, rel=0.02)


def test_what_was_never_seen_to_end_has_no_quantile() -> None:
    waits = Waits()
    waits.add([(10.0, 0.5)])
    assert waits.quantile(0.5) == pytest.approx(10, rel=0.01)
    assert waits.quantile(0.95) is None
    assert Waits().quantile(0.5) is None


def test_the_largest_differences_are_named() -> None:
    rows = [told(BATCH + n * (-1) ** n, id=f"j{n:02}") for n in range(30)]
    largest = tally(*rows)["largest"]
    assert [one["id"] for one in largest] == [f"j{n:02}" for n in range(29, 29 - LARGEST, -1)]
    assert (largest[0]["saved_usd"], largest[1]["saved_usd"]) == ("0.000000029", "-0.000000028")
    assert tally(told(BATCH))["largest"] == []
