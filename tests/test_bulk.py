"""A file through the router: nothing lost, nothing twice, equal decisions in one row."""

import asyncio
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from jobs.sandbox.server import Sandbox
from router import Router, bulk
from router.bulk import Summary
from router.decided import Wish
from router.intake import Defaults, Reject, Rejects, read
from tests.lanes import KEY, balanced, rows, states

SHARED = Path(__file__).parents[2] / "shared" / "data" / "prompts.jsonl"


@pytest.fixture
def router(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / 'shunter.db'}")
    made = Router()
    yield made
    asyncio.run(made.close())


def lines(*given: Any) -> bytes:
    return b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in given)


def rows_of(count: int) -> list[Any]:
    return [{"prompt": f"Name city number {n}.", "custom_id": f"c{n}"} for n in range(count)]


def submit(router: Router, data: bytes, wish: Wish | None = None, folder: Path | None = None) -> Summary:
    reader = read(BytesIO(data), None, Defaults(model="gpt-6-luna"), name="in.jsonl")
    rejects = Rejects(folder / "in.jsonl" if folder else None)
    done = bulk.submit(router, reader, wish or Wish(), rejects, "in.jsonl", lambda summary: None)
    assert done.accepted + done.duplicates + done.rejected == done.rows
    balanced(router.store)
    return done


def test_every_row_becomes_a_job_and_equal_decisions_one_row(router: Router) -> None:
    done = submit(router, lines(*rows_of(2500)))
    assert (done.accepted, done.duplicates, done.rejected) == (2500, 0, 0)
    assert done.lanes == {"batch": 2500}
    assert states(router.store) == {"queued": 2500}
    assert rows(router.store, "SELECT count(*) FROM decision")[0][0] == 1
    keys = rows(router.store, "SELECT client_key FROM job ORDER BY id")
    assert [row[0] for row in keys] == [f"c{n}" for n in range(2500)]


def test_the_same_file_again_adds_nothing(router: Router) -> None:
    data = lines(*rows_of(1100))
    submit(router, data)
    done = submit(router, data)
    assert (done.accepted, done.duplicates) == (0, 1100)
    assert done.skipped == ["c0", "c1", "c2", "c3", "c4"]
    assert states(router.store) == {"queued": 1100}


def test_again_runs_all_of_it_again(router: Router) -> None:
    data = lines(*rows_of(10))
    submit(router, data)
    assert submit(router, data, Wish(again=True)).accepted == 10
    assert submit(router, data, Wish(again=True)).accepted == 10
    assert states(router.store) == {"queued": 30}


def test_the_same_custom_id_with_other_words_is_a_new_job(router: Router) -> None:
    before = rows_of(3)
    submit(router, lines(*before))
    before[1]["prompt"] = "Something else."
    done = submit(router, lines(*before))
    assert (done.accepted, done.duplicates) == (1, 2)


def test_a_submit_that_broke_off_goes_on_where_it_was(router: Router) -> None:
    data = lines(*rows_of(2300))
    reader = read(BytesIO(data), None, Defaults(model="gpt-6-luna"), name="in.jsonl")

    def killed(summary: Summary) -> None:
        if summary.rows >= 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bulk.submit(router, reader, Wish(), Rejects(None), "in.jsonl", killed)
    assert states(router.store) == {"queued": 2000}
    done = submit(router, data)
    assert (done.accepted, done.duplicates) == (300, 2000)


def test_bad_rows_are_kept_beside_the_good_ones(router: Router, tmp_path: Path) -> None:
    data = lines({"prompt": "one"}, b"{nonsense\n", {"prompt": ""}, {"prompt": "two"})
    done = submit(router, data, folder=tmp_path)
    assert (done.accepted, done.rejected) == (2, 2)
    assert done.first_reject is not None
    assert done.first_reject.startswith("line 2: ")
    kept = [json.loads(line) for line in Path(str(done.rejects_file)).read_text().splitlines()]
    assert [one["line"] for one in kept] == [2, 3]
    assert kept[0]["raw"] == "{nonsense"
    assert rows(router.store, "SELECT accepted, duplicates, rejected FROM submission")[0] == (2, 0, 2)


def test_a_dry_run_keeps_nothing(router: Router, tmp_path: Path) -> None:
    reader = read(BytesIO(lines({"prompt": "one"}, b"{bad\n")), None, Defaults(model="gpt-6-luna"), name="in.jsonl")
    found = list(bulk.dry_run(router, reader, Wish()))
    assert not isinstance(found[0], Reject)
    assert found[0][1].lane == "batch"
    assert isinstance(found[1], Reject)
    assert not (tmp_path / "shunter.db").exists()


@pytest.mark.skipif(not SHARED.exists(), reason="the 495 real prompts are not beside this checkout")
def test_real_prompts_end_and_the_ledger_is_the_bill(router: Router, sandbox: Sandbox) -> None:
    from db.lookup import job
    from jobs import worker

    reader = read(BytesIO(SHARED.read_bytes()), None, Defaults(model="gpt-6-luna"), name=SHARED.name)
    done = bulk.submit(router, reader, Wish(), Rejects(None), "prompts", lambda summary: None)
    assert (done.accepted, done.rejected) == (495, 0)

    async def work() -> None:
        context = router.context()
        await worker.once(context, worker.Told(), asyncio.Event())
        await context.close()

    asyncio.run(work())
    assert states(router.store) == {"succeeded": 495}
    paid = rows(router.store, "SELECT sum(cost_nano), sum(cost_nano IS NULL) FROM attempt")[0]
    assert tuple(paid) == (sandbox.bill()["totals"]["cost_nano_usd"], 0)
    for row in rows(router.store, "SELECT id FROM job LIMIT 20"):
        found = job(router.store, row[0])
        assert found is not None
        assert found["decision"]["reason"]
