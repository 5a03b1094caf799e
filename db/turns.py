"""The writers of one SQLite file in one process: they queue here, since SQLite would let them sleep and starve."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db.wal import Checkpointer


class Busy(Exception):
    """Somebody else writes now, and there is no time to wait: nothing was begun."""


class Turns:
    """One writer at a time, each over a connection that stays open: opening it takes as long as a small write."""

    def __init__(self, path: Path, normal: Engine, durable: Engine) -> None:
        self.lock = threading.Lock()
        self._engines = {False: normal, True: durable}
        self._open: dict[bool, Connection] = {}
        self._log = Checkpointer(path)
        self._mine = threading.local()  # of each thread: whether it is hurried, and what its writes are part of

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[Connection]:
        """A transaction; Busy when there is no time for what would have to wait."""
        if not durable and (whole := getattr(self._mine, "whole", None)) is not None:
            yield whole
            return
        hurried = getattr(self._mine, "hurried", False)
        if (hurried and durable) or not self.lock.acquire(blocking=not hurried):
            raise Busy
        try:
            connection = self._connection(durable=durable)
            with self._begun_at_once(connection) if hurried else connection.begin():
                yield connection
        finally:
            self.lock.release()
        if not hurried:
            self.tidied()

    def _connection(self, *, durable: bool) -> Connection:
        if durable not in self._open:
            self._open[durable] = self._engines[durable].connect()
        return self._open[durable]

    @contextmanager
    def _begun_at_once(self, connection: Connection) -> Iterator[None]:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        (patience,) = driver.execute("PRAGMA busy_timeout").fetchone()
        driver.execute("PRAGMA busy_timeout=0")
        try:
            begun = connection.begin()
        except (sqlite3.Error, DBAPIError) as error:
            name = getattr(getattr(error, "orig", error), "sqlite_errorname", None) or ""
            raise (Busy() if name.startswith("SQLITE_BUSY") else error) from None
        finally:
            driver.execute(f"PRAGMA busy_timeout={patience}")
        with begun:
            yield

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """What this thread writes in this block is one transaction."""
        with self.write(durable=False) as connection:
            self._mine.whole = connection
            try:
                yield
            finally:
                self._mine.whole = None

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """In this block and thread there is no time to wait, nor to tidy up: `tidied` does that later."""
        self._mine.hurried = True
        try:
            yield
        finally:
            self._mine.hurried = False

    def untidy(self) -> bool:
        """Whether the log has grown large; quickly said."""
        return self._log.due()

    def tidied(self) -> None:
        """After a write: keep the log from growing without bound."""
        if self._log.due():
            self._log.sync()
            with self.lock:
                self._log.look()

    def close(self) -> None:
        """Close the connections."""
        self._log.close()
        while self._open:
            self._open.popitem()[1].close()
