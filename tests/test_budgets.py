"""Budgets in the store: set aside before an attempt is open, booked when it is settled, never more than there is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import background, packing, queue, settle
from db.engine import Store
from db.ids import copy
from db.ledger import Charge
from db.orphans import Found, home, places
from db.packing import Room, Waiting
from db.queue import Claim
from db.reserving import OverBudget, Purse
from db.rooms import LOOK_AGAIN_S
from db.settle import Again, Failed, Settlement
from db.states import AttemptState
from tests.lanes import MODEL, NOW, add, decision, job, rows
from tests.purses import budget, even, lost, paid, purse, said, sums

pytestmark = pytest.mark.both
SOON = NOW + timedelta(seconds=1)
GROUP = Waiting("openai", MODEL, 9)


def claim(store: Store, given: Purse | None = None, limit: int = 9, now: datetime = SOON) -> list[Claim]:
    return queue.claim(store, "me", now + timedelta(hours=1), limit, now, ["openai"], None, given or purse())


def sync(store: Store, count: int = 1, **more: Any) -> list[str]:
    return add(store, *(job(lane="sync", **more) for _ in range(count)))


def pack(store: Store, given: Purse, batch_id: str = "b1") -> int:
    cut = next(packing.cuts(store, GROUP, Room(100, 10**6), SOON))
    return packing.pack(store, batch_id, GROUP, cut, base_url="u", now=SOON, purse=given)


def test_what_it_can_cost_is_set_aside_and_what_it_cost_is_booked(store: Store) -> None:
    budget(store, 1000)
    sync(store)
    (mine,) = claim(store)
    assert sums(store) == (0, 100)
    settle.settle(store, [paid(mine, 30)], SOON)
    assert sums(store) == (30, 0)
    settle.settle(store, [paid(mine, 99)], SOON)
    assert sums(store) == (30, 0), "once"
    even(store)


def test_a_bill_above_what_was_set_aside_is_booked_as_it_is(store: Store) -> None:
    budget(store, 100)
    sync(store, 2)
    (mine,) = claim(store, limit=1)
    settle.settle(store, [paid(mine, 170)], SOON)
    assert sums(store) == (170, 0)
    assert claim(store, purse(1)) == []


def test_a_job_without_room_waits_for_the_next_period(store: Store) -> None:
    budget(store, 100, per="day", zone="Europe/Berlin")
    one, two = sync(store, 2)
    given = purse(80)
    (mine,) = claim(store, given)
    settle.settle(store, [paid(mine, 80)], SOON)
    given.news.clear()
    assert claim(store, given, now=NOW + timedelta(minutes=5)) == []
    midnight = datetime(2026, 11, 22, 23, tzinfo=UTC)
    state, code, why = said(store, two)
    assert (state, code) == ("queued", "over_budget")
    assert "budget 'b' ($0.0000001 a day): $0.00000008 spent and $0 set aside" in why
    assert "2026-11-22 23:00 UTC" in why
    assert "shunter budget set b --usd N" in why
    assert len(given.news) == 1
    assert claim(store, given, now=midnight - timedelta(seconds=1)) == []
    assert len(given.news) == 1, "told once a period"
    (mine,) = claim(store, given, now=midnight)
    assert mine.job_id == two != one
    assert (sums(store), sums(store, now=midnight)) == ((80, 0), (0, 80))


def test_what_others_hold_may_come_back_sooner(store: Store) -> None:
    budget(store, 100, per="month")
    one, two = sync(store, 2)
    (mine,) = claim(store, purse(80))
    assert mine.job_id == one
    settle.settle(store, [paid(mine, 5)], SOON)
    assert claim(store, purse(80)) == [], "it was put off while the first was under way"
    later = SOON + timedelta(seconds=LOOK_AGAIN_S)
    assert [claimed.job_id for claimed in claim(store, purse(80), now=later)] == [two]
    assert sums(store) == (5, 80)


def test_without_a_next_period_it_fails(store: Store) -> None:
    budget(store, 100)
    sync(store, 2)
    (mine,) = claim(store, purse(80))
    settle.settle(store, [paid(mine, 80)], SOON)
    assert claim(store, purse(80), now=SOON + timedelta(hours=1)) == []
    (failed,) = rows(store, "SELECT id FROM job WHERE state = 'failed'")
    assert said(store, failed[0])[1] == "over_budget"
    assert sums(store) == (80, 0)


@pytest.mark.parametrize(("most", "code"), [(101, "over_budget"), (None, "unknown_price")])
def test_what_can_never_go_fails(store: Store, most: int | None, code: str) -> None:
    budget(store, 100, per="day")
    (ident,) = sync(store)
    assert claim(store, purse(most)) == []
    assert said(store, ident)[:2] == ("failed", code)
    even(store)


def test_whoever_cannot_weigh_sends_nothing(store: Store) -> None:
    budget(store, 100)
    (ident,) = sync(store)
    assert queue.claim(store, "me", SOON, 9, SOON, ["openai"]) == []
    assert said(store, ident)[:2] == ("failed", "unknown_price")


def test_only_what_has_the_tag(store: Store) -> None:
    budget(store, 100, name="search", tag="team=search")
    budget(store, 10_000, name="all")
    add(store, *(job(lane="sync", tags=tags) for tags in ({"team": "search", "x": "y"}, {"team": "other"}, None)))
    assert len(claim(store)) == 3
    assert (sums(store, "search"), sums(store, "all")) == ((0, 100), (0, 300))


def test_those_behind_one_that_finds_no_room_go(store: Store) -> None:
    budget(store, 100, tag="team=search")
    sync(store, 200, tags={"team": "search"}, priority=5)
    rest = sync(store, 3, tags={"team": "other"})
    claims = claim(store, limit=4)
    assert len(claims) == 4
    assert {one.job_id for one in claims} >= set(rest)
    assert sums(store) == (0, 100)


def test_an_unknown_cost_keeps_what_was_set_aside_until_it_is_known(store: Store) -> None:
    budget(store, 1000)
    sync(store)
    (first,) = claim(store)
    settle.settle(store, [lost(first)], SOON)
    assert sums(store) == (0, 100)
    (second,) = claim(store)
    settle.settle(store, [paid(second, 10)], SOON)
    assert sums(store) == (10, 100)
    settle.settle(store, [paid(first, 40)], SOON)
    assert sums(store) == (50, 0)
    even(store)


def test_it_is_booked_where_it_was_set_aside(store: Store) -> None:
    """A late answer of yesterday is on yesterday's bill."""
    budget(store, 1000, per="day")
    sync(store)
    (mine,) = claim(store)
    tomorrow = NOW + timedelta(days=1)
    settle.settle(store, [paid(mine, 60)], tomorrow)
    assert (sums(store), sums(store, now=tomorrow)) == ((60, 0), (0, 0))


def test_what_somebody_waits_for_is_refused_and_not_kept(store: Store) -> None:
    budget(store, 150, per="day")
    until = NOW + timedelta(minutes=1)
    mine = queue.start(store, job(lane="sync", interactive=True), "s1", decision(), "me", until, NOW, purse(cap=7))
    assert mine is not None
    assert mine.output_cap == 7
    with pytest.raises(OverBudget, match=r"budget 'b' .* \$0.0000001 set aside") as caught:
        queue.start(store, job(lane="sync", interactive=True), "s2", decision(), "me", until, NOW, purse())
    assert caught.value.no.code == "over_budget"
    assert rows(store, "SELECT count(*) FROM job")[0][0] == 1
    assert sums(store) == (0, 100)


def test_a_second_try_without_room_fails_with_its_text(store: Store) -> None:
    budget(store, 150)
    sync(store)
    (mine,) = claim(store)
    settle.settle(store, [lost(mine, settle.Held(settle.Text("half", partial=True)))], SOON)
    assert queue.again(store, mine, SOON, purse()) is None
    assert said(store, mine.job_id)[:2] == ("failed", "over_budget")
    assert rows(store, "SELECT text FROM result")[0][0] == "half"
    assert rows(store, "SELECT attempts FROM job")[0][0] == 1
    assert sums(store) == (0, 100)
    even(store)


def test_a_batch_takes_what_fits(store: Store) -> None:
    budget(store, 350, per="day")
    add(store, *(job() for _ in range(5)), input_tokens=11)
    assert pack(store, purse(cap=9)) == 3
    assert sums(store) == (0, 300)
    batch = rows(store, "SELECT rows, input_tokens FROM batch")[0]
    assert tuple(batch) == (3, 33)
    assert rows(store, "SELECT DISTINCT output_cap FROM attempt") == [(9,)]
    assert rows(store, "SELECT count(*) FROM job WHERE state = 'queued' AND error_code = 'over_budget'")[0][0] == 2
    assert packing.waiting(store, SOON) == []


def test_a_row_that_is_taken_out_gives_it_back(store: Store) -> None:
    budget(store, 1000)
    ids = add(store, *(job() for _ in range(3)))
    pack(store, purse())
    queue.cancel(store, ids[:1], SOON)
    assert sums(store) == (0, 200)
    even(store)


def test_rows_of_a_batch_that_never_ran_give_it_back(store: Store) -> None:
    budget(store, 100_000)
    ids = add(store, *(job() for _ in range(100)))
    pack(store, purse())
    assert sums(store) == (0, 10_000)
    free = Charge.free(AttemptState.EXPIRED)
    ends = [Settlement(ident, 1, free, Again(SOON, "expired", "expired")) for ident in ids[:60]]
    for _ in range(2):
        settle.settle_rows(store, ends, SOON, "b1")
        assert sums(store) == (0, 4_000)
    even(store)


def test_each_window_of_the_background_is_weighed_as_such(store: Store) -> None:
    budget(store, 150, per="day")
    plan = [{"lane": "background", "tier": "default", "leave_by": None, "window": "2h"}]
    add(store, *(job(lane="background") for _ in range(2)), plan=plan)
    seen = []

    def most(sending: Any) -> int:
        seen.append(sending.tier)
        return 100

    assert background.pack(store, {"openai": "u"}, 9, SOON, purse(most)) == 2
    assert background.pack(store, {"openai": "u"}, 9, SOON, purse(most)) == 0
    assert seen == ["2h", "2h"]
    assert rows(store, "SELECT count(*) FROM batch")[0][0] == 1
    assert sums(store) == (0, 100)


def test_a_further_bill_is_on_the_same_budget(store: Store) -> None:
    budget(store, 1000)
    (ident,) = add(store, job())
    pack(store, purse())
    settle.settle(store, [Settlement(ident, 1, Charge.free(AttemptState.EXPIRED), Failed("x", "x"))], SOON)
    found = Found("openai", "u", "batch_2", "completed", 1, 1, None)
    adopted = home(store, found, None, ident, SOON)
    ((_, n),) = places(store, adopted, [(ident, 1)], {(ident, 1)}, SOON).items()
    assert n == copy(1, 1)
    assert sums(store) == (0, 0)
    settle.settle(store, [paid(Claim(ident, n, *[""] * 4, False, "", None, None, 0, 0, ""), 70)], SOON)
    assert sums(store) == (70, 0)
    even(store)


def test_eighty_percent_is_told_once(store: Store) -> None:
    budget(store, 1000)
    sync(store, 9)
    given = purse()
    for _ in range(9):
        claim(store, given, limit=1)
    assert len(given.news) == 1
    assert "$0 spent and $0.0000008 set aside" in given.news[0]
    assert "more than 80%" in given.news[0]
