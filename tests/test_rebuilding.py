"""Rollups that were damaged are named and made anew, exactly as the moves that made them, and while others write."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text

from db import queue, rebuilding, reports, settle
from db.engine import Store, connect
from db.settle import Settlement
from db.tallies import moment
from tests.commands import Shell
from tests.histories import happened
from tests.lanes import NOW, add, balanced, job, rows
from tests.rolled import rolled_up, stored
from tests.test_rollups import PAID, YES, call

both = pytest.mark.both


def differs(store: Store) -> list[rebuilding.Differs]:
    return [one for seen in rebuilding.check(store) for one in seen.differs]


def damage(store: Store, sql: str) -> None:
    with store.write() as connection:
        connection.execute(text(sql))


def at_random(store: Store, dice: Random) -> set[datetime]:
    """Some of the quarters are gone, or wrong; which."""
    hurt = set()
    ways = ("DELETE FROM rollup", "DELETE FROM rollup_times", "UPDATE rollup SET plain_nano = plain_nano + 1",
            "UPDATE rollup SET output_tokens = 7777", "UPDATE rollup SET model = 'another'")  # fmt: skip
    quarters = [row[0] for row in rows(store, "SELECT DISTINCT begins_at FROM rollup WHERE attempts > 0 ORDER BY 1")]
    for quarter in dice.sample(quarters, len(quarters) // 3):
        way = dice.choice(ways)
        with store.write() as connection:
            done = connection.execute(text(f"{way} WHERE begins_at = :at"), {"at": quarter}).rowcount
        hurt |= {moment(quarter)} if done else set()
    return hurt


@both
@pytest.mark.parametrize("seed", range(3))
def test_what_is_rebuilt_is_what_the_moves_made(store: Store, seed: int) -> None:
    happened(store, seed, 90)
    assert rows(store, "SELECT count(*) FROM adjustment")[0][0] > 5
    balanced(store)
    assert differs(store) == []
    before, report = stored(store), reports.savings(store, ["lane", "tag:team"])
    hurt = at_random(store, Random(seed))
    found = differs(store)
    assert {one.begins_at for one in found} <= hurt
    for one in found:
        assert rebuilding.rebuild(store, one.begins_at) == one
        assert rebuilding.rebuild(store, one.begins_at) is None
    assert differs(store) == []
    assert stored(store)[0] == before[0]
    assert reports.savings(store, ["lane", "tag:team"]) == report
    balanced(store)


@both
def test_a_database_whose_rollups_are_gone(store: Store) -> None:
    happened(store, 5, 60)
    for table in ("rollup", "rollup_times"):
        damage(store, f"DELETE FROM {table}")
    assert sum(seen.attempts for seen in rebuilding.check(store)) == rows(store, "SELECT count(*) FROM attempt")[0][0]
    for one in differs(store):
        rebuilding.rebuild(store, one.begins_at)
    balanced(store)


@both
def test_it_is_rebuilt_right_while_others_write(store: Store, database_url: str) -> None:
    stores = [connect(database_url) for _ in range(3)]

    def write(own: Store, number: int) -> None:
        for n in range(15):
            at = NOW + timedelta(minutes=n % 2)
            add(own, job(lane="sync", now=at), now=at)
            claims = queue.claim(own, f"w{number}", at + timedelta(hours=1), 1, at, ["openai"])
            settle.settle(own, [Settlement(one.job_id, one.n, PAID, YES) for one in claims], at)

    def mend() -> None:
        for n in range(15):
            damage(store, "UPDATE rollup SET cost_nano = cost_nano + 1")
            if n % 5 == 0:
                damage(store, "DELETE FROM rollup_times")
            rebuilding.rebuild(store, NOW)

    call(store)
    with ThreadPoolExecutor() as pool:
        working: list[Callable[[], None]] = [pool.submit(write, own, n).result for n, own in enumerate(stores)]
        pool.submit(mend).result()
        for result in working:
            result()
    rebuilding.rebuild(store, NOW)  # what was damaged while it was being written
    for own in stores:
        own.close()
    rolled_up(store)


def test_the_command_says_what_differs_and_makes_it_anew(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = Shell(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("SHUNTER_DATABASE_URL", database_url)
    call(store)
    well = run("db", "check")
    assert (well.code, well.err) == (0, "every rollup is what its attempts come to: 1 attempt of 1 day\n")
    damage(store, "UPDATE rollup SET cost_nano = cost_nano + 1000000")
    ill = run("db", "check")
    assert ill.code == 1
    assert "1 quarter of an hour differ" in ill.err
    assert "2026-11-22 12:00 UTC" in ill.out
    (row,) = run("db", "check", "--json").json["differ"]
    assert (row["cost_usd"], row["right_cost_usd"]) == ("0.0010001", "0.0000001")
    assert (row["sums_differ"], row["times_differ"]) == (True, False)
    assert run("db", "check", "--rebuild").code == 0
    assert run("db", "check", "--json").json == {
        "attempts": 1, "days": 1, "differ": [], "rebuilt": None, "account_balances": True
    }  # fmt: skip
    balanced(store)
