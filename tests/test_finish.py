"""Finish times are learned from what was seen: calibrated, and not fooled by what was cut off."""

from datetime import UTC, datetime, timedelta
from math import exp
from pathlib import Path
from random import Random

import pytest

from db.engine import Store
from db.turnarounds import Call, Turnaround
from jobs.chat import Request
from jobs.sandbox.server import Sandbox
from router.decision import Facts
from router.estimate import Priors, Size, Spread
from router.finish import EFFECT, Finish, Lognormal, Turnarounds
from tests import lanes
from tests.lanes import KEY, MODEL, World

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PRIORS = Priors(Spread(1, 5), Spread(1 / 50, 1 / 10), Spread(2400, 43_200), {"2h": Spread(3600, 7200)})
SIZE = Size(1000, 100, 200)


def facts(**given: object) -> Facts:
    request = Request(model=MODEL, messages=[{"role": "user", "content": "Go."}])
    return Facts.of(request, SIZE, provider="openai", has_batch=True)._replace(**given)


def batch(
    seconds: float, *, rows: int = 100, began: datetime = NOW, done: bool = True, lost: bool = False
) -> Turnaround:
    return Turnaround("batch", None, "openai", MODEL, rows, began, seconds, done and not lost, lost)


def finish(*batches: Turnaround, calls: tuple[Call, ...] = (), concurrency: int = 16) -> Finish:
    made = Finish(PRIORS, concurrency, lambda: None)
    made.learn(batches, calls)
    return made


def test_before_there_is_a_history_the_priors_hold() -> None:
    times = finish().times(facts(), SIZE, NOW)
    assert times.live_s == Spread(1 + 100 / 50, 5 + 200 / 10)
    assert times.batch_s.p50 == pytest.approx(2400)
    assert times.batch_s.p95 >= 43_200
    assert times.batch_lost == pytest.approx(PRIORS.batch_lost)


@pytest.mark.parametrize("off", [0.5, 1.0, 2.0])
def test_what_is_predicted_with_095_comes_true_095_times(off: float) -> None:
    """Over many installations whose batches take other times than the prior says."""
    chance, met = Random(7), {0: 0, 3: 0, 20: 0, 100: 0}
    for _ in range(400):
        middle, spread = 2400 * off, 1.2
        draws = [middle * exp(chance.gauss(0, spread)) for _ in range(101)]
        for number in met:
            predicted = finish(*map(batch, draws[:number])).times(facts(), SIZE, NOW).batch_s
            met[number] += draws[100] <= predicted.p95
    assert met[20] / 400 == pytest.approx(0.95, abs=0.04)
    assert met[100] / 400 == pytest.approx(0.95, abs=0.03)
    assert met[3] / 400 > 0.9


def test_a_hundred_quick_batches_outweigh_a_slow_prior() -> None:
    quick = [batch(300 * exp(Random(n).gauss(0, 0.3))) for n in range(100)]
    times = finish(*quick).times(facts(), SIZE, NOW)
    assert times.batch_s.p50 == pytest.approx(300, rel=0.25)
    assert times.batch_s.p95 < 1500


def test_batches_that_were_called_off_count_as_slow_ones() -> None:
    """Half took an hour; the others were left after half an hour: without them an hour would look like the slow end."""
    done = [batch(3600 * exp(Random(n).gauss(0, 0.1))) for n in range(30)]
    left = [batch(1800, done=False) for _ in range(30)]
    with_left, without = (finish(*seen).times(facts(), SIZE, NOW).batch_s for seen in (done + left, done))
    assert with_left.p50 >= without.p50 * 0.9
    late = [batch(20_000, done=False) for _ in range(30)]
    assert finish(*done, *late).times(facts(), SIZE, NOW).batch_s.p95 > 20_000


def test_a_batch_that_is_still_open_says_that_it_takes_longer() -> None:
    seen = Lognormal.of(Spread(100, 200)).after([(1000.0, False)] * 5)
    assert seen.predicted().p50 > Lognormal.of(Spread(100, 200)).after([(100.0, True)] * 5).predicted().p50 * 3


def test_size_and_hour_have_their_own_effects() -> None:
    night = NOW.replace(hour=2)
    seen = [batch(1000 * exp(Random(n).gauss(0, 0.2)), rows=50) for n in range(40)]
    seen += [batch(8000 * exp(Random(n).gauss(0, 0.2)), rows=20_000) for n in range(40)]
    seen += [batch(250 * exp(Random(n).gauss(0, 0.2)), rows=50, began=night) for n in range(40)]
    known = finish(*seen)
    small, large = (known.times(facts(group=rows), SIZE, NOW).batch_s.p50 for rows in (50, 20_000))
    at_night = known.times(facts(group=50), SIZE, night).batch_s.p50
    assert large > 3 * small
    assert at_night < small / 1.5


def test_one_odd_batch_says_little_of_its_hour() -> None:
    seen = [batch(1000.0)] * 50 + [batch(50_000.0, began=NOW.replace(hour=3))]
    known = Turnarounds.of(PRIORS.batch_s, 0.02, seen)
    assert known.hours[0] < 4 / (1 + EFFECT) * 1.2


def test_the_share_of_lost_batches_is_learned() -> None:
    seen = [batch(1000.0)] * 60 + [batch(86_400.0, lost=True)] * 20
    times = finish(*seen).times(facts(), SIZE, NOW)
    assert times.batch_lost == pytest.approx((20 * 0.02 + 20) / 100)


def test_another_models_batches_are_believed_until_it_has_its_own() -> None:
    other = [batch(300.0)._replace(model="another") for _ in range(40)]
    known = finish(*other)
    assert known.times(facts(), SIZE, NOW).batch_s.p50 < 600
    own = finish(*other, *[batch(6000.0)] * 20)
    assert own.times(facts(), SIZE, NOW).batch_s.p50 > 3000


def test_live_calls_are_as_slow_as_they_were() -> None:
    call = Call("openai", MODEL, "default", 1000, 100, total_ms=30_000)  # ten times the prior's 3 s
    times = finish(calls=(call,) * 50).times(facts(), SIZE, NOW)
    assert times.live_s.p50 == pytest.approx(30, rel=0.2)
    assert times.flex_s.p50 == pytest.approx(60, rel=0.2)  # nothing is known of flex but that it is slower
    flex = call._replace(tier="flex", total_ms=90_000)
    assert finish(calls=(call, flex) * 50).times(facts(), SIZE, NOW).flex_s.p50 == pytest.approx(90, rel=0.2)


def test_a_large_group_waits_for_itself() -> None:
    alone, many = (finish(concurrency=10).times(facts(group=rows), SIZE, NOW) for rows in (1, 1001))
    assert alone.queue_s == 0
    assert many.queue_s == pytest.approx(100 * 3)


@pytest.fixture
def world(store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return World(store, sandbox, tmp_path)


@pytest.mark.both
def test_what_the_database_saw(world: World) -> None:
    world.add("a", "b")
    world.add("c", lane="sync")
    world.work()
    store: Store = world.store
    made = Finish(PRIORS, 16, lambda: store)
    times = made.times(facts(), SIZE, world.clock.now())
    assert times.batch_s.p50 < PRIORS.batch_s.p50  # the sandbox's took a moment
    assert times.live_s.p50 < PRIORS.live_s(SIZE).p50
    lanes.add(store, *(lanes.job(str(n), lane="sync", decision_id="later") for n in range(32)))
    assert made.times(facts(), SIZE, world.clock.now()).queue_s == 0  # it looked a moment ago
    assert made.times(facts(), SIZE, world.clock.now() + timedelta(minutes=2)).queue_s > 0
