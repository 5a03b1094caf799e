"""The same migrations on PostgreSQL: what the models say, in its own words, and once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlmodel import SQLModel

import db.adjustments
import db.budgets
import db.conversations
import db.files
import db.gateway_batches
import db.headroom
import db.keys
import db.lengths
import db.rates
import db.rollups
import db.tables
import db.workers  # noqa: F401 - they fill the metadata
from db.engine import Store, StoreError, connect
from db.migrations import MIGRATIONS, migrate
from tests.lanes import rows
from tests.postgres import Postgres

_LOOKS = {
    "columns": """SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
        WHERE table_schema = current_schema() AND table_name <> 'migration'
        AND table_name NOT IN (SELECT viewname FROM pg_views WHERE schemaname = current_schema())""",
    "constraints": """SELECT conrelid::regclass::text, contype, pg_get_constraintdef(oid),
        CASE contype WHEN 'c' THEN conname END FROM pg_constraint
        WHERE connamespace = current_schema()::regnamespace AND conrelid::regclass::text <> 'migration'""",
    "indexes": """SELECT indexname, indexdef FROM pg_indexes
        WHERE schemaname = current_schema() AND tablename <> 'migration'""",
}


def shape(store: Store) -> dict[str, set[Any]]:
    """Every table as PostgreSQL itself sees it."""
    return {name: {tuple(row) for row in rows(store, query)} for name, query in _LOOKS.items()}


def test_the_schema_is_what_the_models_say(server: Postgres) -> None:
    made, wanted = connect(server.create()), connect(server.create("template1"))
    for index in (index for table in SQLModel.metadata.tables.values() for index in table.indexes):
        index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]  # the models name one
    with wanted.write() as connection:
        SQLModel.metadata.create_all(connection)
    found, should = shape(made), shape(wanted)
    assert {name for name, *_ in found["indexes"]} == {name for name, *_ in should["indexes"]}
    for name in _LOOKS:
        assert found[name] == should[name], name
    made.close()
    wanted.close()


def test_texts_compare_by_their_bytes(server: Postgres) -> None:
    store = connect(server.create())
    query = """SELECT count(*), count(*) FILTER (WHERE collation_name = 'C') FROM information_schema.columns
        WHERE table_schema = current_schema() AND data_type = 'text'
        AND table_name NOT IN (SELECT viewname FROM pg_views WHERE schemaname = current_schema())"""
    every, ours = rows(store, query)[0]
    assert every == ours > 30
    store.close()


def test_several_at_once_apply_them_once(server: Postgres) -> None:
    url = server.create("template1")
    stores = [connect(url) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(migrate, stores)) == len(MIGRATIONS)
    for store in stores:
        store.close()


def test_a_change_that_breaks_off_leaves_no_half(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(connection: Any) -> None:
        connection.exec_driver_sql("CREATE TABLE half (x INTEGER)")
        raise KeyError("broken")

    store = connect(server.create())
    monkeypatch.setattr("db.migrations.MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(KeyError):
        migrate(store)
    assert not rows(store, "SELECT 1 FROM pg_tables WHERE tablename = 'half'")
    assert len(rows(store, "SELECT 1 FROM migration")) == len(MIGRATIONS)
    store.close()


def test_somebody_elses_database_is_not_taken_for_ours(server: Postgres) -> None:
    url = server.create("template1")
    store = connect(url)
    with store.write() as connection:
        connection.exec_driver_sql("CREATE TABLE job (id TEXT, other TEXT)")
    with pytest.raises(StoreError, match="another program"):
        migrate(store)
    assert [row[0] for row in rows(store, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")] == ["job"]
    store.close()
