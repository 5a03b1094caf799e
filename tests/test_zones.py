"""Days and hours of a place: in the order in which they were, each once, also when its clocks are put back."""

from datetime import UTC, datetime, timedelta

import pytest

from db import queue, reports, settle
from db.engine import Store
from db.settle import Settlement, Succeeded, Text
from tests.commands import PAID
from tests.lanes import add, job

BACK = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin; at 03:00 its clocks are put back to 02:00


@pytest.mark.both
def test_the_hour_that_comes_twice_is_two_hours_in_their_order(store: Store) -> None:
    for hour in range(26):
        at = BACK + timedelta(hours=hour, minutes=5)
        (ident,) = add(store, job(lane="sync", now=at), now=at)
        (claim,) = queue.claim(store, "me", at + timedelta(hours=1), 1, at, ["openai"])
        done = Settlement(ident, claim.n, PAID, Succeeded(Text("yes", "stop")))
        settle.settle(store, [done], at + timedelta(seconds=1))
    hours = reports.cost(store, ["hour"], zone="Europe/Berlin")["rows"]
    assert [row["hour"] for row in hours[1:5]] == [
        "2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00",
    ]  # fmt: skip
    assert [row["attempts"] for row in hours] == [1] * 26
    assert [row["hour"] for row in reports.latency(store, ["hour"], zone="Europe/Berlin")["rows"]] == [
        row["hour"] for row in hours
    ]
    days = reports.cost(store, ["day"], zone="Europe/Berlin")["rows"]
    assert [(row["day"], row["attempts"]) for row in days] == [("2026-10-25", 25), ("2026-10-26", 1)]
