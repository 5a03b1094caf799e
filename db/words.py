"""What SQLite and PostgreSQL say differently in plain SQL, and how each gives times and JSON."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

DAY = {"sqlite": "substr({}, 1, 10)", "postgresql": "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"}
SECONDS = {"sqlite": "(julianday({}) - julianday({})) * 86400", "postgresql": "extract(epoch FROM {} - {})"}
TAG = {"sqlite": "SELECT value FROM json_each(job.tags) WHERE key = :{}", "postgresql": "SELECT job.tags ->> :{}"}
LISTED = {
    "sqlite": "SELECT value FROM json_each(:ids)",
    "postgresql": "SELECT json_array_elements_text(CAST(:ids AS json))",
}


def said(connection: Connection, words: Mapping[str, str]) -> str:
    """Which of the two this database understands."""
    return words[connection.dialect.name]


def given(connection: Connection, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the database compares them: SQLite has times as text in UTC without a zone."""
    if connection.dialect.name == "postgresql":
        return {**values}
    return {name: _stored(value) if isinstance(value, datetime) else value for name, value in values.items()}


def _stored(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0")  # it writes the year 1 as 1


def iso(stored: str | datetime | None) -> str | None:
    """ISO 8601 in UTC with milliseconds and a Z, of a time as it is stored."""
    if isinstance(stored, datetime):
        return stored.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{stored[:10]}T{stored[11:23]}Z" if stored else None


def parsed(stored: Any) -> Any:
    """What a JSON column holds: PostgreSQL's driver has read it already."""
    return json.loads(stored) if isinstance(stored, str) else stored
