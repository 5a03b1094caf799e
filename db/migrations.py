"""Numbered changes of the schema, each applied in one transaction together with its record.

An old one is never edited: a change of a table comes with a new file in `db/schema/` and a new function at the end of
MIGRATIONS.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files

from sqlalchemy import Connection, text

from db.dialect import alone
from db.engine import Store, StoreError


def m001_first(connection: Connection) -> None:
    """The tables of 0.1."""
    _run(connection, "m001")


def m002_streams(connection: Connection) -> None:
    """The log of deltas, how calls end and how they are watched over, and the gaps of a stream."""
    _run(connection, "m002")


def m003_fleet(connection: Connection) -> None:
    """Workers that share a database: who is alive, what limits were learned, what a batch reserves."""
    _run(connection, "m003")


def m004_budgets(connection: Connection) -> None:
    """Budgets, what was spent and is reserved of them, and what an attempt reserves."""
    _run(connection, "m004")


def m005_lengths(connection: Connection) -> None:
    """How long the answers of each template were."""
    _run(connection, "m005")


def m006_rollups(connection: Connection) -> None:
    """What reports read instead of attempts, filled from those there are, and views with plain names."""
    from db.rollups import fill

    _run(connection, "m006")
    fill(connection)


def m007_adjustments(connection: Connection) -> None:
    """Re-pricings and what they change, and all that a price depends on in each attempt."""
    _run(connection, "m007")


def m008_gateway(connection: Connection) -> None:
    """Keys, conversations, and the files and batches of the gateway."""
    _run(connection, "m008")


def m009_gateway_more(connection: Connection) -> None:
    """Wishes to stop jobs that run, the pace of keys, and how batches of the gateway expire."""
    _run(connection, "m009")


def m010_servers(connection: Connection) -> None:
    """Servers beat as workers do."""
    _run(connection, "m010")


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    m001_first, m002_streams, m003_fleet, m004_budgets, m005_lengths, m006_rollups, m007_adjustments,
    m008_gateway, m009_gateway_more, m010_servers,
)  # fmt: skip


def version(connection: Connection) -> int:
    """The number of the last migration that this database has; 0 for an empty one."""
    known = "migration" in _tables(connection)
    return connection.scalar(text("SELECT coalesce(max(number), 0) FROM migration")) or 0 if known else 0


_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
}


def _tables(connection: Connection) -> set[str]:
    return set(connection.scalars(text(_TABLES[connection.dialect.name])))


def migrate(store: Store) -> int:
    """Bring the database up to date; how many migrations were applied. StoreError for one from a newer version."""
    with store.read() as connection:
        found = version(connection)
        if not found and _tables(connection):
            raise StoreError(
                f"database {store.url} holds the tables of another program; name another with SHUNTER_DATABASE_URL"
            )
    if found > len(MIGRATIONS):
        raise StoreError(
            f"database {store.url} is from a newer version (schema {found}; this shunter knows {len(MIGRATIONS)}); "
            "upgrade shunter or name another database with SHUNTER_DATABASE_URL"
        )
    if found == len(MIGRATIONS):
        return 0
    with store.write(durable=True) as connection:
        alone(connection, "migrate")
        found = version(connection)  # another process may have been first
        for number, change in enumerate(MIGRATIONS[found:], start=found + 1):
            change(connection)
            _record(connection, number, change.__name__)
    return len(MIGRATIONS) - found


def _record(connection: Connection, number: int, name: str) -> None:
    connection.execute(
        text("INSERT INTO migration (number, name, applied_at) VALUES (:number, :name, :at)"),
        {"number": number, "name": name, "at": datetime.now(UTC).isoformat(timespec="seconds")},
    )


def _run(connection: Connection, name: str) -> None:
    script = files("db.schema").joinpath(f"{name}.sql").read_text(encoding="utf-8")
    if connection.dialect.name == "postgresql":
        for word, theirs in _IN_POSTGRESQL.items():
            script = re.sub(rf"\b{word}\b", theirs, script)
    for statement in script.split(";\n"):
        connection.exec_driver_sql(statement)


# The files are written in SQLite's words. Text compares by its bytes on both, so that ids sort by their time.
_IN_POSTGRESQL = {
    "DATETIME": "TIMESTAMP WITH TIME ZONE",
    "BLOB": "BYTEA",
    "FLOAT": "DOUBLE PRECISION",
    "TEXT": 'TEXT COLLATE "C"',
}
