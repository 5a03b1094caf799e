"""How long the answers of each template and model were: sums, from which the next ones are estimated."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Text, bindparam, delete, select
from sqlmodel import Field, SQLModel

from db.dialect import upsert
from db.engine import Store
from db.prepared import Prepared
from db.tables import table

FEW = 3  # answers; templates with less are forgotten after
SOON = timedelta(days=30)
MOST = 20_000  # templates that are read at once, the newest

Key = tuple[str, str]  # model, template


class Length(SQLModel, table=True):
    """Answers of one template by one model: their number, and the sums of the logarithms of their tokens."""

    model: str = Field(sa_type=Text, primary_key=True)
    template: str = Field(sa_type=Text, primary_key=True)
    answers: int = Field(sa_column=Column(BigInteger, nullable=False))
    logs: float
    squares: float
    seen_at: datetime


LENGTH = table(Length)


class Sums(NamedTuple):
    """How many answers, and the sums of the logarithms of their tokens and of the squares of these."""

    answers: int
    logs: float
    squares: float


_COLUMNS = ("model", "template", "answers", "logs", "squares", "seen_at")
_NEW = upsert(LENGTH).values({name: bindparam(f"b_{name}", type_=LENGTH.c[name].type) for name in _COLUMNS})
_MORE = {name: LENGTH.c[name] + _NEW.excluded[name] for name in ("answers", "logs", "squares")}
_ADD = Prepared(
    _NEW.on_conflict_do_update(index_elements=["model", "template"], set_=_MORE | {"seen_at": _NEW.excluded.seen_at})
)


def add(store: Store, seen: Mapping[Key, Sums], now: datetime) -> None:
    """Add answers to the sums."""
    ordered = sorted(seen.items())  # writers take the rows in one order, never in a circle
    with store.write() as connection:
        _ADD.many(connection, [f"b_{name}" for name in _COLUMNS], [(*key, *sums, now) for key, sums in ordered])


def known(store: Store, model: str, template: str) -> Sums | None:
    """What is known of this template."""
    with store.read() as connection:
        found = _ONE.run(connection, [{"b_model": model, "b_template": template}]).fetchone()
        return Sums(*found[2:]) if found else None


def all_known(store: Store) -> dict[Key, Sums]:
    """What is known of the newest templates that have a few answers."""
    with store.read() as connection:
        rows = connection.execute(_SUMS.where(LENGTH.c.answers >= FEW).order_by(LENGTH.c.seen_at.desc()).limit(MOST))
        return {(model, template): Sums(*sums) for model, template, *sums in rows}


def models(store: Store) -> list[str]:
    """The models that have answered here."""
    with store.read() as connection:
        return sorted(connection.scalars(select(LENGTH.c.model).distinct()))


def prune(store: Store, now: datetime) -> None:
    """Forget templates that came once or twice, and not lately: most prompts of people."""
    with store.write() as connection:
        connection.execute(delete(LENGTH).where(LENGTH.c.answers < FEW, LENGTH.c.seen_at < now - SOON))


_SUMS = select(LENGTH.c.model, LENGTH.c.template, LENGTH.c.answers, LENGTH.c.logs, LENGTH.c.squares)
_ONE = Prepared(_SUMS.where(LENGTH.c.model == bindparam("b_model"), LENGTH.c.template == bindparam("b_template")))
