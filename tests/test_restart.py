"""A stream that breaks is begun anew where that was asked for, and every time limit of a request has its own end."""

from typing import Any

import pytest

from jobs import retry, stream
from jobs.chat import Delta, Handling, OnCut
from jobs.providers import Timeouts
from jobs.runner import Ended
from tests.lanes import CLAUDE, MODEL, World, rows
from tests.stream_wire import run
from tests.streams import QUICK, all_of, attempt_of, claim, process, seen, tail, until

BREAKS: dict[str, dict[str, Any]] = {
    "fin": {"kind": "cut", "after": 3},
    "rst": {"kind": "cut", "after": 3, "how": "rst"},
    "silence": {"kind": "silence", "after": 3},
    "malformed": {"kind": "malformed", "after": 3},
    "error": {"kind": "stream_error", "after": 3, "billed": True},
    "no finish": {"kind": "no_finish"},
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)


def read(world: World, *faults: dict[str, Any], timeouts: Timeouts = QUICK, **more: Any) -> tuple[list[Any], Any]:
    """What the reader of a job under these drills saw in order, and the job."""
    world.sandbox.faults(list(faults))

    async def test() -> tuple[list[Any], Any]:
        async with process(world, timeouts=timeouts) as context:
            claimed = claim(world, context, **more)
            return seen(await all_of(context, claimed)), world.job(claimed.job_id)

    found: tuple[list[Any], Any] = run(test)
    return found


def states(found: Any) -> list[str]:
    return [one["state"] for one in found["attempts"]]


# ---- keep, the default ----


@pytest.mark.parametrize("how", BREAKS)
def test_without_a_word_on_it_what_came_is_kept(world: World, how: str) -> None:
    assert Handling().on_cut is OnCut.KEEP
    (shown, end), found = read(world, BREAKS[how] | {"times": 1})
    assert end == (1, "Failed")
    assert (found["state"], found["text"], found["partial"]) == ("failed", shown, True)
    assert states(found) == ["unknown"]
    world.at_risk()


# ---- restart ----


@pytest.mark.parametrize("how", BREAKS)
def test_the_new_text_replaces_the_old(world: World, how: str) -> None:
    (old, first, new, second), found = read(world, BREAKS[how] | {"times": 1}, on_cut="restart")
    assert (first, second) == ((1, "Again"), (2, "Succeeded"))
    assert len(new.split()) == 40
    assert new.startswith(old), "this model says the same again"
    assert (found["state"], found["text"], found["partial"], found["error"]) == ("succeeded", new, False, None)
    assert states(found) == ["unknown", "ok"]
    assert found["cost_usd"] is None, "the first may have been billed"
    assert rows(world.store, "SELECT count(*) FROM delta") == [(0,)]
    world.at_risk()


def test_a_late_reader_hears_the_newest_attempt_alone(world: World) -> None:
    world.sandbox.faults([BREAKS["fin"] | {"times": 1}, {"kind": "silence", "after": 5, "seconds": 0.2, "skip": 1}])

    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, on_cut="restart")
            events = stream.watch(context, claimed)
            ended = False
            async for event in events:
                ended = ended or isinstance(event, Ended)
                if ended and isinstance(event, Delta):
                    break
            await until(lambda: tail(world.store, claimed.job_id).pieces)
            found = tail(world.store, claimed.job_id, 1, 5)
            assert (found.attempt, found.stored, found.pieces[0].seq) == (2, None, 0)
            assert found.pieces[0].text.startswith("[sandbox]")
            await events.aclose()

    run(test)


def test_three_attempts_at_most(world: World) -> None:
    events, found = read(world, BREAKS["fin"], on_cut="restart")
    assert events[1::2] == [(1, "Again"), (2, "Again"), (3, "Failed")]
    assert (found["state"], found["text"], found["partial"]) == ("failed", events[4], True)
    assert states(found) == ["unknown"] * 3
    assert [one["outcome"] for one in found["attempts"]] == ["cut"] * 3
    world.at_risk()


def test_tries_before_and_after_the_first_word_count_alike(world: World) -> None:
    busy = {"kind": "status", "status": 503, "times": 1}
    events, found = read(world, busy, BREAKS["fin"], on_cut="restart")
    assert [event for event in events if isinstance(event, tuple)] == [(1, "Again"), (2, "Again"), (3, "Failed")]
    assert states(found) == ["failed", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("model", "code"),
    [(MODEL, "insufficient_quota"), (CLAUDE, "billing_error"), (CLAUDE, "invalid_request_error")],
)
def test_what_would_break_again_is_not_begun_anew(world: World, model: str, code: str) -> None:
    (shown, end), found = read(world, BREAKS["error"] | {"code": code}, on_cut="restart", model=model)
    assert end == (1, "Failed")
    assert (found["error"]["code"], found["text"]) == (code, shown)


def test_an_overloaded_server_is_asked_again_in_mid_stream_too(world: World) -> None:
    events, _ = read(world, BREAKS["error"] | {"times": 1}, on_cut="restart", model=CLAUDE)
    assert events[1::2] == [(1, "Again"), (2, "Succeeded")]


@pytest.mark.parametrize(("kind", "code"), [("refusal", "refused"), ("content_filter", "filtered")])
def test_an_answer_that_is_one_is_not_begun_anew(world: World, kind: str, code: str) -> None:
    (_, end), found = read(world, {"kind": kind}, on_cut="restart")
    assert (end, found["error"]["code"]) == ((1, "Failed"), code)
    world.even()


def test_when_the_new_attempt_brings_nothing_the_old_text_stays(world: World) -> None:
    refused = {"kind": "status", "status": 400, "skip": 1}
    (old, first, second), found = read(world, BREAKS["fin"] | {"times": 1}, refused, on_cut="restart")
    assert (first, second) == ((1, "Again"), (2, "Failed"))
    assert (found["state"], found["text"], found["partial"]) == ("failed", old, True)


def test_leaving_before_the_new_attempt_says_a_word_keeps_the_old_text(world: World) -> None:
    world.sandbox.faults([BREAKS["fin"] | {"times": 1}, {"kind": "slow_first_token", "seconds": 30, "skip": 1}])

    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, on_cut="restart")
            events, old = stream.watch(context, claimed), ""
            async for event in events:
                if isinstance(event, Ended):
                    break
                old += event.text
            await until(lambda: world.sandbox.requests()["count"] == 2)
            await events.aclose()
            found = world.job(claimed.job_id)
            assert (found["state"], found["partial"], len(found["attempts"])) == ("cancelled", True, 2)
            assert found["text"] == old != ""

    run(test)


def test_a_worker_begins_anew_too(world: World) -> None:
    hits = ("Begin anew.", 2), ("Keep it.", 1)
    world.sandbox.faults([BREAKS["fin"] | {"times": times, "match": {"contains": word}} for word, times in hits])
    chosen = Handling(on_cut=OnCut.RESTART).stored()
    (ident,) = world.add("Begin anew.", lane="stream", handling=chosen)
    (kept,) = world.add("Keep it.", lane="stream")
    world.work()
    assert states(world.job(ident)) == ["unknown", "unknown", "ok"]
    assert world.job(ident)["state"] == "succeeded"
    assert not world.job(ident)["partial"]
    assert (states(world.job(kept)), world.job(kept)["state"]) == (["unknown"], "failed")
    world.at_risk()


# ---- the three limits ----


def limited(world: World, fault: dict[str, Any], **limits: float) -> tuple[list[Any], Any]:
    """Under generous limits of the policy, which the request's own take the place of."""
    return read(world, fault, timeouts=Timeouts(), **limits)


def test_the_defaults() -> None:
    assert Timeouts() == Timeouts(first_token=120.0, idle=60.0, total=900.0, connect=5.0)


def test_a_first_token_that_does_not_come_is_tried_again_to_the_end(world: World) -> None:
    events, found = limited(world, {"kind": "slow_first_token", "seconds": 30}, first_token=0.1)
    assert events == [(1, "Again"), (2, "Again"), (3, "Failed")]
    assert found["error"]["code"] == "first_token_timeout"
    assert {one["outcome"] for one in found["attempts"]} == {"timed_out"}
    assert states(found) == ["unknown"] * 3


@pytest.mark.parametrize(("limit", "other"), [("idle", "total"), ("total", "idle")])
def test_a_stream_that_stops_is_ended_by_the_nearer_limit(world: World, limit: str, other: str) -> None:
    (shown, _), found = limited(world, {"kind": "silence", "after": 3}, **{limit: 0.3, other: 20.0})
    assert (found["state"], found["error"]["code"]) == ("failed", f"{limit}_timeout")
    assert (found["text"], found["partial"]) == (shown, True)
    assert (attempt_of(found)["outcome"], states(found)) == ("timed_out", ["unknown"])
    assert attempt_of(found)["total_ms"] >= 250, "counted from when it was sent, a little later than its limit"
    world.at_risk()


def test_the_total_holds_before_the_first_token_too(world: World) -> None:
    _, found = limited(world, {"kind": "slow_first_token", "seconds": 30, "times": 1}, total=0.2, first_token=20.0)
    assert found["attempts"][0]["error"]["code"] == "total_timeout"
    assert (found["attempts"][0]["outcome"], found["state"]) == ("timed_out", "succeeded")


def test_a_plain_call_has_its_total(world: World) -> None:
    _, found = limited(world, {"kind": "silence", "times": 1}, total=0.2, lane="sync")  # type: ignore[arg-type]
    assert found["attempts"][0]["error"]["code"] == "total_timeout"
    assert (found["attempts"][0]["outcome"], found["state"]) == ("timed_out", "succeeded")


def test_a_stream_that_timed_out_is_begun_anew_where_that_was_asked_for(world: World) -> None:
    fault = {"kind": "silence", "after": 3, "times": 1}
    events, found = limited(world, fault, idle=0.2, on_cut="restart")  # type: ignore[arg-type]
    assert events[1::2] == [(1, "Again"), (2, "Succeeded")]
    assert [one["outcome"] for one in found["attempts"]] == ["timed_out", "complete"]
