"""Where SQLite and PostgreSQL differ: constructs that are compiled for whichever runs them, and who holds which row.

On SQLite a writer is alone. On PostgreSQL writers share the tables (READ COMMITTED), so two rules hold there:
a write that moves jobs holds them first, by id, and then their batches, so that no two wait for each other in a circle;
what it reads to decide is read after that, since a later statement sees what others committed while it waited.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    Select,
    Table,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeEngine

__all__ = ["alone", "guard", "hold", "hold_ids", "octets", "one_of_many", "upsert", "within"]


@compiles(OnConflictDoNothing, "postgresql")
@compiles(OnConflictDoUpdate, "postgresql")
def _on_conflict(clause: Any, compiler: Any, **options: Any) -> str:
    """SQLite's clause is PostgreSQL's without a constraint's name; so one statement serves both."""
    clause.constraint_target = None
    return str(getattr(compiler, f"visit_{clause.__visit_name__}")(clause, **options))


class octets(FunctionElement[int]):
    """The bytes of a text in UTF-8."""

    type = Integer()
    inherit_cache = True


@compiles(octets)
def _octets(element: octets, compiler: SQLCompiler, **options: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **options)} AS BLOB))"


@compiles(octets, "postgresql")
def _octet_length(element: octets, compiler: SQLCompiler, **options: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **options)})"


def within(column: ColumnElement[str], values: Sequence[str], connection: Connection) -> ColumnElement[bool]:
    """The column holds one of many values, however many: they are one parameter."""
    if connection.dialect.name == "sqlite":
        listed = func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(select(listed.c.value))
    return column == any_(bindparam(None, list(values), type_=ARRAY(Text)))


class _Listed(TypeDecorator[Sequence[str]]):
    """Many texts as one parameter: JSON on SQLite, an array on PostgreSQL."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(Text))

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> Any:
        return json.dumps(list(value or ())) if dialect.name == "sqlite" else list(value or ())


class one_of_many(FunctionElement[Any]):
    """`within` for statements that are compiled before anybody knows the values."""

    type = NullType()  # a Boolean is compared to 1 on SQLite, past the column's index
    inherit_cache = True

    def __init__(self, column: ColumnElement[str], name: str) -> None:
        super().__init__(column, bindparam(name, type_=_Listed()))


@compiles(one_of_many)
def _one_of_many(element: one_of_many, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    listed = func.json_each(values).table_valued("value")
    return str(compiler.process(column.in_(select(listed.c.value)), **options))


@compiles(one_of_many, "postgresql")
def _any_of_many(element: one_of_many, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    return str(compiler.process(column == any_(values), **options))


def hold(connection: Connection, rows: Select[Any]) -> None:
    """Hold these rows for this transaction, in the order of the query; whoever holds one now is waited for."""
    if connection.dialect.name == "postgresql":
        held = rows.with_for_update(key_share=True).subquery()
        connection.execute(select(func.count()).select_from(held))


def hold_ids(connection: Connection, table: Table, ids: Sequence[str]) -> None:
    """The same for the rows of a table with these ids."""
    if connection.dialect.name == "postgresql":
        hold(connection, select(table.c.id).where(within(table.c.id, ids, connection)).order_by(table.c.id))


def alone(connection: Connection, what: str) -> None:
    """Wait until nobody else does `what`, and let nobody else begin it before this transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"shunter {what}", 0))))


def guard(connection: Connection, *tables: str) -> None:
    """Wait until nobody has changed these tables and not ended, and let nobody before this transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE")
