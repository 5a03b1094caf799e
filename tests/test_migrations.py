"""The migrations make what the models say, once, and refuse what they do not know."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex
from sqlmodel import SQLModel

import db.adjustments
import db.budgets
import db.conversations
import db.files
import db.gateway_batches
import db.headroom
import db.keys
import db.lengths
import db.pace
import db.rates
import db.rollups
import db.tables
import db.workers  # noqa: F401 - they fill the metadata
from db.engine import Store, StoreError, connect
from db.migrations import MIGRATIONS, migrate
from tests.lanes import rows

OURS = {"migration"}
pytestmark = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")


def words(sql: str) -> str:
    return " ".join(sql.replace('"', "").split()).lower()


def shape(path: Path) -> dict[str, Any]:
    """Every table as SQLite itself sees it."""
    engine = create_engine(f"sqlite:///{path}")
    look = inspect(engine)
    found = {
        name: {
            "columns": {
                (c["name"], str(c["type"]).split("(")[0].upper(), c["nullable"]) for c in look.get_columns(name)
            },
            "key": look.get_pk_constraint(name)["constrained_columns"],
            "checks": {(c["name"], words(c["sqltext"])) for c in look.get_check_constraints(name)},
            "unique": {tuple(c["column_names"]) for c in look.get_unique_constraints(name)},
            "foreign": {
                (*c["constrained_columns"], c["referred_table"], *c["referred_columns"])
                for c in look.get_foreign_keys(name)
            },
        }
        for name in look.get_table_names()
    }
    engine.dispose()
    return found


def test_the_schema_is_what_the_models_say(store: Store, tmp_path: Path) -> None:
    assert store.path is not None
    fresh = tmp_path / "metadata.db"
    engine = create_engine(f"sqlite:///{fresh}")
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    made, wanted = shape(store.path), shape(fresh)
    assert set(made) - OURS == set(wanted)
    for name, table in wanted.items():
        assert made[name] == table, name


def test_the_indexes_are_what_the_models_say(store: Store) -> None:
    query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    made = {words(row[0]) for row in rows(store, query)}
    dialect = sqlite.dialect()  # type: ignore[no-untyped-call]
    tables = SQLModel.metadata.tables.values()
    assert made == {
        words(str(CreateIndex(index).compile(dialect=dialect))) for table in tables for index in table.indexes
    }


def test_a_second_time_does_nothing(store: Store) -> None:
    assert store.path is not None
    applied = rows(store, "SELECT number, name, applied_at FROM migration")
    before = shape(store.path)
    assert migrate(store) == 0
    assert rows(store, "SELECT number, name, applied_at FROM migration") == applied
    assert [row[1] for row in applied] == [change.__name__ for change in MIGRATIONS]
    assert shape(store.path) == before


def test_several_at_once_apply_them_once(tmp_path: Path) -> None:
    stores = [connect(f"sqlite:///{tmp_path / 'shunter.db'}") for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(migrate, stores)) == len(MIGRATIONS)
    for store in stores:
        store.close()


def test_a_newer_database_is_refused_and_left_alone(store: Store) -> None:
    with store.write() as connection:
        connection.execute(text("INSERT INTO migration VALUES (999, 'm999_future', '2030-01-01')"))
    with pytest.raises(StoreError) as caught:
        migrate(store)
    said = str(caught.value)
    assert f"is from a newer version (schema 999; this shunter knows {len(MIGRATIONS)})" in said
    assert "upgrade shunter" in said
    assert "\n" not in said


def test_a_change_that_breaks_off_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def m002_broken(connection: Any) -> None:
        connection.exec_driver_sql("CREATE TABLE half (x)")
        raise KeyError("broken")

    store = connect(f"sqlite:///{tmp_path / 'shunter.db'}")
    migrate(store)
    monkeypatch.setattr("db.migrations.MIGRATIONS", (*MIGRATIONS, m002_broken))
    with pytest.raises(KeyError):
        migrate(store)
    assert not rows(store, "SELECT 1 FROM sqlite_master WHERE name = 'half'")
    assert len(rows(store, "SELECT 1 FROM migration")) == len(MIGRATIONS)
    store.close()


def test_somebody_elses_database_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE job (id, other)")
    connection.close()
    store = connect(f"sqlite:///{path}")
    with pytest.raises(StoreError, match="another program"):
        migrate(store)
    assert [row[0] for row in rows(store, "SELECT name FROM sqlite_master")] == ["job"]
    store.close()
