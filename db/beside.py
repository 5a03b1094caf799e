"""A place for the tables of a library, beside our own: a file next to ours, or a schema of the same database."""

from typing import Any

from sqlalchemy import Engine, create_engine, event

from db.engine import BUSY_MS, Store, _make_private
from db.wal import Checkpointer


class Beside:
    """On SQLite `shunter.db` gets `shunter.NAME.db`, for its owner only; on PostgreSQL it is a pool of its own."""

    def __init__(self, store: Store, name: str) -> None:
        self._checkpointer: Checkpointer | None = None
        self.engine = self._file(store, name) if store.path else self._pool(store)

    def _file(self, store: Store, name: str) -> Engine:
        assert store.path is not None
        path = store.path.with_name(f"{store.path.stem}.{name}{store.path.suffix}")
        _make_private(path)
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_MS / 1000}, hide_parameters=True)
        event.listen(engine, "connect", _on_connect)
        self._checkpointer = Checkpointer(path)
        return engine

    @staticmethod
    def _pool(store: Store) -> Engine:
        from db.postgres import open_engine

        return open_engine(store._given)

    def tidy(self) -> None:
        """Put the log of the file back into it when it has grown large; call it now and then."""
        if self._checkpointer and self._checkpointer.due():
            self._checkpointer.look()

    def close(self) -> None:
        """Close every connection."""
        if self._checkpointer:
            self._checkpointer.close()
        self.engine.dispose()


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"  # a library's transactions read before they write
    pragmas = "journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON"
    for pragma in (*pragmas, "wal_autocheckpoint=0", "journal_size_limit=0"):  # `db/wal.py` says why
        connection.execute(f"PRAGMA {pragma}")
