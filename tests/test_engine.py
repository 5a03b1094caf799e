"""The database file: its rights, its locks, and what is said when it cannot be used."""

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from db import engine, facts
from db.engine import Store, StoreError, connect
from db.migrations import migrate
from tests.lanes import add, job, rows

ROOT = Path(__file__).parent.parent
NOBODY = 65534


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("shunter.db*")}


def test_the_files_are_for_their_owner_only(store: Store, tmp_path: Path) -> None:
    add(store, job())
    assert modes(tmp_path) == {"shunter.db": 0o600, "shunter.db-wal": 0o600, "shunter.db-shm": 0o600}


def test_new_folders_are_for_their_owner_only(tmp_path: Path) -> None:
    connect(f"sqlite:///{tmp_path / 'a' / 'shunter.db'}").close()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_the_pragmas_are_set(store: Store) -> None:
    found = {name: rows(store, f"PRAGMA {name}")[0][0] for name in ("journal_mode", "foreign_keys", "busy_timeout")}
    assert found == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": engine.BUSY_MS}


def test_a_durable_write_syncs_the_disk_and_the_next_one_does_not(store: Store) -> None:
    for durable, level in ((True, 2), (False, 1), (True, 2)):
        with store.write(durable=durable) as connection:
            assert connection.scalar(text("PRAGMA synchronous")) == level


def test_threads_lose_no_update(store: Store) -> None:
    facts.put(store, "n", "0")

    def increment(_: int) -> None:
        with store.write() as connection:
            now = int(connection.scalar(text("SELECT value FROM setting WHERE key = 'n'")) or 0)
            connection.execute(text("UPDATE setting SET value = :v WHERE key = 'n'"), {"v": str(now + 1)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(400)))
    assert facts.get(store, "n") == "400"


def test_a_reader_sees_one_moment_and_waits_for_nobody(store: Store) -> None:
    facts.put(store, "n", "old")
    query = text("SELECT value FROM setting WHERE key = 'n'")
    with store.read() as reader:
        assert reader.scalar(query) == "old"
        facts.put(store, "n", "new")
        assert reader.scalar(query) == "old"
    assert facts.get(store, "n") == "new"


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def half() -> None:
        with store.write() as connection:
            connection.execute(text("INSERT INTO setting VALUES ('half', '1')"))
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert facts.get(store, "half") is None


def told(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        migrate(connect(url))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "not understood"),
        ("mysql://host/x", "not supported"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_urls_that_cannot_be(url: str, says: str) -> None:
    assert says in told(url)
    assert "sqlite:////folder/" in told(url)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database, it is a text of more than a few bytes" * 50)
    before = path.read_bytes()
    assert "is not a SQLite database" in told(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_folder_as_the_file(tmp_path: Path) -> None:
    assert "cannot be opened for writing (Is a directory)" in told(f"sqlite:///{tmp_path}")


def test_a_path_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be opened for writing" in told(f"sqlite:///{tmp_path / 'file' / 'shunter.db'}")


def test_a_damaged_database_says_so(store: Store) -> None:
    for _ in range(200):
        add(store, job("word " * 200))
    store.close()
    assert store.path is not None
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with store.path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 60))
    with pytest.raises(StoreError, match="is damaged; restore a backup"):
        rows(store, "SELECT count(*) FROM body WHERE body LIKE '%zzz%'")


def test_a_writer_that_waits_too_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_MS", 20)
    other = connect(store.url)
    with store.write(), pytest.raises(StoreError, match="was locked by another process"), other.write():
        raise AssertionError("two writers at once")
    other.close()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that another user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def as_nobody(url: str) -> str:
    """What a user without rights is told."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the rights of this user were tried by hand")
    code = (
        "import sys, os\nfrom db.engine import connect, StoreError\nfrom db.migrations import migrate\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try:\n    migrate(connect(sys.argv[1]))\nexcept StoreError as error:\n    print(error)\n"
        "else:\n    print('opened')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def test_a_folder_that_cannot_be_written(shared: Path) -> None:
    said = as_nobody(f"sqlite:///{shared / 'shunter.db'}")
    assert "cannot be opened for writing (Permission denied); make its folder writable" in said


def test_a_file_of_somebody_else(shared: Path) -> None:
    store = connect(f"sqlite:///{shared / 'shunter.db'}")
    migrate(store)
    store.close()
    assert "cannot be opened for writing (Permission denied)" in as_nobody(store.url)
