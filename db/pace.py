"""How fast each key of the gateway sends: one number a key, that all servers share."""

from sqlalchemy import Column, Float, ForeignKey, Text, bindparam, case, select
from sqlmodel import Field, SQLModel

from db.dialect import upsert
from db.engine import Store
from db.tables import table

MINUTE = 60.0
_SLACK = 0.001  # seconds: sums of fractions of a minute are not exact


class KeyPace(SQLModel, table=True):
    """`free_at` (seconds since 1970) is when a key that sends no more would have its whole minute's worth again."""

    __tablename__ = "key_pace"
    key_id: str = Field(sa_column=Column(Text, ForeignKey("gateway_key.id"), primary_key=True))
    free_at: float = Field(sa_type=Float)


PACE = table(KeyPace)
_NOW, _STEP, _LAST = (bindparam(name, type_=Float()) for name in ("now", "step", "last"))
_NEXT = case((PACE.c.free_at > _NOW, PACE.c.free_at), else_=_NOW) + _STEP
_TAKE = (
    upsert(PACE)
    .values(key_id=bindparam("key"), free_at=_NOW + _STEP)
    .on_conflict_do_update(index_elements=["key_id"], set_={"free_at": _NEXT}, where=_NEXT.op("<=")(_LAST))
    .returning(PACE.c.free_at)
)


def take(store: Store, key_id: str, a_minute: int, now: float) -> float:
    """Take one request of so many a minute, all of which may come at once; else the seconds until there is one."""
    step = MINUTE / a_minute
    asked = {"key": key_id, "now": now, "step": step, "last": now + MINUTE + _SLACK}
    with store.write() as connection:
        if connection.execute(_TAKE, asked).first():
            return 0.0
    with store.read() as connection:
        free_at: float = connection.scalar(select(PACE.c.free_at).where(PACE.c.key_id == key_id)) or now
    return max(free_at + step - now - MINUTE, _SLACK)
