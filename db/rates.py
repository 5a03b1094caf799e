"""What live calls to a model may take a minute: learned from its answers, shared by all workers."""

from datetime import datetime

from sqlalchemy import Text
from sqlmodel import Field, SQLModel


class Rate(SQLModel, table=True):
    """Requests and tokens a minute of one model at one address; NULL is no known limit."""

    provider: str = Field(sa_type=Text, primary_key=True)
    base_url: str = Field(sa_type=Text, primary_key=True)
    model: str = Field(sa_type=Text, primary_key=True)
    requests_limit: float | None = None  # as the provider says
    tokens_limit: float | None = None
    requests_pace: float | None = None  # what is allowed now: less after a 429, a little more after each quiet minute
    tokens_pace: float | None = None
    requests_left: float
    tokens_left: float
    refilled_at: datetime
    paused_until: datetime | None = None
    changed_at: datetime
