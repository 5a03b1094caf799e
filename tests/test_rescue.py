"""What a killed owner leaves: its attempt is unknown, its words are kept from the log, and the log is empty."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from db import lookup, queue, rescue, settle
from db.engine import Store
from db.ledger import BUSY, Charge
from db.log import Piece, Writer
from db.packing import Waiting
from db.plans import Onto
from db.queue import Claim
from db.settle import Again, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from jobs.chat import Outcome
from tests.lanes import MODEL, NOW, RISK, World, add, balanced, job, pack, rows, states
from tests.streams import at_once, logged, opened, tail

pytestmark = pytest.mark.both

DEAD = NOW + timedelta(seconds=1)
LONG_DEAD = NOW + timedelta(hours=2)
PAID = Charge(AttemptState.OK, 700, CostSource.COMPUTED)
ROOT = Path(__file__).parent.parent


def watched(store: Store, **more: Any) -> Claim:
    """A job that somebody waits for, its lease over at NOW."""
    add(store, job(lane="stream", interactive=True, **more))
    return queue.claim(store, "me", NOW, 1, NOW, ["openai"])[0]


def write(store: Store, mine: Claim, *said: tuple[int, str, str]) -> None:
    """Log these as choice, kind and text."""
    seq, pieces = 0, []
    for choice, kind, text in said:
        pieces.append(Piece(mine.job_id, mine.n, seq, 0, choice, kind, text))
        seq += len(text)
    writer = Writer(store)
    writer.append(pieces)
    writer.close()


def found(store: Store, mine: Claim) -> dict[str, Any]:
    job_ = lookup.job(store, mine.job_id)
    assert job_ is not None
    return job_


# ---- the words ----


def test_the_words_of_a_killed_owner_are_its_partial_text(store: Store) -> None:
    mine = watched(store)
    write(store, mine, (0, "text", "The wagons "), (0, "text", "arrive"))
    assert rescue.rescue(store, DEAD, 3) == 1
    kept = found(store, mine)
    assert (kept["state"], kept["error"]["code"]) == ("failed", "abandoned")
    assert (kept["text"], kept["partial"], kept["finish_reason"]) == ("The wagons arrive", True, None)
    assert (kept["choices"], kept["refusal"]) == (None, None)
    assert rows(store, "SELECT state, cost_nano, at_risk_nano FROM attempt") == [("unknown", None, RISK)]
    assert logged(store) == 0
    balanced(store)


def test_more_than_one_choice(store: Store) -> None:
    mine = watched(store, sent={"n": 3})
    write(store, mine, (2, "text", "c"), (0, "text", "a"), (2, "text", "cc"), (1, "text", "b"))
    rescue.rescue(store, DEAD, 3)
    assert found(store, mine)["text"] == "a"
    assert [choice["text"] for choice in found(store, mine)["choices"]] == ["a", "b", "ccc"]
    assert all(choice["finish_reason"] is None for choice in found(store, mine)["choices"])


def test_a_refusal(store: Store) -> None:
    mine = watched(store)
    write(store, mine, (0, "reasoning", "hm"), (0, "refusal", "I can"), (0, "refusal", "not"))
    rescue.rescue(store, DEAD, 3)
    assert (found(store, mine)["text"], found(store, mine)["refusal"]) == ("", "I cannot")


def test_nothing_heard_is_no_text(store: Store) -> None:
    mine = watched(store)
    rescue.rescue(store, DEAD, 3)
    assert (found(store, mine)["state"], found(store, mine)["text"]) == ("failed", None)


def test_even_this_end_has_a_typed_outcome(store: Store) -> None:
    mine = watched(store)
    rescue.rescue(store, DEAD, 3)
    assert Outcome(found(store, mine)["attempts"][0]["outcome"]) is Outcome.CUT


# ---- who is touched ----


def test_an_owner_that_lives_keeps_everything(store: Store) -> None:
    add(store, job(lane="stream", interactive=True))
    mine = queue.claim(store, "me", NOW + timedelta(seconds=60), 1, NOW, ["openai"])[0]
    write(store, mine, (0, "text", "he"))
    assert rescue.rescue(store, DEAD, 3) == 0
    assert (states(store), logged(store)) == ({"running": 1}, 1)


def test_bulk_is_queued_again_and_its_next_words_replace_the_old(store: Store) -> None:
    mine = opened(store)
    write(store, mine, (0, "text", "The wagons arrive"))
    assert rescue.rescue(store, DEAD, 3) == 1
    assert (found(store, mine)["state"], found(store, mine)["text"]) == ("queued", "The wagons arrive")
    second = queue.claim(store, "other", DEAD, 1, DEAD, ["openai"])[0]
    write(store, second, (0, "text", "A disp"))
    assert (tail(store, mine.job_id).attempt, tail(store, mine.job_id).stored) == (2, None)
    rescue.rescue(store, DEAD + timedelta(seconds=1), 3)
    assert (found(store, mine)["text"], found(store, mine)["partial"]) == ("A disp", True)
    assert logged(store) == 0


def test_what_may_have_been_billed_is_held_where_that_is_asked_for(store: Store) -> None:
    mine = opened(store)
    assert rescue.rescue(store, DEAD, 3, hold=True) == 1
    held = found(store, mine)
    assert (held["state"], held["error"]["code"]) == ("failed", "held")
    assert "`shunter jobs retry ID` sends it again" in held["error"]["message"]
    assert [one["state"] for one in held["attempts"]] == ["unknown"]
    queue.retry(store, [mine.job_id], DEAD)
    assert queue.claim(store, "other", LONG_DEAD, 1, DEAD, ["openai"])[0].n == 2


def test_to_be_turned_away_was_none_of_its_tries(store: Store) -> None:
    mine, away = opened(store), Charge.free(AttemptState.FAILED, code="429", outcome=BUSY)
    for n in range(1, 5):
        settle.settle(store, [Settlement(mine.job_id, n, away, Again(NOW, "429", "busy"))], NOW)
        (claimed,) = queue.claim(store, "me", NOW, 1, NOW, ["openai"])
        assert (claimed.n, claimed.turned_away) == (n + 1, n)
    rescue.rescue(store, DEAD, 3)
    assert found(store, mine)["state"] == "queued"


def test_a_second_owner_who_heard_nothing_leaves_the_words_of_the_first(store: Store) -> None:
    mine = opened(store)
    write(store, mine, (0, "text", "The wagons"))
    rescue.rescue(store, DEAD, 3)
    queue.claim(store, "other", DEAD, 1, DEAD, ["openai"])
    rescue.rescue(store, DEAD + timedelta(seconds=1), 3)
    assert found(store, mine)["text"] == "The wagons"


def test_after_the_last_try_it_fails(store: Store) -> None:
    mine = opened(store)
    write(store, mine, (0, "text", "he"))
    rescue.rescue(store, DEAD, 1)
    assert (found(store, mine)["state"], found(store, mine)["text"]) == ("failed", "he")


# ---- a drain whose process died ----


def test_a_drained_orphan_is_ended_an_hour_later(store: Store) -> None:
    mine = watched(store)
    write(store, mine, (0, "text", "The wagons"))
    queue.leave(store, mine, NOW)
    assert rescue.rescue(store, NOW + timedelta(minutes=59), 3) == 0
    assert rows(store, "SELECT state FROM attempt") == [("sent",)]
    rescue.rescue(store, LONG_DEAD, 3)
    kept = found(store, mine)
    assert (kept["state"], kept["text"], kept["partial"]) == ("cancelled", "The wagons", True)
    assert rows(store, "SELECT state, at_risk_nano FROM attempt") == [("unknown", RISK)]
    assert logged(store) == 0
    balanced(store)


# ---- the owner was only slow ----


def late(store: Store, mine: Claim) -> None:
    ending = Succeeded(Text("The wagons arrive.", "stop"))
    settle.settle(store, [Settlement(mine.job_id, mine.n, PAID, ending, logged=True)], LONG_DEAD)


def test_a_late_answer_replaces_the_words_and_brings_the_bill(store: Store) -> None:
    mine = watched(store)
    write(store, mine, (0, "text", "The wagons"))
    rescue.rescue(store, DEAD, 3)
    late(store, mine)
    kept = found(store, mine)
    assert (kept["text"], kept["partial"], kept["finish_reason"]) == ("The wagons arrive.", False, "stop")
    assert rows(store, "SELECT state, cost_nano, at_risk_nano FROM attempt") == [("ok", 700, None)]
    balanced(store)


def test_a_late_answer_of_bulk_is_the_jobs(store: Store) -> None:
    mine = opened(store)
    write(store, mine, (0, "text", "The wagons"))
    rescue.rescue(store, DEAD, 3)
    late(store, mine)
    assert (states(store), found(store, mine)["text"]) == ({"succeeded": 1}, "The wagons arrive.")
    assert queue.claim(store, "other", DEAD, 1, DEAD, ["openai"]) == []


def test_late_words_are_dropped(store: Store) -> None:
    mine = watched(store)
    write(store, mine, (0, "text", "The wagons"))
    rescue.rescue(store, DEAD, 3)
    write(store, mine, (0, "text", "The wagons arrive"))
    assert logged(store) == 0


# ---- a real one ----


CHILD = """
import asyncio, sys
from pathlib import Path
from db.engine import connect
from tests.lanes import World
from tests.streams import all_of, claim
class Far:
    url = sys.argv[2]
async def main():
    world = World(connect(sys.argv[1]), Far(), Path(sys.argv[3]))
    context = world.context()
    await all_of(context, claim(world, context))
asyncio.run(main())
"""


def test_a_process_that_is_killed_in_mid_stream(world: World, database_url: str, tmp_path: Path) -> None:
    world.sandbox.faults([{"kind": "silence", "after": 7}])
    words = [sys.executable, "-c", CHILD, database_url, world.sandbox.url, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT) as child:
        try:
            at_once(lambda: logged(world.store), 30.0)
        finally:
            os.kill(child.pid, signal.SIGKILL)
    world.clock.ahead = 1000.0
    assert rescue.rescue(world.store, world.clock.now(), 3) == 1
    ident = rows(world.store, "SELECT id FROM job")[0][0]
    assert world.job(ident)["state"] == "failed"
    assert len(world.job(ident)["text"].split()) == 7
    assert world.attempts() == {"unknown": 1}
    assert logged(world.store) == 0
    world.sandbox.billed(1)
    world.at_risk()


def test_a_batch_that_never_ran_it_was_none_of_its_tries(store: Store) -> None:
    ident = add(store, job())[0]
    for n, onto in ((1, None), (2, Onto(1, "sync", "default", None))):
        pack(store, f"b{n}", Waiting("openai", MODEL, 1), base_url="u", max_rows=9, max_bytes=999_999, now=NOW)
        idle, why = Charge.free(AttemptState.EXPIRED, code="batch_expired"), "it expired"
        settle.settle(store, [Settlement(ident, n, idle, Again(NOW, "batch_expired", why, onto=onto))], NOW)
    for tries in (1, 2, 3):
        now = NOW + timedelta(minutes=tries)
        mine = queue.claim(store, "me", now, 1, now, ["openai"])[0]
        assert (mine.n, mine.never_ran) == (tries + 2, 2)
        rescue.rescue(store, now + timedelta(seconds=1), 3)
        assert states(store) == ({"queued": 1} if tries < 3 else {"failed": 1})
