"""Open the database: a SQLite file of its owner's, or PostgreSQL when one machine is not enough.

On SQLite (WAL) writers take their turn under BEGIN IMMEDIATE. On PostgreSQL they work side by side under READ
COMMITTED: `db/dialect.py` says what holds there.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Dialect, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from db.turns import Busy, Turns

BUSY_MS = 30_000  # a writer waits this long for another before it gives up
AWAY_S = 30.0  # a server that restarts is waited for
POSTGRES = ("postgresql+psycopg", "postgresql", "postgres")  # the ways its URL is written

_LOOK_AGAIN_S = 0.2
_TRIES = 3


class StoreError(Exception):
    """The database cannot be used as asked; the message says which, why and what to do."""


class StoreAway(StoreError):
    """The database is away for now, or others were in the way: nothing was kept of this, it can be tried again."""


class StoreBusy(StoreError):
    """Somebody else writes now, and whoever asked has no time to wait: nothing was begun."""


class Store:
    """One database. `read()` and `write()` are short transactions; none is held over a call to a provider."""

    def __init__(self, url: URL, engine: Engine, path: Path | None) -> None:
        self.url = url.render_as_string(hide_password=True) if path is None else f"sqlite:///{path}"
        self.path = path  # None on PostgreSQL
        self._given = url
        self._engine = engine
        self._seen = False  # it has answered, so a server that is away now is one that restarts
        self._reader, self._writer, self._durable = (_sqlite if path else _postgres)(engine)
        self._turns = Turns(path, self._writer, self._durable) if path else None
        self.turn: AbstractContextManager[Any] = self._turns.lock if self._turns else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; never waits for a writer."""
        with self._told(), self._begun(self._reader) as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Connection]:
        """The one writer of a SQLite file, one of many on PostgreSQL; `durable` syncs the disk before it returns."""
        if self._turns:
            with self._told(), self._turns.write(durable=durable) as connection:
                yield connection
        else:
            with self.turn, self._told(), self._begun(self._durable if durable else self._writer) as connection:
                yield connection

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """On SQLite, what this thread writes in this block is one transaction: one wait for other processes, not two.

        An error must leave the block, since it takes back all of it. A server's stay apart: each holds rows in an order
        of its own, and two processes would wait for each other.
        """
        with self._told(), self._turns.as_one() if self._turns else nullcontext():
            yield

    @contextmanager
    def hurried(self) -> Iterator[bool]:
        """For an event loop: in this block and thread, a write that would have to wait raises StoreBusy instead.

        False where any write may have to wait, as for a server. What was written so is tidied up by `tidied`.
        """
        with self._turns.hurried() if self._turns else nullcontext():
            yield self._turns is not None

    @contextmanager
    def _begun(self, engine: Engine) -> Iterator[Connection]:
        with self._connected(engine) as connection, connection.begin():
            yield connection

    def _connected(self, engine: Engine) -> Connection:
        """A connection; a server that was there and is away is waited for, since nothing has begun yet."""
        end = monotonic() + AWAY_S
        while True:
            try:
                connection = engine.connect()
            except DBAPIError as error:
                if not self._seen or monotonic() > end or not passing(error):
                    raise
                sleep(_LOOK_AGAIN_S)
            else:
                self._seen = True
                return connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What a driver says, in words of ours: what, where, what to do."""
        try:
            yield
        except Busy:
            raise StoreBusy(f"database {self.url} is written by somebody else now") from None
        except Exception as error:  # COPY and SQLite's BEGIN go to the drivers themselves
            text = _said_by_sqlite(error) if self.path else _said_by_postgres(error, self._given)
            if text is None:
                raise
            kind = StoreAway if passing(error) else StoreError
            raise kind(f"database {self.url} {text}") from error

    def untidy(self) -> bool:
        """Whether `tidied` has anything to do; quickly said."""
        return self._turns is not None and self._turns.untidy()

    def tidied(self) -> None:
        """After writes that were hurried, or went past `write`, out of their turn: keep SQLite's log from growing."""
        if self._turns:
            self._turns.tidied()

    def raw(self) -> PoolProxiedConnection:
        """The driver's own connection, for what cannot pay for more; whoever takes it closes it."""
        return self._engine.raw_connection()

    @property
    def dialect(self) -> Dialect:
        """What statements are compiled for."""
        return self._engine.dialect

    def close(self) -> None:
        """Close every connection."""
        if self._turns:
            self._turns.close()
        self._engine.dispose()


P = ParamSpec("P")
R = TypeVar("R")


def repeatable(function: Callable[Concatenate[Store, P], R]) -> Callable[Concatenate[Store, P], R]:
    """Run it again after the database was away: a second run changes nothing that a first one did already."""

    @wraps(function)
    def tried(store: Store, /, *args: P.args, **named: P.kwargs) -> R:
        for _ in range(_TRIES - 1):
            try:
                return function(store, *args, **named)
            except StoreAway:
                sleep(_LOOK_AGAIN_S)
        return function(store, *args, **named)

    return tried


def _sqlite(engine: Engine) -> tuple[Engine, Engine, Engine]:
    """A reader, a writer, and a writer of what stops a second bill: that must survive a power cut, too."""
    levels = [engine.execution_options(sqlite_begin="IMMEDIATE", sqlite_sync=sync) for sync in ("NORMAL", "FULL")]
    return engine, levels[0], levels[1]


def _postgres(engine: Engine) -> tuple[Engine, Engine, Engine]:
    """The same; every commit of a PostgreSQL server is durable unless its owner set it otherwise."""
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return reader, engine, engine


def _said_by_sqlite(error: BaseException) -> str | None:
    name = getattr(getattr(error, "orig", error), "sqlite_errorname", "") or ""
    known = {
        "SQLITE_NOTADB": "is not a SQLite database; name another file with SHUNTER_DATABASE_URL",
        "SQLITE_READONLY": "cannot be written; check the rights of the file and its folder",
        "SQLITE_CANTOPEN": "cannot be opened; check the rights of the file and its folder",
        "SQLITE_FULL": "has no room to grow; the disk is full",
        "SQLITE_BUSY": f"was locked by another process for {BUSY_MS // 1000} s; try again",
        "SQLITE_CORRUPT": "is damaged; restore a backup (`shunter db backup` makes them)",
    }
    return next((text for prefix, text in known.items() if name.startswith(prefix)), None)


def _said_by_postgres(error: BaseException, url: URL) -> str | None:
    from db.postgres import said

    return said(error, url)


def passing(error: BaseException) -> bool:
    """Whether trying again can help: a server that restarts, a connection that was lost, others in the way."""
    if isinstance(getattr(error, "orig", error), sqlite3.Error):
        return False
    from db import postgres

    return postgres.passing(error)


def address(url: str) -> URL:
    """The URL in its parts; StoreError when it is none, without repeating it: it may hold a password."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        hint = "write sqlite:////folder/shunter.db or postgresql+psycopg://USER@HOST/DATABASE"
        raise StoreError(f"the database URL is not understood; {hint}") from None


def connect(url: str) -> Store:
    """The database at `url`; StoreError when it cannot be.

    `sqlite:///PATH` is a file, made for its owner only; `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE` a server's,
    which is asked at the first use.
    """
    parsed = address(url)
    if parsed.drivername in POSTGRES:
        return _connect_postgres(parsed)
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(
            f"database {parsed.drivername!r} is not supported; "
            "write sqlite:////folder/shunter.db or postgresql+psycopg://USER@HOST/DATABASE"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError("a database in memory would be gone with the process; write sqlite:////folder/shunter.db")
    path = Path(parsed.database).expanduser().absolute()
    _make_private(path)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_MS / 1000}, hide_parameters=True)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return Store(parsed, engine, path)


def _connect_postgres(url: URL) -> Store:
    try:
        from db.postgres import open_engine
    except ImportError as error:
        raise StoreError(f"PostgreSQL needs psycopg, which cannot be loaded ({error}); install shunter anew") from None
    return Store(url, open_engine(url), None)


def _make_private(path: Path) -> None:
    """Make the file 0600 before SQLite would make it 0644; its -wal and -shm inherit that.

    One that is there is not opened: closing it would drop the locks that this process has on it by other connections.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StoreError(
            f"database {path} cannot be opened for writing ({error.strerror}); "
            "make its folder writable or name another with SHUNTER_DATABASE_URL"
        ) from error


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: BEGIN is ours
    pragmas = "journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON"
    # `db/wal.py` checkpoints; a log that was started anew is cut to what is in it, so that its size tells. The system
    # caches the file as well: less than the usual 2 MB of each connection were no slower for bulk work.
    for pragma in (*pragmas, "wal_autocheckpoint=0", "journal_size_limit=0", "cache_size=-384"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    options, driver = connection.get_execution_options(), connection.connection
    sync = options.get("sqlite_sync")
    if sync and driver.info.get("sync") != sync:
        driver.execute(f"PRAGMA synchronous={sync}")
        driver.info["sync"] = sync
    driver.execute(f"BEGIN {options.get('sqlite_begin', '')}")
