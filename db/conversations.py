"""Conversations of the page: what people said, and which job answered."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Text, delete, func, insert, select, update
from sqlmodel import Field, SQLModel

from db.engine import Store
from db.log import RESULT
from db.tables import table

PAGE = 50


class ConversationRow(SQLModel, table=True):
    """A conversation; `owner` is the key that it was begun with, none for the installation's own token."""

    __tablename__ = "conversation"
    id: str = Field(sa_type=Text, primary_key=True)
    owner: str | None = Field(default=None, sa_type=Text)
    title: str = Field(sa_type=Text)
    system: str | None = Field(default=None, sa_type=Text)
    turns: int
    created_at: datetime
    updated_at: datetime

    __table_args__ = (
        CheckConstraint("turns >= 0", name="turns_not_negative"),
        Index("conversation_updated", "updated_at", "id"),
    )


class ConversationTurn(SQLModel, table=True):
    """One question; its job may be pruned one day, and then the answer is gone."""

    __tablename__ = "conversation_turn"
    conversation_id: str = Field(sa_column=Column(Text, ForeignKey("conversation.id"), primary_key=True))
    n: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    said: str = Field(sa_type=Text)
    job_id: str = Field(sa_type=Text)
    asked_at: datetime


CONVERSATION = table(ConversationRow)
TURN = table(ConversationTurn)


class Conversation(NamedTuple):
    """A conversation without its words."""

    id: str
    owner: str | None
    title: str
    system: str | None
    turns: int
    created_at: datetime
    updated_at: datetime


class Turn(NamedTuple):
    """A question, and what there is of the answer: None where nothing is kept."""

    n: int
    said: str
    job_id: str
    text: str | None


_COLUMNS = [CONVERSATION.c[name] for name in Conversation._fields]
_TURNS = (
    select(TURN.c.n, TURN.c.said, TURN.c.job_id, RESULT.c.text)
    .join(RESULT, RESULT.c.job_id == TURN.c.job_id, isouter=True)
    .order_by(TURN.c.n)
)


def begin(store: Store, conversation: Conversation) -> None:
    """Keep a new conversation."""
    with store.write() as connection:
        connection.execute(insert(CONVERSATION).values(conversation._asdict()))


def say(store: Store, conversation_id: str, n: int | None, said: str, job_id: str, now: datetime) -> None:
    """Keep turn `n`, counted from 1, asked anew; None: a new one, behind those that others have asked meanwhile."""
    with store.write() as connection:
        theirs = CONVERSATION.c.id == conversation_id
        connection.execute(update(CONVERSATION).where(theirs).values(updated_at=now))  # now one at a time
        known = select(func.max(TURN.c.n)).where(TURN.c.conversation_id == conversation_id)
        last = connection.scalar(known) or 0
        n = last + 1 if n is None else n
        connection.execute(delete(TURN).where(TURN.c.conversation_id == conversation_id, TURN.c.n == n))
        turn = {"conversation_id": conversation_id, "n": n, "said": said, "job_id": job_id, "asked_at": now}
        connection.execute(insert(TURN).values(turn))
        connection.execute(update(CONVERSATION).where(theirs).values(turns=max(last, n)))


def find(store: Store, conversation_id: str) -> tuple[Conversation, Sequence[Turn]] | None:
    """A conversation and its turns in order."""
    with store.read() as connection:
        row = connection.execute(select(*_COLUMNS).where(CONVERSATION.c.id == conversation_id)).first()
        if row is None:
            return None
        turns = connection.execute(_TURNS.where(TURN.c.conversation_id == conversation_id))
        return Conversation(*row), [Turn(*turn) for turn in turns]


def of_job(store: Store, job_id: str) -> str | None:
    """The conversation that a job belongs to."""
    with store.read() as connection:
        return connection.scalar(select(TURN.c.conversation_id).where(TURN.c.job_id == job_id).limit(1))


def page(store: Store, *, owner: str | None, after: str | None = None, limit: int = PAGE) -> list[Conversation]:
    """A page of an owner's conversations, the latest first; `after` is the last one's id."""
    query = select(*_COLUMNS).where(CONVERSATION.c.owner == owner)
    with store.read() as connection:
        if after is not None:
            when = connection.scalar(select(CONVERSATION.c.updated_at).where(CONVERSATION.c.id == after))
            if when is None:
                return []
            earlier = CONVERSATION.c.updated_at < when, CONVERSATION.c.updated_at == when
            query = query.where(earlier[0] | (earlier[1] & (CONVERSATION.c.id < after)))
        query = query.order_by(CONVERSATION.c.updated_at.desc(), CONVERSATION.c.id.desc()).limit(limit)
        return [Conversation(*row) for row in connection.execute(query)]


def remove(store: Store, conversation_id: str) -> None:
    """Forget a conversation; its jobs stay in the ledger."""
    with store.write() as connection:
        connection.execute(delete(TURN).where(TURN.c.conversation_id == conversation_id))
        connection.execute(delete(CONVERSATION).where(CONVERSATION.c.id == conversation_id))
