"""Jobs by what they failed of: equal causes are one group, each says whether a retry can help, groups are retried."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import queue, settle, triage
from db.engine import Store
from db.settle import Failed, Settlement
from db.triage import Case, Which
from jobs.causes import causes, shape
from tests.commands import PAID, Shell, refused, submitted
from tests.lanes import add, job, states

pytestmark = pytest.mark.both


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database_url: str
) -> Shell:
    shell = Shell(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("SHUNTER_DATABASE_URL", database_url)
    return shell


def failed(store: Store, code: str, message: str, *, tries: int = 1, ago: float = 60.0, model: str = "m") -> str:
    """A job that failed so."""
    now = datetime.now(UTC) - timedelta(seconds=ago)
    (ident,) = add(store, job(lane="sync", now=now, model=model), now=now)
    (claim,) = queue.claim(store, "me", now + timedelta(hours=1), 1, now, ["openai", "anthropic"])
    for _ in range(tries - 1):
        again = queue.again(store, claim, now)
        assert again is not None
        claim = again
    settle.settle(store, [Settlement(ident, claim.n, PAID, Failed(code, message))], now)
    return ident


def case(code: str, message: str = "it broke", tries: int = 1, jobs: int = 1) -> Case:
    return Case(code, message, tries, jobs, "a", "b")


# ---- equal causes ----


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("row 17 of batch_68f1a2b3 failed", "row 4 of batch_77aa01bc failed"),
        ("request req_011CabQ9 timed out after 12.5 s", "request req_022XyzP7 timed out after 600 s"),
        ("Limit: 2,000,000 tokens", "Limit: 90,000 tokens"),
        ("job 06a3tq… at https://a.example/v1/x?y=1", "job 06a3tq… at https://b.example/z"),
        ("of 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "of 00000000-4f89-11d3-9a0c-0305e82c3302"),
        ("1a2061e99585a81341cd0dc92e_1 is gone", "1a2061f8a5f585a81341cd0dc9_2 is gone"),
        ("unexpected end (line 3 of its batch)", "unexpected end (line 40001 of its batch)"),
    ],
)
def test_what_is_only_of_one_job_is_taken_out(one: str, other: str) -> None:
    assert shape(one) == shape(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the model gpt-6-luna does not exist", "the model gpt-4o does not exist"),
        ("the answer does not fit the schema at $.name", "the answer does not fit the schema at $.colour"),
        ("answered 500: overloaded", "answered 500: server error"),
    ],
)
def test_what_is_another_cause_stays_another(one: str, other: str) -> None:
    assert shape(one) != shape(other)


@given(st.from_regex(r"\A((batch_|req_)[0-9]|)[0-9a-f]{14}\Z"), st.integers(0, 10**9), st.text(max_size=20))
def test_no_id_and_no_number_makes_a_group_of_its_own(ident: str, number: int, words: str) -> None:
    assert shape(f"{words} of {ident} after {number} s") == shape(f"{words} of batch_0123456789abcd after 1 s")


@pytest.mark.parametrize(
    ("code", "tries", "helps"),
    [
        ("timed_out", 3, True), ("abandoned", 1, True), ("batch_lost", 3, True), ("http_500", 3, True),
        ("rate_limit_exceeded", 3, True), ("schema_mismatch", 2, True), ("invalid_api_key", 1, True),
        ("insufficient_quota", 1, True), ("post_process", 1, True), ("held", 1, True),
        ("refused", 1, False), ("filtered", 1, False), ("http_400", 1, False), ("model_not_found", 1, False),
        ("context_length_exceeded", 1, False), ("unheard_of", 1, False), ("unheard_of", 3, True),
    ],
)  # fmt: skip
def test_whether_a_retry_can_help(code: str, tries: int, helps: bool) -> None:
    (cause,) = causes([case(code, tries=tries)])
    assert cause.retry is helps
    assert cause.why


def test_the_most_frequent_cause_comes_first_with_a_few_examples() -> None:
    found = causes([Case("a", f"row {n}", 1, 1, f"id{n:02}", f"id{n:02}") for n in range(20)] + [case("b", jobs=50)])
    assert [(cause.code, cause.jobs) for cause in found] == [("b", 50), ("a", 20)]
    assert found[1].examples == ["id00", "id01", "id02"]
    assert found[1].message == "row 0"


# ---- the commands ----


def test_failed_jobs_by_error(store: Store, run: Shell) -> None:
    slow = [failed(store, "timed_out", f"no answer after {n} s", tries=3) for n in range(3)]
    failed(store, "model_not_found", "there is no model gpt-99")
    told = run("jobs", "list", "--state", "failed", "--by", "error", "--json").json
    assert told["jobs"] == 4
    first, second = told["causes"]
    assert (first["error"], first["jobs"], first["retry"], first["examples"]) == ("timed_out", 3, True, sorted(slow))
    assert (second["error"], second["retry"], second["message"]) == (
        "model_not_found", False, "there is no model gpt-99",
    )  # fmt: skip
    drawn = run("jobs", "list", "--state", "failed", "--by", "error")
    assert max(map(len, drawn.out.splitlines())) <= 80
    for word in ("timed_out", "can help", "never", "gpt-99"):
        assert word in drawn.out
    assert "jobs retry --error timed_out" in drawn.err
    refused(run("jobs", "list", "--by", "colour"), 2, "'colour'", "error")


def test_jobs_are_listed_by_error_model_batch_and_time(store: Store, run: Shell) -> None:
    one = failed(store, "cut", "cut", model="gpt-4o")
    other = failed(store, "timed_out", "slow", ago=7200)
    batch_id = submitted(store, 2)

    def listed(*words: str) -> list[str]:
        return [row["id"] for row in run("jobs", "list", *words, "--json").json["jobs"]]

    assert listed("--error", "cut") == [one]
    assert listed("--model", "gpt-4o") == [one]
    assert other not in listed("--since", "1h")
    assert len(listed("--batch", batch_id[:-1])) == 2
    assert listed("--batch", batch_id, "--error", "cut") == []
    refused(run("jobs", "list", "--batch", "nowhere"), 2, "'nowhere'", "batches list")


def test_a_whole_group_is_tried_again(store: Store, run: Shell) -> None:
    slow = [failed(store, "timed_out", "slow", tries=3) for _ in range(3)]
    failed(store, "refused", "no")
    dry = run("jobs", "retry", "--error", "timed_out", "--dry-run", "--json")
    assert dry.json == {"found": 3, "never": 0, "queued": 0, "dry_run": True}
    assert "3 failed jobs would be queued again" in dry.err
    assert states(store) == {"failed": 4}
    assert run("jobs", "retry", "--error", "timed_out", "--json").json["queued"] == 3
    assert states(store) == {"queued": 3, "failed": 1}
    assert triage.count(store, Which(state="queued")) == len(slow)
    all_ = run("jobs", "retry", "--all")
    assert "1 of them failed of what a retry does not mend" in all_.err
    assert states(store) == {"queued": 4}


def test_groups_narrow_each_other_and_cancelled_jobs_are_a_group(store: Store, run: Shell) -> None:
    failed(store, "cut", "cut", ago=7200)
    (waits,) = add(store, job(now=datetime.now(UTC)), now=datetime.now(UTC))
    queue.cancel(store, [waits], datetime.now(UTC))
    assert run("jobs", "retry", "--error", "cut", "--since", "1h", "--json").json["found"] == 0
    assert run("jobs", "retry", "--state", "cancelled", "--all", "--json").json["queued"] == 1
    assert states(store) == {"queued": 1, "failed": 1}


def test_a_retry_needs_jobs_or_a_group_and_not_both(store: Store, run: Shell) -> None:
    ident = failed(store, "cut", "cut")
    for words in ([], [ident, "--error", "cut"], [ident, "--dry-run"], ["--dry-run"]):
        refused(run("jobs", "retry", *words), 2, "--error", "--all")
    refused(run("jobs", "retry", "--all", "--state", "queued"), 2, "'queued'")
    assert states(store) == {"failed": 1}


def test_many_more_than_a_page_are_all_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch, run: Shell) -> None:
    monkeypatch.setattr(triage, "_KEYS_A_PAGE", 3)
    for _ in range(8):
        failed(store, "cut", "cut")
    assert run("jobs", "retry", "--error", "cut", "--json").json["queued"] == 8
    assert states(store) == {"queued": 8}
