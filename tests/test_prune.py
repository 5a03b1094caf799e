"""Pruning: the words of old jobs go; the money, the account and what is not old stay."""

from datetime import timedelta

import pytest

from db import lookup, prune, queue, reports
from db.ledger import Charge
from db.settle import Failed, Settlement, Succeeded, Text, settle
from db.states import AttemptState, CostSource
from tests.lanes import NOW, World, balanced, rows

pytestmark = pytest.mark.both
PAID = Charge(AttemptState.OK, cost_nano=7, cost_source=CostSource.COMPUTED, standard_nano=9, price="p")


def ended(world: World, prompt: str, days: int, *, well: bool = True) -> str:
    """A job that was answered, or failed, so many days after NOW."""
    [ident] = world.add(prompt, lane="sync")
    now = NOW + timedelta(days=days)
    later = world.clock.now() + timedelta(days=1)
    [claim] = queue.claim(world.store, "me", later, 1, later, ["openai"])
    ending = Succeeded(Text("secret answer", "stop")) if well else Failed("x", "why", Text("secret half", partial=True))
    settle(world.store, [Settlement(claim.job_id, claim.n, PAID, ending)], now)
    return ident


def kept(world: World) -> str:
    """Every word of questions and answers that the database has."""
    return str(rows(world.store, "SELECT body FROM body") + rows(world.store, "SELECT text, choices FROM result"))


def test_old_words_go_and_the_money_stays(world: World) -> None:
    old, failed, new = ended(world, "secret one", 0), ended(world, "secret two", 1, well=False), ended(world, "new", 9)
    [waits] = world.add("waits", lane="sync")
    before = reports.cost(world.store, ["lane", "model"])
    cutoff = NOW + timedelta(days=5)
    jobs, size = prune.words(world.store, cutoff)
    assert jobs == 2
    assert size > 2 * len("secret answer")
    assert "secret one" in kept(world)
    assert sum(prune.prune(world.store, cutoff)) == 2
    assert "secret one" not in kept(world)
    assert "secret two" not in kept(world)
    assert "secret half" not in kept(world)
    assert prune.words(world.store, cutoff) == (0, 0)
    assert reports.cost(world.store, ["lane", "model"]) == before
    balanced(world.store)
    for ident, text in ((old, None), (failed, None), (new, "secret answer")):
        found = world.job(ident)
        assert (found["pruned"], found["text"], found["cost_usd"]) == (text is None, text, "0.000000007")
    assert lookup.body(world.store, old) is None
    assert lookup.body(world.store, waits) is not None


def test_what_was_pruned_is_not_tried_again(world: World) -> None:
    failed, other = ended(world, "old", 0, well=False), ended(world, "new", 9, well=False)
    assert list(prune.prune(world.store, NOW + timedelta(days=5))) == [1]
    assert queue.retry(world.store, [failed, other], world.clock.now()) == [other]
    assert world.states() == {"failed": 1, "queued": 1}
