"""How many input tokens of a model may wait in a provider's batch queue: learned from its refusals."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Column, Text
from sqlmodel import Field, SQLModel


class QueueCap(SQLModel, table=True):
    """The most tokens that a model's queue takes, as a provider said when it refused more."""

    __tablename__ = "queue_cap"
    provider: str = Field(sa_type=Text, primary_key=True)
    base_url: str = Field(sa_type=Text, primary_key=True)
    model: str = Field(sa_type=Text, primary_key=True)
    tokens: int = Field(sa_column=Column(BigInteger, nullable=False))
    learned_at: datetime

    __table_args__ = (CheckConstraint("tokens > 0", name="cap_is_positive"),)
