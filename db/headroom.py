"""How many input tokens of a model may wait in a provider's batch queue: learned from its refusals."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, CheckConstraint, Column, Text, and_, func, insert, select, update
from sqlmodel import Field, SQLModel

from db.engine import Store
from db.queue import BATCH
from db.states import BatchState
from db.tables import table

SAID = timedelta(days=7)  # what a provider said holds: it raises its limits as an account grows
BELIEVED = timedelta(hours=1)  # what was only concluded holds
_KEPT_FREE = 0.1  # of the limit: our count of tokens is an estimate


class QueueCap(SQLModel, table=True):
    """The most tokens that a model's queue takes, as a provider said when it refused more."""

    __tablename__ = "queue_cap"
    provider: str = Field(sa_type=Text, primary_key=True)
    base_url: str = Field(sa_type=Text, primary_key=True)
    model: str = Field(sa_type=Text, primary_key=True)
    tokens: int = Field(sa_column=Column(BigInteger, nullable=False))
    holds_until: datetime

    __table_args__ = (CheckConstraint("tokens > 0", name="cap_is_positive"),)


QUEUE_CAP = table(QueueCap)


@dataclass(frozen=True, slots=True)
class Headroom:
    """Input tokens that a model's queue takes now, and that it takes when it is empty."""

    now: int
    empty: int


def learn(
    store: Store, provider: str, base_url: str, model: str, tokens: int, at: datetime, good_for: timedelta = SAID
) -> None:
    """This model's queue takes so many tokens: the provider said so, or it is what a refusal lets us believe."""
    known = {"provider": provider, "base_url": base_url, "model": model}
    said = {"tokens": max(tokens, 1), "holds_until": at + good_for}
    with store.write() as connection:
        same = and_(*(QUEUE_CAP.c[name] == value for name, value in known.items()))
        if not connection.execute(update(QUEUE_CAP).where(same).values(said)).rowcount:
            connection.execute(insert(QUEUE_CAP).values(known | said))


def left(store: Store, provider: str, base_url: str, model: str, at: datetime) -> Headroom | None:
    """What the queue still takes beside our open batches, whose tokens are reserved; None where no limit is known."""
    cap = and_(QUEUE_CAP.c.provider == provider, QUEUE_CAP.c.base_url == base_url, QUEUE_CAP.c.model == model)
    ours = and_(BATCH.c.provider == provider, BATCH.c.base_url == base_url, BATCH.c.model == model)
    over = (BatchState.ENDED.value, BatchState.IMPORTED.value)
    with store.read() as connection:
        limit = connection.scalar(select(QUEUE_CAP.c.tokens).where(cap, QUEUE_CAP.c.holds_until > at))
        if limit is None:
            return None
        held = select(func.coalesce(func.sum(BATCH.c.input_tokens), 0)).where(ours, BATCH.c.state.not_in(over))
        reserved = int(connection.scalar(held) or 0)
    empty = int(limit * (1 - _KEPT_FREE))
    return Headroom(max(empty - reserved, 0), empty)
