"""Recorded jobs decided anew, over a real database: who would have gone where, and what that would have cost."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from math import log
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from db import batches, lengths, queue, replay, reports
from db.engine import Store
from db.ids import new_id
from db.ledger import Charge
from db.packing import Waiting
from db.settle import Failed
from db.states import AttemptState, Lane
from jobs.chat import Request
from jobs.templates import template_of
from router import estimate, replaying
from router.decided import Started, Wish
from router.dispatch import Router
from tests.lanes import MODEL, NOW, Later, World, add, job, pack
from tests.past import BOTH, SYNC, batched, called, end, forcing, packed, paid, router

pytestmark = pytest.mark.both

Replay = Callable[..., Any]


@pytest.fixture
def over(database_url: str, tmp_path: Path) -> Iterator[Replay]:
    """What another policy would have made of this database's jobs."""
    opened: list[Router] = []

    def run(policy: Path | None = None, since: datetime | None = None, until: datetime | None = None) -> Any:
        opened.append(router(database_url, tmp_path, policy))
        return replaying.over(opened[-1], since, until)

    yield run
    for one in opened:
        asyncio.run(one.close())


def moves(found: Any) -> dict[tuple[str, str], int]:
    return {(one["from"], one["to"]): one["jobs"] for one in found["moves"]}


def reasons(found: Any) -> dict[str, int]:
    return {one["text"]: one["jobs"] for one in found["untold"]}


def test_batches_forced_to_plain_calls_cost_twice_as_much(store: Store, over: Replay, tmp_path: Path) -> None:
    batched(store, 1200, count=3, deadline_at=NOW + timedelta(minutes=30))
    batched(store, 2400, NOW + timedelta(hours=1), count=2, deadline_at=NOW + timedelta(minutes=90))
    called(store, 8, NOW + timedelta(hours=2))
    found = over(forcing("sync", tmp_path))
    assert moves(found) == {("batch", "sync"): 5, ("sync", "sync"): 1}
    assert found["moves"][0]["cost"] == {
        "jobs": 5, "paid_usd": "0.000375", "would_usd": "0.00075", "saved_usd": "-0.000375", "saved_percent": -100.0,
    }  # fmt: skip
    assert found["cost"]["would_usd"] == reports.savings(store, ["lane"])["standard_usd"] == "0.0009"
    assert found["deadlines"] == {"jobs": 5, "met": 3, "would_meet": 5.0}
    (row,) = found["waits"]
    assert row["really"] == pytest.approx({"p50_s": 1200, "p95_s": 2400}, rel=0.011)
    assert row["would"] == pytest.approx({"p50_s": 8, "p95_s": 8}, rel=0.011)
    assert found["untold"] == []
    assert len(found["largest"]) == 5


def test_plain_calls_forced_into_batches(store: Store, over: Replay, tmp_path: Path) -> None:
    called(store, 5, interactive=True)
    called(store, 5)
    batched(store, 600)
    found = over(forcing("batch", tmp_path))
    assert moves(found) == {
        ("batch", "batch"): 1,
        ("sync", "batch"): 1,
        ("sync", "sync"): 1,
    }  # nobody makes a person wait
    assert found["cost"]["saved_usd"] == "0.000075"


def test_what_history_cannot_tell_is_counted_by_its_reason(store: Store, over: Replay, tmp_path: Path) -> None:
    batched(store, 600)
    called(store, 5, lane="stream", charge=Charge(AttemptState.UNKNOWN, at_risk_nano=5))
    called(store, 5, model="nobody-knows", charge=paid(None, None))
    (failed,) = packed(store, NOW)
    end(store, failed, 1, Charge.free(AttemptState.FAILED), NOW + timedelta(seconds=9), Failed("bad", "bad"))
    add(store, job("waits", lane="batch"))
    pruned = called(store, 5)
    with store.write() as connection:
        connection.execute(text("DELETE FROM body WHERE job_id = :id"), {"id": pruned})
    called(store, 5, model="gpt-6-sol", charge=paid(7))  # nothing costs that
    found = over(forcing("stream", tmp_path))
    assert reasons(found) == {
        f"no history of stream for {MODEL}": 1,
        "no history of stream for nobody-knows": 1,
        "no history of stream for gpt-6-sol": 1,
        "what was paid is unknown": 1,
        "no price is known: nobody-knows": 1,
        "charged at another price than today's list has for it: sync for gpt-6-sol": 1,
        "never answered": 1,
        "not ended yet": 1,
        "the words are no longer kept, and rules look at them": 1,
    }
    assert found["jobs"] == 7
    assert found["cost"] == {
        "jobs": 1, "paid_usd": "0.000075", "would_usd": "0.00015", "saved_usd": "-0.000075", "saved_percent": -100.0,
    }  # fmt: skip


def test_who_would_have_been_refused_is_told_by_rule(store: Store, over: Replay, tmp_path: Path) -> None:
    batched(store, 600, tags={"team": "search"})
    batched(store, 600)
    policy = forcing("no", tmp_path, 'when = { tags = { team = "search" } }\nrefuse = true')
    (why,) = over(policy)["untold"]
    assert (why["why"], why["jobs"], why["paid_usd"]) == ("refused", 1, "0.000075")
    assert why["text"].startswith("would have been refused: the policy's rule 'all'")


def test_a_cap_is_kept_again(store: Store, over: Replay, tmp_path: Path) -> None:
    idents = batched(store, 600, count=3)
    with store.write() as connection:
        for ident, cap in zip(idents, (10, 20, 10**9), strict=True):
            connection.execute(text("UPDATE job SET max_cost_nano = :cap WHERE id = :id"), {"id": ident, "cap": cap})
    found = over(forcing("sync", tmp_path))
    assert reasons(found) == {"would have been refused: above its cap": 2, f"no history of sync for {MODEL}": 1}
    assert found["cost"]["jobs"] == 1


def test_another_model_cannot_be_told(store: Store, over: Replay, tmp_path: Path) -> None:
    batched(store, 600)
    found = over(forcing("else", tmp_path, 'model = "gpt-6-sol"'))
    assert list(reasons(found)) == [
        "would have gone to gpt-6-sol at openai, and what that would have used is not known"
    ]
    assert over(forcing("same", tmp_path, f'model = "{MODEL}"'))["untold"] == []


def test_a_lane_that_was_asked_for_is_asked_for_again(store: Store, over: Replay, tmp_path: Path) -> None:
    batched(store, 600)
    called(store, 5)
    with store.write() as connection:
        connection.execute(text("UPDATE decision SET rule = 'asked' WHERE lane = 'batch'"))
    assert moves(over(forcing("sync", tmp_path))) == {("batch", "batch"): 1, ("sync", "sync"): 1}


def test_only_jobs_of_the_time_are_replayed_and_a_page_at_a_time(
    store: Store, over: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE", 2)
    for hour in range(5):
        called(store, 5, NOW + timedelta(hours=hour))
    policy = forcing("sync", tmp_path)
    assert over(policy)["jobs"] == 5
    assert over(policy, NOW + timedelta(hours=1), NOW + timedelta(hours=4))["jobs"] == 3
    assert over(policy, NOW + timedelta(days=1))["jobs"] == 0


def test_nothing_is_sent_and_nothing_is_kept(store: Store, over: Replay, tmp_path: Path) -> None:
    batched(store, 600)
    before = reports.account(store), list(replay.jobs(store))
    over(forcing("sync", tmp_path))
    assert (reports.account(store), list(replay.jobs(store))) == before


def test_equal_facts_of_one_moment_are_decided_once(
    store: Store, over: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batched(store, 600, count=9)
    decided = []
    decide = Router.decide
    monkeypatch.setattr(Router, "decide", lambda self, facts, now: decided.append(now) or decide(self, facts, now))
    assert over(forcing("sync", tmp_path))["moved"] == 9
    assert decided == [NOW]


def test_what_a_worker_really_did_is_priced_to_the_nano_dollar(world: World, over: Replay, tmp_path: Path) -> None:
    """The sandbox's own bill against the replay of it."""
    world.add("Name a colour.", "Name a bird.", "Name a river in Italy.")
    world.add("Name a town.", lane="sync")
    world.work()
    bill = {kind: world.sandbox.bill(kind=kind)["totals"]["cost_nano_usd"] for kind in ("batch", "plain")}
    found = over(forcing("sync", tmp_path))
    assert moves(found) == {("batch", "sync"): 3, ("sync", "sync"): 1}
    assert (found["untold"], found["cost"]["jobs"]) == ([], 4)
    assert nano(found["cost"]["paid_usd"]) == bill["batch"] + bill["plain"]
    assert nano(found["cost"]["would_usd"]) == 2 * bill["batch"] + bill["plain"]
    assert found["cost"]["would_usd"] == reports.savings(world.store, [])["standard_usd"]


def nano(usd: str) -> int:
    whole, _, rest = usd.partition(".")
    return int(whole) * 10**9 + int(f"{rest:0<9}")


# ---- the policy that was used ----

TEMPLATES = {  # what the predictor says of them, and how long their answers really are
    "Describe the last station of the line in every detail.": 6,
    "Yes or no: does this train stop here?": 900,
    "Tell me a story about an engine, please.": 2000,
    "Explain in depth how signals came to be.": 12,
}


class Past:
    """Jobs as they come in day by day, each decided by what was known at its time, and answered at once."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self._where, self.dice, self.clock = (url, folder), Random(seed), Later()
        self.corrected = 0  # decisions that rest on earlier answers

    async def one(self) -> None:
        """One job, by a process of its own."""
        mine = router(*self._where)
        mine.clock = self.clock
        words, length = self.dice.choice([*TEMPLATES.items()])
        person = self.dice.random() < 0.7
        due = self.clock.now() + timedelta(minutes=self.dice.choice([20, 90, 600, 1800]))
        request = Request(
            model=MODEL, messages=[{"role": "user", "content": words}], interactive=person,
            deadline=None if person else due,
        )  # fmt: skip
        alone = estimate.measure(request)
        facts = mine.routed(request, Wish(), self.clock.now())[1]
        self.corrected += (facts.output_p50, facts.output_p90) != alone[1:]
        started = await mine.accept(request, Wish())
        self._answer(mine.store, started, length)
        seen = log(length)
        key = MODEL, template_of(request.body())
        lengths.add(mine.store, {key: lengths.Sums(1, seen, seen * seen)}, self.clock.now())
        await mine.close()
        self.clock.ahead += self.dice.randint(1, 3600)

    def _answer(self, store: Store, started: Started, length: int) -> None:
        now = self.clock.now()
        if started.claim is None and started.decision.lane is Lane.BATCH:
            batch_id = new_id(now)
            group = Waiting("openai", MODEL, 1)
            pack(store, batch_id, group, base_url="http://x", max_rows=9, max_bytes=10**6, now=now)
            known: dict[str, Any] = {"status": "completed", "expires_at": None, "next_poll_at": now}
            batches.created(store, batch_id, provider_batch_id=batch_id, now=now, **known)
            self.clock.ahead += self.dice.choice([60, 900, 7200])
            batches.imported(store, batch_id, self.clock.now())
        elif started.claim is None:
            queue.claim(store, "me", now + timedelta(hours=1), 1, now, BOTH)
        end(store, started.job_id, 1, paid(SYNC, output_tokens=length), self.clock.now())


@pytest.mark.parametrize("seed", range(3))
def test_the_policy_that_was_used_moves_no_job(database_url: str, over: Replay, tmp_path: Path, seed: int) -> None:
    """Each is decided by what was known at its time: neither less, nor what came after."""
    told = Past(database_url, tmp_path, seed)

    async def play() -> None:
        for _ in range(40):
            await told.one()

    asyncio.run(play())
    assert told.corrected > 10
    found = over()
    assert (found["jobs"], found["moved"], found["untold"]) == (40, 0, [])
    assert found["cost"]["saved_usd"] == "0"
    assert len(moves(found)) > 2


def test_a_prompt_that_was_counted_is_replayed_as_one(database_url: str, store: Store, tmp_path: Path) -> None:
    """What providers report corrects counts and estimates apart."""
    pytest.importorskip("rs_bpe")
    told = Past(database_url, tmp_path, 1)
    asyncio.run(told.one())
    [[recorded]] = replay.jobs(store)
    request = Request(model=MODEL, messages=[{"role": "user", "content": "Is it so?"}])
    mine = router(database_url, tmp_path)
    estimated = mine.routed(request, Wish(), NOW, 1)[1]
    asyncio.run(mine.close())
    assert (recorded.vocabulary, estimated.counted) == ("o200k_base", None)
    assert replaying.as_it_was(estimated, recorded).counted == ("o200k_base", True)
    assert replaying.as_it_was(estimated, recorded._replace(decision_id="d")).counted is None
