"""A database of every earlier version comes up to date with what is in it, and goes on from there."""

from datetime import timedelta
from pathlib import Path

import pytest

from db import queue, settle
from db.engine import connect
from db.migrations import MIGRATIONS, migrate
from tests.lanes import MODEL, NOW, rows
from tests.purses import budget, even, paid, purse, sums

AT = "2026-11-22 12:00:00.000000"
_OLD = """
INSERT INTO submission (id, source, submitted_at, accepted, duplicates, rejected) VALUES ('s', 'x', '{at}', 2, 0, 0);
INSERT INTO decision (id, class, lane, tier, rule, reason, input_tokens, output_p50, output_p90, finish_by, plan,
    options, policy, decided_at)
VALUES ('d', 'bulk', 'sync', 'default', 'r', 'w', 1, 1, 1, '{at}', '[]', '[]', 'p', '{at}');
INSERT INTO job (id, row_key, submission_id, decision_id, state, step, lane, tier, provider, model, interactive,
    priority, attempts, submitted_at, run_after, lease_by, lease_until)
VALUES ('one', 'k1', 's', 'd', 'running', 0, 'sync', 'default', 'openai', '{model}', {no}, 0, 1, '{at}', '{at}', 'me',
    '{at}'), ('two', 'k2', 's', 'd', 'queued', 0, 'sync', 'default', 'openai', '{model}', {no}, 0, 0, '{at}', '{at}',
    NULL, NULL);
INSERT INTO body (job_id, body) VALUES ('one', '{{}}'), ('two', '{{}}');
INSERT INTO attempt (job_id, n, state, lane, tier, provider, model, sent_at, cost_source)
VALUES ('one', 1, 'sent', 'sync', 'default', 'openai', '{model}', '{at}', 'unknown')
"""


@pytest.mark.parametrize("steps", range(1, len(MIGRATIONS)))
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_goes_on_from_any_version(
    kind: str, steps: int, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite = kind == "sqlite"
    store = connect(
        f"sqlite:///{tmp_path / 'old.db'}" if sqlite else request.getfixturevalue("server").create("template1")
    )
    with monkeypatch.context() as earlier:
        earlier.setattr("db.migrations.MIGRATIONS", MIGRATIONS[:steps])
        assert migrate(store) == steps
    values = {"at": AT if sqlite else f"{AT}+00", "model": MODEL, "no": 0 if sqlite else "false"}
    with store.write() as connection:
        for statement in _OLD.format(**values).split(";"):
            connection.exec_driver_sql(statement)
    assert migrate(store) == len(MIGRATIONS) - steps

    budget(store, 1000)
    old = queue.Claim("one", 1, *[""] * 4, False, "", None, None, 0, 0, "me")
    (new,) = queue.claim(store, "me", NOW + timedelta(hours=1), 9, NOW, ["openai"], None, purse())
    assert new.job_id == "two"
    assert sums(store) == (0, 100)
    settle.settle(store, [paid(old, 30), paid(new, 40)], NOW)
    assert sums(store) == (40, 0), "what was sent before it was set is not on it"
    assert rows(store, "SELECT count(*) FROM job WHERE state = 'succeeded'")[0][0] == 2
    even(store)
    store.close()
