"""Small things set or learned once: this installation's mark, which base URLs have a Batch API."""

import secrets
from typing import Any

from sqlalchemy import select, update

from db.dialect import upsert
from db.engine import Store, repeatable
from db.tables import Setting, table

SETTING = table(Setting)


def get(store: Store, key: str) -> str | None:
    """The value of a key, or None."""
    with store.read() as connection:
        return connection.scalar(select(SETTING.c.value).where(SETTING.c.key == key))


@repeatable
def put(store: Store, key: str, value: str) -> None:
    """Set a key."""
    with store.write() as connection:
        setting = upsert(SETTING).values(key=key, value=value)
        connection.execute(setting.on_conflict_do_update(index_elements=["key"], set_={"value": value}))


def swap(store: Store, key: str, old: str | None, new: str) -> bool:
    """Set a key that still has its old value, None for none; whether it had."""
    with store.write() as connection:
        if old is None:
            change: Any = upsert(SETTING).values(key=key, value=new).on_conflict_do_nothing()
        else:
            change = update(SETTING).where(SETTING.c.key == key, SETTING.c.value == old).values(value=new)
        return connection.execute(change).rowcount == 1


@repeatable
def install(store: Store) -> str:
    """The mark of this database on what it makes at a provider; made at first use."""
    with store.write() as connection:
        setting = upsert(SETTING).values(key="install", value=secrets.token_hex(8))
        connection.execute(setting.on_conflict_do_nothing())
        return str(connection.scalar(select(SETTING.c.value).where(SETTING.c.key == "install")))
