"""The write-ahead log of SQLite: one connection puts it back, while nobody writes, so it stays small and whole."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import facts, wal
from db.engine import Store, connect
from tests.lanes import add, job, rows

MANY = 40


def size(store: Store) -> int:
    return Path(f"{store.path}-wal").stat().st_size


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(wal, "_LARGE", 500_000)  # more than the migrations write
    return 500_000


@pytest.fixture
def store(small: int, database_url: str) -> Any:
    from db.migrations import migrate

    opened = connect(database_url)
    migrate(opened)
    yield opened
    opened.close()


def fill(store: Store) -> None:
    add(store, *(job("word " * 200) for _ in range(20)))


def test_no_connection_checkpoints_by_itself(store: Store) -> None:
    assert rows(store, "PRAGMA wal_autocheckpoint")[0][0] == 0
    with store.write() as connection:
        assert connection.scalar(text("PRAGMA wal_autocheckpoint")) == 0


def test_the_log_stays_small_and_everything_is_kept(store: Store, small: int) -> None:
    sizes = []
    for _ in range(MANY):
        fill(store)
        sizes.append(size(store))
    assert max(sizes) < 2 * small
    assert rows(store, "SELECT count(*) FROM job")[0][0] == MANY * 20
    assert rows(store, "PRAGMA integrity_check")[0][0] == "ok"


def test_others_can_write_while_the_disk_takes_the_log(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is nearly all of the time that it takes."""
    synced = []
    sync = wal.os.fsync

    def watched(file: int) -> None:
        with sqlite3.connect(str(store.path), timeout=0, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        synced.append(store.turn.locked())
        sync(file)

    monkeypatch.setattr(wal.os, "fsync", watched)
    for _ in range(MANY):
        fill(store)
    assert synced
    assert not any(synced)


def test_nobody_can_write_while_it_goes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes the bug impossible: at the moment of the checkpoint the writer's lock is held."""
    seen = []
    other = sqlite3.connect(str(store.path), timeout=0, isolation_level=None)

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
            if "wal_checkpoint(" in sql:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
                seen.append(sql)
            return super().execute(sql, *given)

    opening = sqlite3.connect

    def watched(*given: Any, **named: Any) -> sqlite3.Connection:
        return opening(*given, factory=Watched, **named)

    monkeypatch.setattr(wal.sqlite3, "connect", watched)
    for _ in range(MANY):
        fill(store)
    other.close()
    assert set(seen) == {"PRAGMA wal_checkpoint(PASSIVE)"}


def test_another_writer_is_not_waited_for(store: Store) -> None:
    """Its own look comes after its own write."""
    for _ in range(3):
        fill(store)
    assert store.path is not None
    other = sqlite3.connect(store.path, timeout=0, isolation_level=None)
    other.execute("PRAGMA wal_autocheckpoint=0")
    looking = wal.Checkpointer(store.path)
    looking._next = 0
    other.execute("BEGIN IMMEDIATE")
    looking.look()
    assert looking._next == 0, "it is tried again after the next write"
    other.execute("ROLLBACK")
    looking.look()
    assert looking._next > 0
    looking.close()
    other.close()


def test_a_reader_keeps_it_from_starting_anew_and_is_not_disturbed(store: Store, small: int) -> None:
    facts.put(store, "n", "old")
    with store.read() as reader:
        value = text("SELECT value FROM setting WHERE key = 'n'")
        assert reader.scalar(value) == "old"
        facts.put(store, "n", "new")
        for _ in range(MANY):
            fill(store)
        assert size(store) > 3 * small
        assert reader.scalar(value) == "old"
    fill(store)
    for _ in range(MANY):
        fill(store)
    assert size(store) < 3 * small


def test_a_second_store_in_one_process_does_not_drop_the_locks_of_the_first(store: Store) -> None:
    """Closing a file descriptor of the database would drop them, and the next to close would delete the log in use."""
    import subprocess
    import sys

    fill(store)
    second = connect(store.url)
    with store.read() as reader:
        reader.execute(text("SELECT count(*) FROM job")).all()
        second.close()
        code = 'import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute("SELECT 1 FROM job").fetchall()'
        subprocess.run([sys.executable, "-c", code, str(store.path)], check=True)
        assert Path(f"{store.path}-wal").exists()
    add(store, job())
    assert rows(store, "SELECT count(*) FROM job")[0][0] == 21
