"""What the tests of commands share: a command line in this process, and jobs and batches as they come to be."""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import batches, queue, settle
from db.engine import Store
from db.ids import new_id
from db.ledger import Charge
from db.packing import Waiting
from db.settle import Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from router.cli.app import main
from tests import lanes
from tests.lanes import MODEL, add, job

PAID = Charge(AttemptState.OK, 12_345, CostSource.COMPUTED, standard_nano=24_690, input_tokens=3, output_tokens=5,
              total_ms=40.0)  # fmt: skip


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """`shunter …` on the database of the `store` fixture, in this process, as it ends for whoever called it."""

    def __init__(self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str], folder: Path) -> None:
        self._patch, self._captured = patch, captured
        patch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{folder / 'shunter.db'}")
        patch.setenv("COLUMNS", "80")
        patch.chdir(folder)

    def __call__(self, *words: str) -> Done:
        self._captured.readouterr()
        self._patch.setattr(sys, "argv", ["shunter", *words])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        said = self._captured.readouterr()
        return Done(code, said.out, said.err)


def refused(done: Done, code: int, *words: str) -> None:
    """Ended so, with one line on stderr that says these words, and nothing on stdout."""
    assert (done.code, done.out) == (code, ""), done
    assert done.err.startswith("shunter: error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err


def finish(store: Store, *, failed: bool = False, **more: Any) -> str:
    """A job that has ended."""
    now = datetime.now(UTC) - timedelta(minutes=1)
    (ident,) = add(store, job(lane="sync", now=now, **more), now=now)
    (claim,) = queue.claim(store, "me", now + timedelta(hours=1), 1, now, ["openai", "anthropic"])
    ending = Failed("cut", "the line was cut") if failed else Succeeded(Text("yes", "stop"))
    settle.settle(store, [Settlement(ident, claim.n, PAID, ending)], now + timedelta(seconds=2))
    return ident


def packed(store: Store, count: int = 2) -> str:
    """A batch of so many jobs."""
    now = datetime.now(UTC)
    add(store, *(job(now=now) for _ in range(count)), now=now)
    batch_id = new_id(now)
    lanes.pack(store, batch_id, Waiting("openai", MODEL, count), base_url="http://x", max_rows=9, max_bytes=10**6,
                 now=now)  # fmt: skip
    return batch_id


def submitted(store: Store, count: int = 2) -> str:
    """A batch that is at the provider."""
    batch_id, now = packed(store, count), datetime.now(UTC)
    (row,) = batches.take(store, "me", now, now)
    batches.intend_upload(store, row, count, now)
    batches.uploaded(store, batch_id, "file_1")
    batches.created(store, batch_id, provider_batch_id="batch_9", status="in_progress", next_poll_at=now,
                    expires_at=now + timedelta(days=1), now=now)  # fmt: skip
    return batch_id
