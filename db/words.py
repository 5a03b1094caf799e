"""What SQLite and PostgreSQL say differently in plain SQL, and how each gives times and JSON."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

# The values of one parameter, `ids`: a JSON list.
LISTED = {
    "sqlite": "SELECT value FROM json_each(:ids)",
    "postgresql": "SELECT json_array_elements_text(CAST(:ids AS json))",
}
# The same, with a list as it is on PostgreSQL.
WITHIN = {"sqlite": "SELECT value FROM json_each(:ids)", "postgresql": "SELECT unnest(CAST(:ids AS text[]))"}
# Attempts as `db.tallies.Fact` has them; tags as text.
FACTS = """
SELECT a.job_id, a.n, a.state, a.error_code, a.lane, d.class, a.tier, a.model, a.provider, CAST(j.tags AS VARCHAR),
    a.sent_at, j.submitted_at, a.ended_at, a.batch_id, j.finished_at, j.state, a.first_token_ms, a.gap_p50_ms,
    a.total_ms, a.at_risk_nano, a.cost_nano, a.standard_nano, a.input_tokens, a.cached_tokens, a.cache_write_tokens,
    a.output_tokens, a.reasoning_tokens, a.adjusted_nano, a.adjusted_standard_nano
FROM attempt a JOIN job j ON j.id = a.job_id JOIN decision d ON d.id = j.decision_id
"""


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
