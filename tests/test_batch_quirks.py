"""Each way in which real Batch API servers differ from OpenAI's, lived through from pack to import."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from db import batches
from db.engine import Store
from tests.lanes import rows
from tests.personalities import AIBRIX, AIMOCK, LITELLM, OGX, OPENAI, SERVERS, Fault, Personality, Play
from tests.quirk_lanes import HOUR, PAST_ITS_END, PROMPTS, At, QuirkWorld, lanes_at

FILES, BATCHES = "/v1/files", "/v1/batches"
named = pytest.mark.parametrize("who", SERVERS, ids=lambda who: who.name)


@pytest.fixture
def at(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    with lanes_at(store, tmp_path, monkeypatch) as made:
        yield made


def error(world: QuirkWorld, ident: str) -> tuple[str, str]:
    found = world.job(ident)["error"]
    return found["code"], found["message"]


def marked(mark: str, at_: int = 1) -> list[str]:
    return [f"{mark} {prompt}" if n == at_ else prompt for n, prompt in enumerate(PROMPTS)]


@named
def test_a_life(at: At, who: Personality) -> None:
    """Statuses, ids, bodies, counts, error files, the order of rows: all of them as this server has them."""
    world = at(who)
    world.ask()
    world.until_final()
    world.holds()
    assert (world.server.made(FILES), world.batches()) == (1, 1)
    assert world.troubles == []


@named
def test_a_status_at_a_time(at: At, who: Personality) -> None:
    world = at(who)
    world.ask()
    seen: list[str | None] = []
    while not world.ended():
        world.look(60)
        if (status := batches.recent(world.store, 1)[0].status) not in seen:
            seen.append(status)
    assert seen in (list(who.statuses), list(who.statuses[1:]))
    world.holds()


@named
def test_a_server_that_insists_on_the_name(at: At, who: Personality) -> None:
    world = at(who)
    world.ask()
    world.until_final()
    assert all(name.endswith(".jsonl") for name, _ in world.server.files.values() if name != "out")
    world.holds()


@pytest.mark.parametrize("who", [OPENAI, OGX, AIBRIX, LITELLM], ids=lambda who: who.name)
def test_a_line_that_the_model_refuses(at: At, who: Personality) -> None:
    world = at(who)
    ids = world.ask(*marked("!400"))
    world.until_final()
    world.holds(succeeded=9, failed=1)
    assert "refused" in error(world, ids[1])[1]


@named
def test_a_line_that_is_no_json_to_the_server(at: At, who: Personality) -> None:
    """It is named and left behind, and the others go without it; a server that ignores it never answers it."""
    world = at(who)
    ids = world.ask(*marked("!json"))
    world.until_final()
    world.holds(succeeded=9, failed=1)
    code, why = error(world, ids[1])
    if who.bad_line == "ignored":
        assert world.job(ids[1])["attempts"][-1]["n"] == 3
    else:
        assert "line 2" in why, (code, why)
        assert world.server.made(FILES) == 2


@named
def test_a_model_that_the_server_does_not_know(at: At, who: Personality) -> None:
    world = at(who)
    ids = world.ask(model="gpt-4o-mini")
    world.until_final()
    if not who.knows_models:
        world.holds()
        return
    world.holds(succeeded=0, failed=10)
    assert {error(world, ident)[0] for ident in ids} == {"model_not_found"}
    assert world.batches() <= 3


@named
def test_a_lost_answer_to_the_upload_and_to_the_create(at: At, who: Personality) -> None:
    world = at(who)
    world.server.faults = [Fault("POST", FILES, done=True), Fault("POST", BATCHES, done=True)]
    world.ask()
    world.until_final()
    world.holds()
    assert (world.server.made(FILES), world.batches()) == (1, 1)


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("path", [FILES, BATCHES])
@pytest.mark.parametrize("body", [b"null", b'{"id": null}', b""])
def test_an_answer_of_200_with_nothing_in_it(at: At, path: str, done: bool, body: bytes) -> None:
    """LiteLLM makes `null` with status 200 of a 422."""
    world = at(LITELLM)
    world.server.faults = [Fault("POST", path, 200, body, done)]
    world.ask()
    world.until_final()
    world.holds()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"null"), (200, b"<html>"), (404, b"{}"), (500, b'{"error": {"message": "x"}}'), (502, b"x")],
)
def test_a_poll_that_shows_nothing_once(at: At, status: int, body: bytes) -> None:
    world = at(LITELLM)
    world.server.faults = [Fault("GET", f"{BATCHES}/*", status, body)] * 2
    world.ask()
    world.until_final()
    world.holds()


@pytest.mark.parametrize("status", [400, 500])
def test_a_create_that_is_asked_too_early(at: At, status: int) -> None:
    """`Cannot find file` right after the upload, as OpenAI says it, or as LiteLLM passes it on."""
    world = at(OPENAI if status == 400 else LITELLM)
    body = b'{"error": {"message": "Cannot find file file-1, or project does not have access"}}'
    world.server.faults = [Fault("POST", BATCHES, status, body)] * 2
    world.ask()
    world.until_final()
    world.holds()


@named
def test_cancelled_at_once(at: At, who: Personality) -> None:
    world = at(who)
    ids = world.ask()
    world.look()
    for ident in (batch.id for batch in batches.recent(world.store, 1)):
        batches.cancelling(world.store, ident, world.clock.now())
    world.until_final()
    assert world.ended()
    bill = world.server.bill
    assert set(bill.values()) <= {1}
    assert {world.job(ident)["state"] for ident in ids} <= {"succeeded", "cancelled"}


def leaving(world: QuirkWorld, **more: object) -> list[str]:
    """Jobs that leave the batch lane after an hour, for another batch."""
    leave = world.clock.now() + timedelta(hours=1)
    steps = [{"lane": "batch", "tier": "default", "leave_by": leave.isoformat()},
             {"lane": "batch", "tier": "default", "leave_by": None}]  # fmt: skip
    return world.ask(plan=steps, leave_by=leave, **more)


@named
def test_cancelled_half_way(at: At, who: Personality) -> None:
    """A server with nothing to show for rows that ran leaves their cost unknown; nobody else pays twice."""
    world = at(who, Play(end="", runs=5))
    leaving(world)
    world.look()
    for _ in range(3):
        world.look(60)
    assert sum(world.server.bill.values()) == 5
    world.until_final()
    world.holds(paid=10 if who.shows_cancelled else 15)
    assert world.attempts()["unknown"] == (0 if who.shows_cancelled else 10)


@named
def test_cancelled_again(at: At, who: Personality) -> None:
    """400, 409 or 200: whatever it says to a second cancel, the batch is followed to its end."""
    world = at(who, Play(end="", runs=5))
    leaving(world)
    world.look()
    for _ in range(3):
        world.look(60)
    (held,) = world.server.batches.values()
    world.server.cancel(held.id)
    world.until_final()
    world.holds(paid=10 if who.shows_cancelled else 15)


@named
def test_a_cancel_that_comes_too_late(at: At, who: Personality) -> None:
    """The batch has ended meanwhile, and the server refuses the cancel: 400, 409, or 500 behind LiteLLM."""
    world = at(who)
    leaving(world)
    world.look()
    (held,) = world.server.batches.values()
    while held.status != "completed":
        world.server.poll(held.id)
    world.look(HOUR + 60)
    world.until_final()
    world.holds()
    assert world.batches() == 1


@named
@pytest.mark.parametrize("error_rows", [True, False])
def test_expired_with_a_part_in_the_output_file(at: At, who: Personality, error_rows: bool) -> None:
    world = at(who, Play(end="expired", runs=4, error_rows=error_rows))
    world.ask()
    world.until_final()
    world.holds()
    assert world.attempts() == {"ok": 10, "expired": 6}


@named
def test_killed_in_the_middle_and_started_again(at: At, who: Personality) -> None:
    """One resumes, one forgets the batch and its files, one leaves it in progress for ever, cancelled or not."""
    world = at(who, Play(end="" if who.restart != "resumes" else "completed", runs=None if who is AIBRIX else 5))
    world.ask()
    world.look()
    world.look(60)
    world.look(60)
    world.server.restart()
    world.look(HOUR)
    if who.restart != "resumes":
        assert world.states() == {"submitted": 10}  # it may still end: nothing is sent twice before its time is up
    world.look(PAST_ITS_END)
    world.until_final()
    world.holds(paid=10 if who.restart == "resumes" else 15)
    assert world.batches() == (1 if who.restart == "resumes" else 2)


def test_a_batch_that_is_forgotten_behind_litellm(at: At) -> None:
    """It says 500 of a batch that nobody knows, for ever."""
    world = at(LITELLM, Play(end="", runs=5))
    world.ask()
    world.look()
    world.look(60)
    world.server.batches.clear()
    world.until_final()
    world.holds(paid=15)


def test_a_server_that_is_away_for_two_days_has_not_forgotten(at: At) -> None:
    """Past the end of the batch it still cannot be reached: that says nothing of the batch."""
    world = at(OPENAI)
    world.ask()
    world.look()
    polls = [Fault("GET", f"{BATCHES}*") for _ in range(500)]
    world.server.faults = [*polls, *(Fault("POST", f"{BATCHES}*") for _ in range(500))]
    (held,) = world.server.batches.values()
    while held.status != "completed":
        world.server.poll(held.id)
    for _ in range(16):
        world.look(3 * HOUR)
    assert world.states() == {"submitted": 10}
    world.server.faults = []
    world.until_final()
    world.holds()
    assert world.batches() == 1


@pytest.mark.parametrize("status", [400, 405, 500])
def test_a_server_that_lists_no_files(at: At, status: int) -> None:
    """The answer to an upload is lost and nothing can be looked up: a second file costs nothing."""
    world = at(OPENAI)
    world.server.faults = [Fault("POST", FILES, done=True), *(Fault("GET", FILES, status) for _ in range(500))]
    world.ask()
    world.until_final()
    world.holds()


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_deletes_no_files(at: At, status: int) -> None:
    world = at(OPENAI)
    world.server.faults = [Fault("POST", BATCHES), *(Fault("DELETE", f"{FILES}/*", status) for _ in range(500))]
    world.ask()
    world.until_final()
    world.holds()


def test_a_file_that_is_gone_before_its_batch_is_made(at: At) -> None:
    """A restart between upload and create: the server knows no such file, and the batch is made of a new one."""
    world = at(AIMOCK)
    world.server.faults = [Fault("POST", BATCHES, 503)]
    world.ask()
    world.look()
    world.server.restart()
    world.until_final()
    world.holds()
    assert rows(world.store, "SELECT count(*) FROM batch")[0][0] == 1
