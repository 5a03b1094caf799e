"""What the gateway keeps, on either database."""

from datetime import timedelta

import pytest

from db import conversations, files, gateway_batches, keys
from db.conversations import Conversation
from db.engine import Store
from db.files import File
from db.states import JobState
from tests.commands import finish
from tests.lanes import NOW, rows

pytestmark = pytest.mark.both
HOUR = timedelta(hours=1)


def test_a_key_is_found_by_its_words_alone_until_it_is_revoked(store: Store) -> None:
    key, words = keys.new("ci", ["batch"], 5, NOW)
    keys.create(store, key, words)
    assert keys.find(store, key.id, words) == key
    assert keys.find(store, key.id, words + "x") is None
    assert keys.find(store, "0" * keys.ID_LETTERS, words) is None
    assert keys.revoke(store, key.id, NOW + HOUR)
    assert not keys.revoke(store, key.id, NOW + HOUR)
    assert keys.find(store, key.id, words) is None
    assert [one.revoked_at for one in keys.listed(store)] == [NOW + HOUR]


def test_conversations_are_kept_paged_and_asked_anew(store: Store) -> None:
    job = finish(store)
    for n in range(5):
        conversations.begin(store, Conversation(f"c{n}", None, f"talk {n}", None, 0, NOW, NOW))
        conversations.say(store, f"c{n}", 1, "hello", job, NOW + n * HOUR)
    conversations.say(store, "c0", 2, "again", "gone", NOW + 9 * HOUR)
    conversations.say(store, "c0", 2, "anew", job, NOW + 9 * HOUR)
    found = conversations.find(store, "c0")
    assert found
    assert [(turn.n, turn.said, turn.text) for turn in found[1]] == [(1, "hello", "yes"), (2, "anew", "yes")]
    first = conversations.page(store, owner=None, limit=3)
    rest = conversations.page(store, owner=None, limit=3, after=first[-1].id)
    assert [one.id for one in first + rest] == ["c0", "c4", "c3", "c2", "c1"]
    assert conversations.page(store, owner="other") == conversations.page(store, owner=None, after="none") == []
    assert conversations.of_job(store, job)
    conversations.remove(store, "c0")
    assert conversations.find(store, "c0") is None


def test_two_who_ask_at_once_are_both_heard(store: Store) -> None:
    conversations.begin(store, Conversation("c", None, "talk", None, 0, NOW, NOW))
    for said in ("one", "another", "a third"):  # each of them saw the same turns before
        conversations.say(store, "c", None, said, said, NOW)
    conversations.say(store, "c", 2, "another", "anew", NOW)
    found = conversations.find(store, "c")
    assert found
    assert found[0].turns == 3
    assert [(turn.n, turn.said, turn.job_id) for turn in found[1]] == [
        (1, "one", "one"), (2, "another", "anew"), (3, "a third", "a third")]  # fmt: skip


def test_a_file_is_seen_once_it_is_whole(store: Store) -> None:
    files.begin(store, File("file-1", "k", "", "", 0, NOW))
    for n, data in enumerate((b"a\0b", b"\xff" * 1000)):
        files.add(store, "file-1", n, data)
    assert files.find(store, "file-1") is None
    assert files.left(store, NOW + HOUR) == ["file-1"]
    made = files.end(store, "file-1", size=1003, filename="x.jsonl", purpose="batch")
    assert files.find(store, "file-1") == made
    assert b"".join(files.parts(store, "file-1")) == b"a\0b" + b"\xff" * 1000
    assert files.page(store, owner="k", purpose="batch", after=None, limit=9) == [made]
    assert files.page(store, owner=None, purpose=None, after=None, limit=9) == []
    files.remove(store, "file-1")
    assert rows(store, "SELECT * FROM gateway_file_part") == []


def test_a_batch_counts_its_jobs_and_gives_their_answers_in_order(store: Store) -> None:
    jobs = [finish(store, client_key="a"), finish(store, failed=True, client_key="b")]
    (submissions,) = {tuple(sorted(row[0] for row in rows(store, "SELECT submission_id FROM job")))}
    made = gateway_batches.Asked("batch_1", None, "file-1", "/v1/chat/completions", {"m": "1"}, NOW, NOW + HOUR)
    gateway_batches.create(store, made)
    gateway_batches.change(store, made.id, submission_id=submissions[0], read_at=NOW)
    found = gateway_batches.find(store, made.id)
    assert found == made._replace(submission_id=submissions[0], read_at=NOW)
    assert gateway_batches.page(store, owner=None, after=None, limit=9) == [found]
    states = [JobState.SUCCEEDED, JobState.FAILED]
    answers = [one for submission in submissions for one in gateway_batches.answers(store, submission, states)]
    assert [(one.job_id, one.custom_id, one.text, one.tokens[0]) for one in answers] == [
        (jobs[0], "a", "yes", 3),
        (jobs[1], "b", None, None),
    ]
    counts, ended = gateway_batches.standing(store, submissions[0])
    assert sum(counts.values()) == 1
    assert ended
    assert gateway_batches.jobs_of(store, submissions[0])
    assert gateway_batches.begun(store, "1") is None
