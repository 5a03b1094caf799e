"""PostgreSQL: several writers at once, what is said when the server is away, and texts that it cannot hold."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import IntegrityError

from db import batches, engine, facts, lookup, queue, rescue, settle
from db import postgres as postgres_errors
from db.engine import Store, StoreAway, StoreError, connect
from db.ledger import Charge
from db.migrations import migrate
from db.packing import Waiting
from db.settle import Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests.lanes import MODEL, NOW, add, balanced, job, pack, rows, settled, states
from tests.postgres import PASSWORD, Postgres, postgres

ROOT = Path(__file__).parent.parent
PAID = Charge(AttemptState.OK, 700, CostSource.COMPUTED)
SOON, UNTIL = NOW + timedelta(seconds=1), NOW + timedelta(seconds=60)

# One worker process: it claims what is due, a few at a time, and settles it, until nothing is left.
_WORKER = """
import json, sys
from datetime import timedelta
from db import queue, settle
from db.engine import connect
from db.ledger import Charge
from db.settle import Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests.lanes import NOW
store, by, done = connect(sys.argv[1]), sys.argv[2], []
paid = Charge(AttemptState.OK, 700, CostSource.COMPUTED)
print("ready", flush=True)
sys.stdin.readline()
while claims := queue.claim(store, by, NOW + timedelta(seconds=60), 7, NOW + timedelta(seconds=1), ["openai"]):
    done += [(one.job_id, one.n) for one in claims]
    settle.settle(store, [Settlement(i, n, paid, Succeeded(Text(by))) for i, n in done[-len(claims):]], NOW)
print(json.dumps(done))
"""


@pytest.fixture
def shared(server: Postgres) -> Iterator[str]:
    url = server.create()
    yield url
    server.drop(url)


@pytest.fixture
def store(shared: str) -> Iterator[Store]:
    opened = connect(shared)
    yield opened
    opened.close()


def test_two_processes_claim_each_job_once(store: Store, shared: str) -> None:
    ids = add(store, *(job(lane="sync") for _ in range(2000)))
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, shared, name], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in ("one", "two")
    ]  # fmt: skip
    assert [worker.stdout.readline() for worker in workers if worker.stdout] == ["ready\n"] * 2
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    done = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert all(done), "both had something to do"
    claimed = Counter(ident for one in done for ident, _ in one)
    assert claimed == Counter(ids)
    assert settled(store) == (2000 * 700, 0, 0)
    assert states(store) == {"succeeded": 2000}
    balanced(store)


def test_a_job_that_another_takes_now_is_not_waited_for(store: Store) -> None:
    first, second = add(store, job(lane="sync"), job(lane="sync"))
    with store.write() as other:
        other.execute(text("SELECT 1 FROM job WHERE id = :id FOR UPDATE"), {"id": first})
        assert [one.job_id for one in queue.claim(store, "me", UNTIL, 10, SOON, ["openai"])] == [second]
    assert [one.job_id for one in queue.claim(store, "me", UNTIL, 10, SOON, ["openai"])] == [first]


def test_the_same_file_twice_at_once_adds_each_row_once(store: Store, shared: str) -> None:
    keys = [f"row {n}" for n in range(300)]
    stores = [connect(shared) for _ in range(4)]

    def submit(one: Store) -> None:
        turned = keys if one is stores[0] else keys[::-1]
        for first in range(0, 300, 50):
            add(one, *(job(row_key=key, decision_id=str(id(one))) for key in turned[first : first + 50]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(submit, stores))
    for one in stores:
        one.close()
    assert rows(store, "SELECT count(*), count(DISTINCT row_key) FROM job")[0] == (300, 300)
    assert rows(store, "SELECT sum(accepted), sum(duplicates) FROM submission")[0] == (300, 900)
    balanced(store)


def test_writers_that_meet_on_the_same_jobs_never_wait_in_a_circle(store: Store) -> None:
    """Settling, cancelling, renewing, rescuing and retrying at once: a deadlock would raise."""
    add(store, *(job(lane="sync") for _ in range(60)))
    claims = queue.claim(store, "me", SOON, 60, SOON, ["openai"])
    ids = [one.job_id for one in claims]
    ends = [Settlement(one.job_id, one.n, PAID, Succeeded(Text("x"))) for one in claims]
    moves = [
        lambda: settle.settle(store, ends, NOW),
        lambda: settle.settle(store, ends[::-1], NOW),
        lambda: queue.cancel(store, ids[::-1], NOW),
        lambda: queue.renew(store, "me", UNTIL),
        lambda: rescue.rescue(store, NOW + timedelta(hours=1), 9),
        lambda: queue.retry(store, ids, NOW),
    ]
    with ThreadPoolExecutor(len(moves)) as pool:
        for _ in range(15):
            for made in [pool.submit(move) for move in moves]:
                made.result()
    balanced(store)
    assert settled(store)[0] == 60 * 700


def test_a_row_is_not_taken_out_of_a_file_that_is_about_to_go(store: Store) -> None:
    """`jobs cancel` looks for an upload intent while the worker commits one: one of the two sees the other."""
    seen = set()
    for number in range(30):
        ids = add(store, job(), job(), job(), now=NOW)
        assert (
            pack(store, f"b{number}", Waiting("openai", MODEL, 3), base_url="u", max_rows=9, max_bytes=10**6, now=NOW)
            == 3
        )
        batch = batches.get(store, f"b{number}")
        assert batch is not None
        with ThreadPoolExecutor(2) as pool:
            intending = pool.submit(batches.intend_upload, store, batch, 3, NOW)
            pool.submit(queue.cancel, store, ids[:1], NOW).result()
        intended = intending.result()
        still = rows(store, "SELECT count(*) FROM attempt WHERE batch_id = :id AND state = 'sent'", id=batch.id)
        assert still[0][0] == (3 if intended else 2)
        seen.add(intended)
    assert seen == {True, False}, "each of the two came first at least once"


# ---- what is said ----


def told(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        migrate(connect(url))
    said = str(caught.value)
    assert PASSWORD not in said
    assert PASSWORD not in repr(caught.value)
    assert "\n" not in said
    return said


def test_what_is_wrong_is_said_without_the_password(server: Postgres, shared: str) -> None:
    assert "is not there; make it: createdb nowhere" in told(server.url("nowhere"))
    assert "refused the user or the password" in told(shared.replace(":not-a-secret", ":wrong"))
    assert "cannot be reached: is the server running" in told(shared.replace(str(server.port), "1"))
    assert ":***@127.0.0.1" in connect(shared).url


def test_a_url_that_is_not_understood_is_not_repeated() -> None:
    said = told(f"postgresql+psycopg://u:{PASSWORD}@host:port/x")
    assert "is not understood" in said


@pytest.mark.parametrize(
    ("error", "says", "again"),
    [
        (psycopg.errors.DiskFull(), "no room to grow", False),
        (psycopg.errors.DeadlockDetected(), "changed by another process", True),
        (psycopg.errors.LockNotAvailable(), "was locked by another process for 30 s", False),
        (psycopg.errors.AdminShutdown(), "is being stopped or started", True),
        (psycopg.errors.TooManyConnections(), "max_connections", False),
        (psycopg.errors.InsufficientPrivilege(), "give it rights", False),
        (psycopg.errors.SyntaxError(), None, False),
    ],
)
def test_each_trouble_has_its_words(error: psycopg.Error, says: str | None, again: bool) -> None:
    said = postgres_errors.said(error, make_url("postgresql://host/x"))
    assert (said is None) if says is None else (says in str(said))
    assert postgres_errors.passing(error) is again


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg"])
def test_the_url_in_each_of_its_ways(shared: str, driver: str) -> None:
    opened = connect(shared.replace("postgresql+psycopg", driver))
    assert migrate(opened) == 0
    opened.close()


def test_rows_that_the_server_refuses_are_not_in_the_error(store: Store) -> None:
    add(store, job("a prompt that is nobody's business"))
    with pytest.raises(IntegrityError) as caught, store.write() as connection:
        connection.execute(text("UPDATE body SET job_id = 'nobody', body = body || '!'"))
    assert "foreign key" in str(caught.value)
    assert "business" not in str(caught.value)


# ---- a server that stops ----


def test_a_restart_is_waited_for_and_a_crash_loses_nothing_that_was_kept() -> None:
    with postgres(durable=True) as server:
        store = connect(server.create())
        migrate(store)
        facts.put(store, "before", "1")
        server.restart()
        facts.put(store, "after a stop", "1")
        server.crash()
        starting = threading.Timer(0.5, server.start)
        starting.start()
        facts.put(store, "after a crash", "1")
        starting.join()
        assert {row[0] for row in rows(store, "SELECT key FROM setting")} == {"before", "after a stop", "after a crash"}
        store.close()


def test_a_server_that_stays_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "AWAY_S", 0.3)
    with postgres() as server:
        store = connect(server.create())
        migrate(store)
        server.stop()
        with pytest.raises(StoreAway, match="cannot be reached"):
            facts.put(store, "a", "1")
        server.start()
        facts.put(store, "a", "1")
        store.close()


def test_a_connection_that_is_lost_in_a_transaction_undoes_it_and_is_said(server: Postgres, store: Store) -> None:
    def half() -> None:
        with store.write() as connection, server.admin() as admin:
            connection.execute(text("INSERT INTO setting VALUES ('half', '1')"))
            admin.execute("SELECT pg_terminate_backend(%s)", (connection.scalar(text("SELECT pg_backend_pid()")),))
            connection.execute(text("INSERT INTO setting VALUES ('other', '1')"))

    with pytest.raises(StoreAway):
        half()
    assert facts.get(store, "half") is None


def test_settling_is_tried_again_when_its_connection_is_lost(server: Postgres, store: Store) -> None:
    add(store, job(lane="sync"))
    one = queue.claim(store, "me", UNTIL, 1, SOON, ["openai"])[0]
    with psycopg.connect(server.url(store.url.rpartition("/")[2]).replace("+psycopg", "")) as other:
        other.execute("SELECT 1 FROM job FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            ended = Settlement(one.job_id, one.n, PAID, Succeeded(Text("x")))
            settling = pool.submit(settle.settle, store, [ended], NOW)
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            with server.admin() as admin:
                waiting = waiting.replace("current_database()", "%s")
                while not (found := admin.execute(waiting, (other.info.dbname,)).fetchall()):
                    assert not settling.done()
                admin.execute("SELECT pg_terminate_backend(%s)", found[0])
            other.rollback()
            settling.result()
    assert settled(store) == (700, 0, 0)
    assert states(store) == {"succeeded": 1}


# ---- what it cannot hold ----


def test_nul_and_half_a_character_become_the_mark_of_what_cannot_be_shown(store: Store) -> None:
    add(store, job(lane="sync", client_key="k\0", tags={"a": "b\0"}), job(lane="sync"))
    claims = queue.claim(store, "me", UNTIL, 2, SOON, ["openai"])
    first, second = sorted(claims, key=lambda one: one.job_id)
    calls = [{"id": "1", "arguments": "\0\ud800"}]
    ends = [Succeeded(Text("a\0b\ud800c", tool_calls=calls)), Succeeded(Text("fine \U0001f600"))]
    settle.settle(
        store, [Settlement(one.job_id, 1, PAID, end) for one, end in zip((first, second), ends, strict=True)], NOW
    )
    found = lookup.job(store, first.job_id)
    assert found is not None
    assert (found["text"], found["client_key"]) == ("a�b�c", "k�")
    assert found["tool_calls"][0]["id"] == "1"
    other = lookup.job(store, second.job_id)
    assert other is not None
    assert other["text"] == "fine \U0001f600"
