"""How long a call took: the first token, the gaps by nearest rank, the whole; the connection told apart."""

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import clock
from jobs.clock import Clock, Stopwatch, Timing
from tests.lanes import World
from tests.stream_wire import run
from tests.streams import all_of, attempt_of, claim, process


class Hand:
    """The hand of the machine's own clock, which a test moves by milliseconds."""

    def __init__(self) -> None:
        self.ms = 5000

    def perf_counter(self) -> float:
        return self.ms / 1000


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    moved = Hand()
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=moved.perf_counter))
    return moved


def timed(hand: Hand, *after: int) -> Timing:
    """A call whose deltas come so many milliseconds one after the other."""
    watch = Stopwatch()
    watch.sent()
    for ms in after:
        hand.ms += ms
        watch.token()
    return watch.read()


def test_now_is_aware_and_in_utc() -> None:
    offset = Clock().now().utcoffset()
    assert offset is not None
    assert not offset


def test_a_call_without_a_delta(hand: Hand) -> None:
    watch = Stopwatch()
    hand.ms += 70
    assert watch.read() == Timing(total_ms=pytest.approx(70))


def test_one_delta_has_no_gap(hand: Hand) -> None:
    assert timed(hand, 30) == Timing(total_ms=pytest.approx(30), first_token_ms=pytest.approx(30), chunks=1)


def test_the_gaps_begin_after_the_first_delta(hand: Hand) -> None:
    found = timed(hand, 500, 10, 40, 20)
    assert (found.first_token_ms, found.total_ms) == (pytest.approx(500), pytest.approx(570))
    assert (found.gap_p50_ms, found.gap_p95_ms, found.gap_max_ms) == pytest.approx((20, 40, 40))
    assert found.chunks == 4


def test_nearest_ranks_of_a_hundred_gaps(hand: Hand) -> None:
    found = timed(hand, 7, *range(100, 0, -1))
    assert (found.gap_p50_ms, found.gap_p95_ms, found.gap_max_ms) == pytest.approx((50, 95, 100))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=300))
def test_a_rank_is_a_gap_that_was_and_as_many_are_no_longer(hand: Hand, gaps: list[int]) -> None:
    found = timed(hand, 3, *gaps)
    ordered = sorted(gaps)
    rank = (95 * len(gaps) + 99) // 100  # in whole numbers: 0.95 is none
    assert found.gap_p95_ms == pytest.approx(ordered[rank - 1], abs=1e-6)
    assert found.gap_p50_ms == pytest.approx(ordered[(len(gaps) + 1) // 2 - 1], abs=1e-6)
    assert found.gap_max_ms == pytest.approx(ordered[-1], abs=1e-6)
    assert found.total_ms == pytest.approx(3 + sum(gaps), abs=1e-6)


def test_the_clock_starts_when_the_request_goes_out(hand: Hand) -> None:
    watch = Stopwatch()
    hand.ms += 100  # the body is made
    watch.connecting()
    hand.ms += 20
    watch.connected()
    hand.ms += 30
    watch.connected()  # its TLS
    watch.sent()
    hand.ms += 200
    watch.token()
    assert watch.read() == Timing(
        total_ms=pytest.approx(200), first_token_ms=pytest.approx(200), connect_ms=pytest.approx(50), chunks=1
    )


def test_without_a_request_it_counts_from_its_own_beginning(hand: Hand) -> None:
    watch = Stopwatch()
    watch.connecting()
    hand.ms += 80  # and nobody answers
    assert watch.read() == Timing(total_ms=pytest.approx(80))
    assert watch.ms() == pytest.approx(80)


# ---- what is kept of a real call ----


@pytest.mark.parametrize("lane", ["stream", "sync"])
def test_a_connection_is_made_once_and_told_apart(world: World, lane: str) -> None:
    async def test() -> None:
        async with process(world) as context:
            found = []
            for _ in range(3):
                claimed = claim(world, context, lane=lane)
                await all_of(context, claimed)
                found.append(attempt_of(world.job(claimed.job_id)))
        assert found[0]["connect_ms"] > 0
        assert [one["connect_ms"] for one in found[1:]] == [None, None], "it was used again"
        assert all(one["total_ms"] > 0 for one in found)

    run(test)


def test_every_time_of_a_stream_is_on_its_attempt(world: World) -> None:
    world.sandbox.faults([{"kind": "slow_first_token", "seconds": 0.2}])

    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context)
            await all_of(context, claimed)
            found = attempt_of(world.job(claimed.job_id))
            assert 200 <= found["first_token_ms"] <= found["total_ms"]
            assert found["chunks"] == 40
            assert 0 <= found["gap_ms"]["p50"] <= found["gap_ms"]["p95"] <= found["gap_ms"]["max"]
            seconds = (found["total_ms"] - found["first_token_ms"]) / 1000
            assert found["tokens_per_second"] == pytest.approx(40 / seconds, rel=0.01, abs=0.1)

    run(test)
