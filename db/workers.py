"""The workers that share this database: who is alive, and who takes over for the dead."""

from datetime import datetime

from sqlalchemy import Index, Text, text
from sqlmodel import Field, SQLModel


class Worker(SQLModel, table=True):
    """One run of a worker; its id is the owner in leases."""

    id: str = Field(sa_type=Text, primary_key=True)
    host: str = Field(sa_type=Text)
    pid: int
    started_at: datetime
    beat_at: datetime
    stopped_at: datetime | None = None  # it said goodbye
    taken_by: str | None = Field(default=None, sa_type=Text)  # who took over what it left

    __table_args__ = (Index("worker_alive", "beat_at", sqlite_where=text("stopped_at IS NULL")),)
