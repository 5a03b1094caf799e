"""Keys of the gateway: who may send what, and how fast. Only hashes of them are kept."""

import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import JSON, CheckConstraint, Column, Text, insert, select, update
from sqlmodel import Field, SQLModel

from db.engine import Store
from db.tables import table


class GatewayKey(SQLModel, table=True):
    """A key; one that is revoked opens nothing any more."""

    __tablename__ = "gateway_key"
    id: str = Field(sa_type=Text, primary_key=True)
    name: str = Field(sa_type=Text)
    hash: str = Field(sa_type=Text)
    lanes: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    requests_per_minute: int | None = None
    created_at: datetime
    revoked_at: datetime | None = None

    __table_args__ = (CheckConstraint("requests_per_minute > 0", name="rate_is_positive"),)


KEY = table(GatewayKey)
PREFIX, ID_LETTERS = "shunter", 12


class Key(NamedTuple):
    """What a key may do: in these lanes alone, so many requests a minute; None: any."""

    id: str
    name: str
    lanes: Sequence[str] | None
    requests_per_minute: int | None
    created_at: datetime
    revoked_at: datetime | None = None


_COLUMNS = [KEY.c[name] for name in Key._fields]


def hashed(secret: str) -> str:
    """What is kept of a key. It has 256 bits of chance, so that no slow hash is needed."""
    return sha256(secret.encode()).hexdigest()


def new(name: str, lanes: Sequence[str] | None, per_minute: int | None, now: datetime) -> tuple[Key, str]:
    """A key and its words, which are shown once; `create` keeps it."""
    made = Key(secrets.token_hex(ID_LETTERS // 2), name, list(lanes) if lanes else None, per_minute, now)
    return made, f"{PREFIX}-{made.id}-{secrets.token_urlsafe(32)}"


def create(store: Store, key: Key, secret: str) -> None:
    """Keep a new key."""
    with store.write(durable=True) as connection:
        connection.execute(insert(KEY).values(hash=hashed(secret), **key._asdict()))


def find(store: Store, key_id: str, secret: str) -> Key | None:
    """The key of this id, where the secret is its own and it is in force."""
    with store.read() as connection:
        row = connection.execute(select(KEY.c.hash, *_COLUMNS).where(KEY.c.id == key_id)).first()
    if row is None or not hmac.compare_digest(row[0], hashed(secret)):
        return None
    key = Key(*row[1:])
    return None if key.revoked_at else key


def listed(store: Store) -> list[Key]:
    """Every key that there ever was, the newest last."""
    with store.read() as connection:
        return [Key(*row) for row in connection.execute(select(*_COLUMNS).order_by(KEY.c.created_at, KEY.c.id))]


def revoke(store: Store, key_id: str, now: datetime) -> bool:
    """End a key; whether there was one in force."""
    with store.write(durable=True) as connection:
        live = KEY.c.id == key_id, KEY.c.revoked_at.is_(None)
        return bool(connection.execute(update(KEY).where(*live).values(revoked_at=now)).rowcount)
