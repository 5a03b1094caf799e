"""Reading along with a job from another process: late, with pauses, from any position, also after its end."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db import log, settle
from db.engine import Store
from db.ledger import Charge
from db.log import Piece
from db.settle import Failed, Held, Settlement, Succeeded, Text
from db.states import AttemptState, JobState
from jobs.chat import Delta
from jobs.errors import UsageError
from jobs.follow import Anew, Heard, Over, Position, follow
from tests.commands import Shell, refused
from tests.lanes import NOW, World
from tests.streams import all_of, begun, claim, process

UNKNOWN = Charge(AttemptState.UNKNOWN, error_code="cut", error="cut")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Store, tmp_path: Any) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


async def read(store: Store, job_id: str, at: Position | None = None, most: int = 10**6) -> list[Any]:
    """What a reader sees who leaves after so many events."""
    seen: list[Any] = []
    async with aclosing(follow(store, job_id, at)) as events:
        async for event in events:
            seen.append(event)
            if len(seen) == most:
                break
    return seen


def words(seen: list[Any]) -> str:
    return "".join(event.delta.text for event in seen if isinstance(event, Heard))


def test_a_reader_who_joins_late_leaves_and_comes_back_hears_every_word_once(world: World) -> None:
    async def test() -> tuple[str, str, list[Any]]:
        world.sandbox.faults([{"kind": "silence", "after": 20, "seconds": 0.3}])
        async with process(world) as context:
            claimed = claim(world, context)
            writer = asyncio.create_task(all_of(context, claimed))
            first = await read(world.store, claimed.job_id, most=1)
            rest = await read(world.store, claimed.job_id, first[-1].position)
            whole = "".join(event.text for event in await writer if isinstance(event, Delta))
            return whole, words(first) + words(rest), rest

    whole, heard, rest = asyncio.run(test())
    assert heard == whole
    assert words(rest) != whole  # the first reader did hear something
    assert rest[-1] == Over(JobState.SUCCEEDED)


def test_two_readers_hear_the_same(world: World) -> None:
    async def test() -> list[str]:
        world.sandbox.faults([{"kind": "silence", "after": 20, "seconds": 0.2}])
        async with process(world) as context:
            claimed = claim(world, context)
            readers = [read(world.store, claimed.job_id) for _ in range(2)]
            _, *seen = await asyncio.gather(all_of(context, claimed), *readers)
            return [words(one) for one in seen]

    one, other = asyncio.run(test())
    assert one == other != ""


@pytest.mark.parametrize("position", ["1.0.0", "1.7.0", "1.7.3", "1.40.0", "1.999.0"])
def test_the_stored_answer_serves_a_position_as_well_as_the_log(world: World, position: str) -> None:
    async def test() -> tuple[str, list[Any]]:
        async with process(world) as context:
            claimed = claim(world, context)
            whole = "".join(event.text for event in await all_of(context, claimed) if isinstance(event, Delta))
            return whole, await read(world.store, claimed.job_id, Position.read(position))

    whole, seen = asyncio.run(test())
    assert words(seen) == whole[Position.read(position).text :]
    assert not any(isinstance(event, Anew) for event in seen)


def test_a_new_attempt_replaces_what_was_heard(world: World) -> None:
    """The reader has heard the first attempt when a restart makes it void."""

    async def test() -> list[Any]:
        world.sandbox.faults([{"kind": "cut", "after": 9, "times": 1}])
        async with process(world) as context:
            claimed = claim(world, context, on_cut="restart")
            _, seen = await asyncio.gather(
                all_of(context, claimed), read(world.store, claimed.job_id, Position(1, 5, 0))
            )
            return seen

    seen = asyncio.run(test())
    anew = seen.index(Anew(2))
    assert all(event.position.attempt == 1 for event in seen[:anew])
    assert words(seen[anew:]).startswith("[sandbox]")
    assert isinstance(seen[-1], Over)


def test_a_job_that_failed_without_a_word_in_its_last_try_still_has_its_partial_text(world: World) -> None:
    async def test() -> list[Any]:
        async with process(world) as context:
            claimed = claim(world, context)
            half = Settlement(claimed.job_id, 1, UNKNOWN, Held(Text("half a", partial=True)))
            settle.settle(world.store, [half], NOW)
            with world.store.write() as connection:
                connection.exec_driver_sql("UPDATE job SET attempts = 2")
            settle.settle(world.store, [Settlement(claimed.job_id, 2, UNKNOWN, Failed("busy", "busy"))], NOW)
            return await read(world.store, claimed.job_id)

    seen = asyncio.run(test())
    assert words(seen) == "half a"
    assert seen[-1] == Over(JobState.FAILED)


def test_reasoning_and_other_choices_are_heard_while_they_come(world: World) -> None:
    async def test() -> list[Any]:
        async with process(world) as context:
            job_id = claim(world, context).job_id
            pieces = [
                Piece(job_id, 1, 0, 0, 0, "reasoning", "hm, "),
                Piece(job_id, 1, 4, 0, 0, "text", "yes"),
                Piece(job_id, 1, 7, 3, 1, "text", "oui"),
                Piece(job_id, 1, 10, 3, 0, "refusal", "no"),
            ]
            writer = log.Writer(world.store)
            writer.append(pieces)
            writer.close()
            return await read(world.store, job_id, Position(1, 1, 4), most=3)

    one, two, three = asyncio.run(test())
    assert (one.delta, str(one.position)) == (Delta("es"), "1.3.4")
    assert (two.delta, str(two.position)) == (Delta("oui", choice=1), "1.3.7")
    assert (three.delta, str(three.position)) == (Delta(refusal="no"), "1.3.9")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_any_position_goes_on_exactly_there(lengths: list[int], data: st.DataObject) -> None:
    from jobs.follow import _logged

    text = "".join(chr(97 + n % 26) * length for n, length in enumerate(lengths))
    pieces, start = [], 0
    for length in lengths:
        pieces.append(Piece("j", 1, start, start, 0, "text", text[start : start + length]))
        start += length
    at = data.draw(st.integers(0, len(text)))
    heard = list(_logged(pieces, Position(1, at, 0)))
    assert "".join(one.delta.text for one in heard) == text[at:]
    assert not heard or heard[-1].position == Position(1, len(text), 0)


@pytest.mark.parametrize("words", ["", "1", "1.2", "1.2.x", "-1.0.0", "1.2.3.4", "1.٣.0", "9" * 13 + ".0.0"])
def test_what_is_no_position(words: str) -> None:
    with pytest.raises(UsageError, match="is not a position"):
        Position.read(words)


def test_nobody_follows_a_job_that_is_not_there(store: Store) -> None:
    with pytest.raises(UsageError, match="no job"):
        asyncio.run(read(store, "nothing"))


# ---- as a command ----


async def cut_off(world: World) -> str:
    world.sandbox.faults([{"kind": "silence", "after": 9}])
    async with process(world) as context:
        events, _ = await begun(context, claimed := claim(world, context))
        await events.aclose()
        return claimed.job_id


def test_show_follow(world: World, shell: Shell) -> None:
    job_id = asyncio.run(cut_off(world))
    done = shell("jobs", "show", job_id, "--follow")
    assert done.code == 1  # it did not succeed
    assert done.out.startswith("[sandbox]")
    assert "cancelled" in done.err
    again = shell("jobs", "show", job_id, "--after", "1.4.0", "--json")
    first, last = again.out.splitlines()[0], again.out.splitlines()[-1]
    assert first.startswith('{"event":"delta","position":"1.')
    assert last.startswith('{"event":"job"')


def test_show_follow_of_a_success_is_a_success(world: World, shell: Shell) -> None:
    async def test() -> str:
        async with process(world) as context:
            await all_of(context, claimed := claim(world, context))
            return claimed.job_id

    assert shell("jobs", "show", asyncio.run(test()), "--follow").code == 0


def test_after_wants_a_position(world: World, shell: Shell) -> None:
    refused(shell("jobs", "show", asyncio.run(cut_off(world)), "--after", "there"), 2, "is not a position")


def test_an_answer_that_is_stored_is_over_at_once(world: World) -> None:
    async def test() -> list[Any]:
        async with process(world) as context:
            claimed = claim(world, context)
            paid = Settlement(claimed.job_id, 1, UNKNOWN, Succeeded(Text("all of it", "stop")), logged=True)
            settle.settle(world.store, [paid], NOW)
            return await read(world.store, claimed.job_id)

    assert asyncio.run(test()) == [
        Heard(Delta("all of it"), Position(1, 9, 0)),
        Over(JobState.SUCCEEDED),
    ]
