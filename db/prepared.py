"""Statements that are compiled once: for what runs before a first token, or for each page of many rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import BindParameter, ClauseElement, Connection, Dialect, Select, bindparam, func, literal_column
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler

from db.bulk import Came, as_it_is, converted, execute


class _Bound(NamedTuple):
    """A parameter's name, how the driver needs it, what it is by itself."""

    name: str
    convert: Callable[[Any], Any]
    fixed: Any


class _Order(NamedTuple):
    """How rows of values go to the driver: the statement, what orders a row, and what its values need before."""

    text: str
    ready: Callable[[tuple[Any, ...]], Any]
    changes: Sequence[tuple[int, Callable[[Any], Any]]]


class Prepared:
    """A statement compiled once for each kind of database, for what runs before a first token: a third of the work."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[tuple[str, ...], tuple[str, list[_Bound]]] = {}
        self._ready: dict[tuple[str, tuple[str, ...]], _Order] = {}
        self._made: dict[str, Sequence[Callable[[Any], Any] | None]] = {}

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Came:
        """Execute it for each row of values, by the names of its parameters."""
        text, order = self._for(connection.dialect)
        values: list[Any]
        if connection.dialect.positional:
            values = [tuple(convert(row.get(name, fixed)) for name, convert, fixed in order) for row in rows]
        else:
            values = [{name: convert(row.get(name, fixed)) for name, convert, fixed in order} for row in rows]
        return execute(connection, text, values)

    def all(self, connection: Connection, **values: Any) -> list[tuple[Any, ...]]:
        """The rows that a query brings, each value as its column's type has it."""
        rows = self.run(connection, [values]).fetchall()
        makers = self._makers(connection.dialect)
        return [
            tuple([value if make is None else make(value) for make, value in zip(makers, row, strict=True)])
            for row in rows
        ]

    def many(self, connection: Connection, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> int:
        """Execute it for each row of values of these parameters; how many rows of its table that changed.

        On SQLite a page of them is one parameter of one statement, if the first of `names` tells the rows apart: the
        driver has no work for each, and other threads run until it is done.
        """
        paged = len(rows) >= _LEAST and connection.dialect.name == "sqlite"
        if paged and len({row[0] for row in rows}) == len(rows):
            changed = self._at_once(connection, dict(zip(names, zip(*rows, strict=True), strict=True)))
            if changed is not None:
                return changed
        text, ready, changes = self._in_order(connection.dialect, tuple(names))
        return execute(connection, text, [ready(converted(row, changes)) for row in rows]).rowcount

    def _in_order(self, dialect: Dialect, names: tuple[str, ...]) -> _Order:
        """What makes of a row of values what the driver takes."""
        if (found := self._ready.get((dialect.name, names))) is None:
            text, order = self._for(dialect)
            places = {name: place for place, name in enumerate(names)}
            fixed = tuple(bound.convert(bound.fixed) for bound in order)  # of what the rows do not say
            taken = [places.get(bound.name, len(names) + n) for n, bound in enumerate(order)]
            mine = [(places[name], convert) for name, convert, _ in order if name in places]
            changes = [(place, convert) for place, convert in mine if convert is not as_it_is]
            keys = None if dialect.positional else [bound.name for bound in order]

            def ready(row: tuple[Any, ...]) -> Any:
                whole = row + fixed
                values = [whole[place] for place in taken]
                return values if keys is None else dict(zip(keys, values, strict=True))

            found = self._ready[dialect.name, names] = _Order(text, ready, changes)
        return found

    def _at_once(self, connection: Connection, columns: Mapping[str, tuple[Any, ...]]) -> int | None:
        """All rows in one statement; None where a text holds a NUL, at which SQLite ends a text from JSON."""
        every = {name: convert for name, convert, _ in self._for(connection.dialect)[1] if name in columns}
        varying = tuple(name for name in every if columns[name].count(columns[name][0]) < len(columns[name]))
        page = orjson.dumps([*zip(*(_all(columns[name], every[name]) for name in varying), strict=True)])
        if b"\\u0000" in page:
            return None
        text, order = self._for(connection.dialect, *varying)
        given = {name: column[0] for name, column in columns.items()} | {_PAGE: page.decode()}
        values = tuple(convert(given.get(name, fixed)) for name, convert, fixed in order)
        return execute(connection, text, [values]).rowcount

    def _makers(self, dialect: Dialect) -> Sequence[Callable[[Any], Any] | None]:
        """What makes of each value that the driver brings what its column's type has; PostgreSQL's has done so."""
        if (found := self._made.get(dialect.name)) is None:
            assert isinstance(self._statement, Select)
            types = [column.type.dialect_impl(dialect) for column in self._statement.selected_columns]
            there = dialect.name == "postgresql"
            found = self._made[dialect.name] = [None if there else one.result_processor(dialect, None) for one in types]
        return found

    def _for(self, dialect: Dialect, *varying: str) -> tuple[str, list[_Bound]]:
        """The statement's text and parameters; `varying` ones are columns of a page."""
        if (found := self._compiled.get((dialect.name, *varying))) is None:
            made = (_paged(self._statement, varying) if varying else self._statement).compile(dialect=dialect)
            assert isinstance(made, SQLCompiler)
            kinds = {name: bind for bind, name in made.bind_names.items()}
            order: list[_Bound] = []
            for name in made.positiontup or kinds:
                convert = kinds[name].type.dialect_impl(dialect).bind_processor(dialect) or as_it_is
                order.append(_Bound(name, convert, made.params[name]))
            found = self._compiled[dialect.name, *varying] = str(made), order
        return found


_LEAST = 50  # rows that are worth a statement of their own
_PAGE = "b_page"
_ROWS = func.json_each(bindparam(_PAGE)).table_valued("value", name="page")


def _paged(statement: ClauseElement, varying: Sequence[str]) -> ClauseElement:
    """The statement with what varies taken from the lists in a JSON list instead of from parameters."""
    places = {name: f"$[{place}]" for place, name in enumerate(varying)}

    def cell(element: Any, **_: Any) -> Any:
        if isinstance(element, BindParameter) and element.key in places:
            return func.json_extract(_ROWS.c.value, literal_column(f"'{places[element.key]}'"), type_=element.type)
        return None

    return visitors.replacement_traverse(statement, {}, cell)  # type: ignore[return-value]


def _all(column: Sequence[Any], convert: Callable[[Any], Any]) -> Sequence[Any]:
    return column if convert is as_it_is else [convert(value) for value in column]
