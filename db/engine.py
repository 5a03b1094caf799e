"""Open the database: SQLite in WAL mode, writers under BEGIN IMMEDIATE, files for their owner only."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

BUSY_MS = 30_000  # a writer waits this long for another before it gives up


class StoreError(Exception):
    """The database cannot be used as asked; the message says which, why and what to do."""


class Store:
    """One database. `read()` and `write()` are short transactions; none is held over a call to a provider."""

    def __init__(self, url: str, engine: Engine, path: Path | None) -> None:
        self.url = url
        self.path = path
        self.turn = threading.Lock()  # writers of one process queue here: SQLite itself would let them sleep and starve
        self._engine = engine
        self._writer = engine.execution_options(sqlite_begin="IMMEDIATE", sqlite_sync="NORMAL")
        # What stops a second bill must survive a power cut, not only a killed process.
        self._durable = engine.execution_options(sqlite_begin="IMMEDIATE", sqlite_sync="FULL")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; never waits for a writer."""
        with _told(self.url), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Connection]:
        """The one writer until the block ends; `durable` syncs the disk before it returns."""
        with self.turn, _told(self.url), (self._durable if durable else self._writer).begin() as connection:
            yield connection

    def raw(self) -> PoolProxiedConnection:
        """The driver's own connection, for what cannot pay for more; whoever takes it closes it."""
        return self._engine.raw_connection()

    @property
    def dialect(self) -> Dialect:
        """What statements are compiled for."""
        return self._engine.dialect

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:  # BEGIN goes to the driver itself
        name = getattr(getattr(error, "orig", error), "sqlite_errorname", "") or ""
        known = {
            "SQLITE_NOTADB": "is not a SQLite database; name another file with SHUNTER_DATABASE_URL",
            "SQLITE_READONLY": "cannot be written; check the rights of the file and its folder",
            "SQLITE_CANTOPEN": "cannot be opened; check the rights of the file and its folder",
            "SQLITE_FULL": "has no room to grow; the disk is full",
            "SQLITE_BUSY": f"was locked by another process for {BUSY_MS // 1000} s; try again",
            "SQLITE_CORRUPT": "is damaged; restore a backup (`shunter db backup` makes them)",
        }
        for prefix, text in known.items():
            if name.startswith(prefix):
                raise StoreError(f"database {url} {text}") from error
        raise


def connect(url: str) -> Store:
    """The database at `url` (`sqlite:///PATH`), its file made for its owner only; StoreError when it cannot be."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(f"database URL {url!r} is not understood; write sqlite:////folder/shunter.db") from None
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(f"database {parsed.get_backend_name()!r} is not supported yet; write sqlite:////folder/x.db")
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError("a database in memory would be gone with the process; write sqlite:////folder/shunter.db")
    path = Path(parsed.database).expanduser().absolute()
    _make_private(path)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_MS / 1000}, hide_parameters=True)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return Store(f"sqlite:///{path}", engine, path)


def _make_private(path: Path) -> None:
    """Make the file 0600 before SQLite would make it 0644; its -wal and -shm inherit that."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(
            f"database {path} cannot be opened for writing ({error.strerror}); "
            "make its folder writable or name another with SHUNTER_DATABASE_URL"
        ) from error


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: BEGIN is ours
    pragmas = "journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON"
    for pragma in (*pragmas, "wal_autocheckpoint=4000"):  # pages of 4 KiB; KiB of memory
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    options, driver = connection.get_execution_options(), connection.connection
    sync = options.get("sqlite_sync")
    if sync and driver.info.get("sync") != sync:
        driver.execute(f"PRAGMA synchronous={sync}")
        driver.info["sync"] = sync
    driver.execute(f"BEGIN {options.get('sqlite_begin', '')}")
