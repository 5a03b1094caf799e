"""Wire bytes in, outcome out, for every format: over bytes alone, through the Providers and behind the raw SDKs."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, get_args

import pytest
from anthropic.types import StopReason
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.chat_completion_chunk import Choice
from openai.types.responses import ResponseStatus

from jobs.chat import Answer, Delta, Outcome
from jobs.errors import CallError
from jobs.sandbox import faults
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests import wire
from tests.conformance import EVENT_STREAM, Case, End, Format, joined_calls, kept
from tests.conformance_anthropic import ANTHROPIC
from tests.conformance_bytes import split, varied
from tests.conformance_calls import (
    FIRST,
    KEY,
    KEY_ENV,
    SOON,
    provider,
    replay,
    through_provider,
    through_sdk,
)
from tests.conformance_chat import CHAT
from tests.conformance_drills import DRILLS, FORCED, Drill
from tests.conformance_responses import RESPONSES
from tests.conformance_rows import ROWS, Row
from tests.stream_wire import REQUEST, SLOW, run
from tests.wire import serving

FORMATS = (CHAT, RESPONSES, ANTHROPIC)
ALL = {f"{form.name}: {name}": (form, case) for form in FORMATS for name, case in form.cases.items()}
MANY_BYTES = "characters of many bytes, and an event on two data lines"
LINE_ENDS = (b"\n", b"\r\n", b"\r")
MODELS = {"chat": "gpt-4.1-mini", "responses": "gpt-4.1-mini", "anthropic": "claude-haiku-4-5"}

every_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
every_case = pytest.mark.parametrize(("form", "case"), ALL.values(), ids=ALL)
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
either_lane = pytest.mark.parametrize("plain", [False, True], ids=["stream", "plain"])


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings()) as server:
        yield server


def told(ended: Answer | CallError) -> Any:
    """An end without what only its connection knows."""
    return ended if isinstance(ended, Answer) else (type(ended), ended.code, str(ended))


# Over bytes alone


@every_case
def test_a_recorded_stream_ends_as_its_table_says(form: Format, case: Case) -> None:
    deltas, ended = asyncio.run(replay(form, [case.wire], choices=case.choices, kind=case.kind))
    assert End.of(ended) == case.end
    kept(ended, deltas)


@every_format
def test_tool_calls_are_shown_as_they_come(form: Format) -> None:
    for case in form.cases.values():
        deltas, answer = asyncio.run(replay(form, [case.wire], choices=case.choices, kind=case.kind))
        if isinstance(answer, Answer):
            made = [(call.id, call.name, call.raw) for choice in answer.choices for call in choice.tool_calls]
            assert joined_calls(deltas) == made


@every_format
@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_any_split_of_the_same_events_gives_the_same_stream(form: Format, drawn: st.DataObject) -> None:
    streams = {name: case for name, case in form.cases.items() if case.kind == EVENT_STREAM}
    case = streams[drawn.draw(st.sampled_from(sorted(streams)))]
    place = st.integers(0, 10_000)
    other = varied(
        case.wire,
        drawn.draw(st.lists(st.tuples(place, st.integers(0, 20)), max_size=8)),
        bom=drawn.draw(st.booleans()),
        unended=drawn.draw(st.booleans()),
        line_end=drawn.draw(st.sampled_from(LINE_ENDS)),
    )
    pieces = split(other, drawn.draw(st.lists(place, max_size=40)))

    async def ends(pieces: list[bytes]) -> tuple[list[Delta], Any]:
        deltas, ended = await replay(form, pieces, choices=case.choices)
        return deltas, told(ended)

    assert asyncio.run(ends(pieces)) == asyncio.run(ends([case.wire]))


@every_format
@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
def test_a_split_at_every_byte(form: Format, line_end: bytes) -> None:
    case = form.cases[MANY_BYTES]
    data = varied(case.wire, [(3, 0), (9, 7)], bom=True, unended=False, line_end=line_end)
    splits = [[data[:at], data[at:]] for at in range(len(data))]
    one_by_one = [data[at : at + 1] for at in range(len(data))]

    async def ends() -> list[tuple[list[Delta], Answer | CallError]]:
        return [await replay(form, pieces) for pieces in [[data], *splits, one_by_one]]

    first, *others = asyncio.run(ends())
    assert End.of(first[1]) == case.end
    assert all(other == first for other in others)


@every_format
def test_the_last_blank_line_may_be_missing_and_two_events_may_come_in_one_read(form: Format) -> None:
    end = End.of(asyncio.run(replay(form, form.bytes_of("start", "text", "more", "finish", "end")))[1])
    together = [*form.bytes_of("start"), b"".join(form.bytes_of("text", "more", "finish", "end"))]
    assert End.of(asyncio.run(replay(form, together))[1]) == end
    *first, last = form.bytes_of("start", "text", "more", "finish")
    for ending in (last.rstrip(b"\n"), last.removesuffix(b"\n"), last.rstrip(b"\n") + b"\r"):
        assert End.of(asyncio.run(replay(form, [*first, ending]))[1]) == end


# Through the Providers


@every_case
def test_a_recorded_stream_over_loopback(form: Format, case: Case) -> None:
    script = wire.stream(*split(case.wire, range(0, len(case.wire), 61)), kind=case.kind)
    asked: dict[str, Any] = {"params": {"n": case.choices}} if case.choices > 1 else {}
    deltas, ended = run(lambda: through_provider(form, script, **asked))
    assert End.of(ended) == case.end
    kept(ended, deltas)


@pytest.fixture
def nobody() -> str:
    """A URL where nobody listens any more."""

    async def gone() -> str:
        async with serving(wire.mute) as server:
            return server.url

    return asyncio.run(gone())


@every_format
@every_row
def test_what_breaks_ends_in_its_outcome_within_its_time(form: Format, row: Row, nobody: str) -> None:
    async def bounded() -> Any:
        script = row.script(form) if row.script else nobody
        async with asyncio.timeout(3):
            return await through_provider(form, script, row.timeouts, plain=row.plain)

    deltas, ended = run(bounded)
    assert End.of(ended) == row.end
    if not row.plain:
        kept(ended, deltas)


@every_format
def test_a_stalled_keep_alive_connection(form: Format) -> None:
    good = wire.stream(*form.bytes_of("start", "text", "more", "finish", "end"))

    async def three_calls() -> list[Any]:
        async with serving(good, wire.mute, good) as server, provider(form, server.url) as made:
            return [await _ended(made, bounds) for bounds in (SLOW, FIRST, SLOW)]

    ends = run(three_calls)
    assert [end.outcome for end in ends] == [Outcome.COMPLETE, Outcome.TIMED_OUT, Outcome.COMPLETE]
    assert ends[1].code == "first_token_timeout"


async def _ended(made: Any, timeouts: Any) -> End:
    try:
        *_, answer = [item async for item in made.stream(REQUEST, tier="default", timeouts=timeouts)]
    except CallError as error:
        return End.of(error)
    return End.of(answer)


@every_format
def test_a_cancelled_stream_has_shown_its_words_and_leaves_no_connection(form: Format) -> None:
    async def leave() -> Delta:
        script = wire.stream(*form.bytes_of("start", "text"), end="silence")
        async with serving(script) as server, provider(form, server.url) as made:
            async with aclosing(made.stream(REQUEST, tier="default", timeouts=SLOW)) as items:
                first = await anext(items)
            async with asyncio.timeout(2):
                await server.left.wait()
            assert isinstance(first, Delta)
            return first

    assert run(leave) == Delta("he")


# Behind the raw SDKs


@every_case
def test_the_accumulator_behind_the_raw_sdk(form: Format, case: Case) -> None:
    _, answer = run(lambda: through_sdk(form, wire.stream(case.wire, kind=case.kind), choices=case.choices))
    assert End.of(answer) == (case.behind or case.end)


@every_format
@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
def test_the_raw_sdk_reads_every_line_end_and_split_characters(form: Format, line_end: bytes) -> None:
    case = form.cases[MANY_BYTES]
    data = case.wire.replace(b"\n", line_end)
    _, answer = run(lambda: through_sdk(form, wire.stream(*split(data, range(0, len(data), 7)))))
    assert End.of(answer) == case.end


@every_format
@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.openai], ids=[n for n in ROWS if ROWS[n].openai])
def test_what_the_raw_sdk_does_in_each_row(form: Format, row: Row, nobody: str) -> None:
    """A failure after an update of an SDK says that it ends otherwise now: its column wants another look."""
    script, behind = row.script(form) if row.script else nobody, row.behind(form)
    raised, answer = run(lambda: through_sdk(form, script, plain=row.plain, seconds=SOON if row.end.late else 9.0))
    assert type(raised) is (behind.raises or type(None))
    assert behind.wraps is None or isinstance(raised.__cause__, behind.wraps)
    assert answer.outcome is behind.outcome


# Under the drills of the sandbox


@every_format
@either_lane
@pytest.mark.parametrize("drill", DRILLS.values(), ids=DRILLS)
def test_a_drill_ends_in_its_outcome(form: Format, plain: bool, drill: Drill, sandbox: Sandbox) -> None:
    asked = {"model": MODELS[form.name], "max_tokens": 2000, **(FORCED if drill.kind == "malformed_arguments" else {})}
    sandbox.faults([drill.spec])
    bounds = drill.within(plain=plain)
    deltas, ended = run(lambda: through_provider(form, sandbox.url, bounds, plain=plain, **asked))
    end = End.of(ended)
    assert (end.outcome, end.code) == drill.ended(form, plain=plain)
    assert (end.usage is not None) == (
        drill.usage and isinstance(ended, Answer) and ended.first.finish_reason is not None
    )
    if not plain:
        kept(ended, deltas)
        assert drill.words in (None, bool(deltas))


@every_format
def test_arguments_that_are_no_json_are_kept_as_they_came(form: Format, sandbox: Sandbox) -> None:
    sandbox.faults(["malformed_arguments"])
    asked = {"model": MODELS[form.name], "max_tokens": 2000, **FORCED}
    _, ended = run(lambda: through_provider(form, sandbox.url, **asked))
    (call,) = ended.first.tool_calls
    assert (call.name, call.arguments, call.raw.endswith('"oops')) == ("weather", None, True)
    assert "not JSON" in call.error


# That nothing is forgotten


def test_each_row_of_the_table_has_its_number() -> None:
    assert {int(name[:2]) for name in ROWS if name[:2].strip()} == set(range(1, 15))


def test_each_ending_that_the_sdks_know_is_named() -> None:
    (finish_reasons, *_) = get_args(Choice.model_fields["finish_reason"].annotation)
    known = {CHAT: get_args(finish_reasons), RESPONSES: get_args(ResponseStatus), ANTHROPIC: get_args(StopReason)}
    for form, words in known.items():
        assert not [word for word in words if word not in " ".join(form.cases) and word != "in_progress"]


def test_each_drill_of_an_answer_is_named() -> None:
    assert {drill.kind for drill in DRILLS.values()} == {*faults.REQUEST, *faults.ANSWER, *faults.STREAM}


def test_each_outcome_of_a_stream_is_met() -> None:
    met = {case.end.outcome for _, case in ALL.values()} | {row.end.outcome for row in ROWS.values()}
    assert met == set(Outcome) - {Outcome.CANCELLED}  # its reader leaves: nobody is told an answer
