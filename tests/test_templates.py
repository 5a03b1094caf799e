"""Answers of one template teach what the next one will be: kept while work goes on, used at the next decision."""

import asyncio
from os import environ
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import lengths, turnarounds
from db.engine import Store
from db.ids import new_id
from db.lengths import Sums
from jobs.chat import Request
from jobs.lengths import Lengths
from jobs.sandbox.server import Sandbox
from jobs.templates import template_of
from router import Router
from router.answers import Answers
from router.decided import Wish
from router.estimate import measure
from router.lengths import Seen
from router.settings import load
from router.vocabulary import Vocabularies
from tests.lanes import KEY, MODEL, NOW, World, rows

LONG = "You are given the words of a customer. Say in a friendly tone what we can do."


@pytest.fixture
def world(store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return World(store, sandbox, tmp_path)


def body(user: str, system: str | None = None, **more: Any) -> dict[str, Any]:
    turns = [{"role": "system", "content": system}] if system else []
    return {"model": MODEL, "messages": [*turns, {"role": "user", "content": user}], **more}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (body("My parcel is late.", LONG), body("Where is my refund?", LONG), True),
        (body("Classify the sentiment of this review: fine"), body("Classify the sentiment of this review: bad"), True),
        (body("Classify the sentiment of this review: fine"), body("Write an essay about the review: fine"), False),
        (body("My parcel is late.", LONG), body("My parcel is late.", f"{LONG} Use one word."), False),
        (body("hi", "Be brief."), body("ho", "Be brief."), False),  # it says too little to tell by itself
        (body("hi", LONG), body("hi", LONG, response_format={"type": "json_object"}), False),
        (body("hi"), body([{"type": "text", "text": "hi"}]), True),  # type: ignore[arg-type]
    ],
)
def test_what_is_one_template(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    assert (template_of(one) == template_of(other)) is same


@given(st.recursive(st.none() | st.text() | st.integers(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)))
def test_anything_a_message_may_hold_has_a_template(content: Any) -> None:
    assert template_of({"messages": [{"role": "user", "content": content}]})


def test_sums_wait_until_they_are_kept() -> None:
    made = Lengths()
    for tokens in (10, 20, 40):
        made.add(MODEL, body("hi", LONG), tokens)
    made.add(MODEL, body("hi", LONG, n=2), 40)  # two choices of 20 each
    seen = made.take()
    [sums] = seen.values()
    assert sums.answers == 4
    assert sums.logs == pytest.approx(Seen.of([10, 20, 40, 20]).logs)
    assert made.take() == {}
    made.give_back(seen)
    assert made.take() == seen


@pytest.mark.both
def test_sums_add_up_and_those_of_nobody_are_forgotten(store: Store) -> None:
    key = (MODEL, "t")
    for _ in range(3):
        lengths.add(store, {key: Sums(2, 1.5, 2.5), (MODEL, "once"): Sums(0, 0.0, 0.0)}, NOW)
    assert lengths.known(store, MODEL, "t") == Sums(6, 4.5, 7.5)
    assert lengths.all_known(store) == {key: Sums(6, 4.5, 7.5)}
    lengths.prune(store, NOW + lengths.SOON * 2)
    assert lengths.known(store, MODEL, "once") is None
    assert lengths.known(store, MODEL, "t") is not None


@pytest.mark.both
@pytest.mark.parametrize("lane", ["batch", "sync", "stream"])
def test_every_lane_teaches(world: World, lane: str) -> None:
    prompts = [f"Tell me about the town of {name} in a few words." for name in ("Ulm", "Bonn", "Trier", "Köln")]
    world.add(*prompts, lane=lane)
    world.work()
    found = rows(world.store, "SELECT answers, logs FROM length")
    assert [row[0] for row in found] == [4]
    tokens = [row[0] for row in rows(world.store, "SELECT output_tokens FROM attempt")]
    assert found[0][1] == pytest.approx(Seen.of(tokens).logs)


def test_the_next_decision_leans_on_it(store: Store) -> None:
    request = Request.from_body(body("Classify the sentiment of this review: fine", LONG))
    known = Answers(lambda: store)
    before = measure(request, known.of(request))
    made = Lengths()
    for tokens in (700, 800, 900) * 7:
        made.add(MODEL, request.body(), tokens)
    lengths.add(store, made.take(), NOW)
    for looked in (known, Answers(lambda: store)):
        after = measure(request, looked.of(request))
        assert before.output_p50 < 200 < 600 < after.output_p50 < after.output_p90 < 1500
        known.load()
    capped = request.model_copy(update={"max_tokens": 50})
    assert measure(capped, known.of(capped)).output_p90 <= 50


@pytest.mark.both
def test_the_providers_count_corrects_the_next_estimate(world: World) -> None:
    known = Answers(lambda: world.store)
    assert known.factor(MODEL) == 1.0
    world.add(*["Say it."] * 15, lane="sync")  # each was estimated at one token
    world.work()
    reported = rows(world.store, "SELECT sum(input_tokens) FROM attempt")[0][0]
    assert reported > 15 * 4
    assert known.factor(MODEL) == 1.0  # it has looked
    assert Answers(lambda: world.store).factor(MODEL) == pytest.approx(min((reported + 5) / (15 + 5), 4.0))


@pytest.mark.both
@pytest.mark.parametrize("vocabulary", [False, True])
def test_what_was_estimated_corrects_estimates_and_what_was_counted_counts(world: World, vocabulary: bool) -> None:
    mark = f"{turnarounds.COUNTED_WITH}o200k_base" if vocabulary else ""
    for number in range(15):
        world.add("Say it.", lane="sync", decision_id=f"decision-{number}{mark}")
    world.work()
    known = Answers(lambda: world.store)
    assert known.factor(MODEL, counted=vocabulary) > 2
    assert known.factor(MODEL, counted=not vocabulary) == 1.0


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_sent_costs_what_the_provider_counts(
    world: World, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    if alone:
        pytest.importorskip("rs_bpe", reason="rs-bpe has no wheels for this Python")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.sandbox.url}/v1")
    request = Request.from_body(body("Say it. " * 400, max_tokens=1))
    costs = []
    for _ in range(2):
        router = Router(load({**environ, "SHUNTER_DATABASE_URL": f"sqlite:///{world.store.path}"}))
        _, facts = router.routed(request, Wish(), NOW, group=None if alone else 1)
        mark = f"{turnarounds.COUNTED_WITH}{facts.counted.vocabulary}" if facts.counted else ""
        decision = router.decide(facts, NOW)
        costs.append(decision.cost_nano)
        asyncio.run(router.close())
        for _ in range(15):  # each was taken for one token
            world.add("Say it.", lane="sync", decision_id=f"{new_id(NOW)}{mark}")
        world.work()
    assert bool(mark) is alone
    assert costs[1] == pytest.approx(4 * costs[0], rel=0.05)
    count = Vocabularies().counting(MODEL) if alone else None
    assert decision.input_tokens == measure(request, count=count).input_tokens  # what the next correction rests on


def test_two_answers_are_too_few_to_tell(store: Store) -> None:
    request = Request.from_body(body("hi", LONG))
    made = Lengths()
    made.add(MODEL, request.body(), 700)
    made.add(MODEL, request.body(), 700)
    lengths.add(store, made.take(), NOW)
    assert Answers(lambda: store).of(request) is None
