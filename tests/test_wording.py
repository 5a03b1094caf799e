"""What the wording of a prompt says about the length of its answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.chat import Request
from router.tokens import request_tokens
from router.wording import cap_of, output_tokens
from router.wording_cues import CUES, HEAD, LONG_TEXT, cues, parts, read
from router.wording_stated import STATED
from router.wording_weights import FILE, SHIPPED, Knot, Weights, parse

# Everyday prompts of this test, none of which was learned from.
SHORT = [
    "Is this message rude? Answer yes or no: You could have called.",
    "Decide whether the comment is about price or quality.\n\nTwo euros for a roll is too much.",
    "Classify the animal as mammal, bird or fish.\n\ndolphin",
    "Predict the category of the article.\n\nThe goalkeeper saved three penalties in the final.",
    "Choose the correct spelling: accomodate or accommodate",
    "Rate this answer from 1 to 10 and output only the number.\n\nThe sun is a star.",
    "Which label fits the sentence? Output question, order or statement.\n\nClose the door.",
    "Extract the name of the street from the address.\n\n12 Mill Lane, Dover",
    "Translate this phrase into Swedish.\n\nsee you tomorrow",
    "Translate to Greek: I would like a coffee.",
    "Rewrite the sentence without the passive voice.\n\nThe window was broken by a ball.",
    "Correct the mistakes in the sentence.\n\nYesterday I go to the market.",
    "Give me the past tense of the verb.\n\nswim",
    "Give a synonym for the word.\n\nsturdy",
    "Write a title for the poem below.\n\nGrey gulls over the harbour, and nobody awake.",
    "Fill in the missing word.\n\nHe drank a glass of ____.",
    "Replace the word in brackets by its opposite.\n\nThe soup was [hot].",
    "Summarize the note in one sentence.\n\nThe boiler broke again and the plumber comes on Friday.",
    "What is the capital of Kenya?",
    "In what year did the war end?",
]
LONG = [
    "Write an essay about the value of boredom.",
    "Explain how tides work and why there are two a day.",
    "How can I keep my basil alive during the winter?",
    "What are the main differences between a violin and a viola?",
    "Write a detailed blog post on repairing old chairs.",
    "Create a training plan for my first ten-kilometre run.",
    "Why do leaves change their colour in autumn?",
    "Develop a marketing strategy for a small bookshop.",
    "Suggest some ways to make meetings shorter and explain why they would help.",
    "Compare trains and planes for journeys within Europe.",
    "Imagine you live on the moon. Describe an ordinary day.",
    "What if the printing press had never been invented?",
    "How do I set up a reverse proxy with TLS on my own server?",
    "Write a story about two rivals who share an umbrella.",
    "Discuss the advantages and disadvantages of school uniforms.",
    "I want to learn to juggle. Where should I start and how much should I practise?",
    "Write a program that plays tic-tac-toe and never loses.",
    "What are some good recipes for a winter picnic?",
    "Describe the steps to renovate a wooden boat.",
    "Draft a lesson plan on the water cycle for ten-year-olds.",
]
BORDER = 100  # tokens; a coarse line, between what is short for a model and what is long


def ask(prompt: Any, **more: Any) -> Request:
    return Request(model="m", messages=[{"role": "user", "content": prompt}], **more)


def expected(request: Request) -> tuple[float, float]:
    return output_tokens(request, request_tokens(request))


def test_nearly_all_everyday_prompts_fall_on_their_side() -> None:
    wrong = [prompt for prompt in SHORT if expected(ask(prompt))[0] >= BORDER]
    wrong += [prompt for prompt in LONG if expected(ask(prompt))[0] < BORDER]
    assert len(wrong) <= 2, wrong


def test_every_short_prompt_comes_before_nearly_every_long_one() -> None:
    short, long = ([expected(ask(prompt))[0] for prompt in prompts] for prompts in (SHORT, LONG))
    pairs = [one < other for one in short for other in long]
    assert sum(pairs) / len(pairs) >= 0.98


def test_a_picture_without_a_word_has_a_length() -> None:
    assert 1 < expected(ask([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]))[0] < 1000


@given(st.text(max_size=3000).filter(str.strip), st.text(max_size=300))
def test_any_text_has_an_ordered_length_and_always_the_same(prompt: str, system: str) -> None:
    turns = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    request = Request(model="m", messages=turns)
    p50, p90 = expected(request)
    assert 1 <= p50 <= p90 < 10**8
    assert expected(request) == (p50, p90)


@given(
    st.lists(st.sampled_from([*(" ".join(sorted(STATED))).split(), "write", "300", "words", "\n\n", ":", "?", "list"]))
)
def test_any_mix_of_its_own_words_has_a_length(words: list[str]) -> None:
    p50, p90 = expected(ask(" ".join(words) or "x"))
    assert 1 <= p50 <= p90


@given(st.text(min_size=1, max_size=500), st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 4))
def test_a_lower_cap_never_promises_more(prompt: str, one: int, other: int, choices: int) -> None:
    low, high = sorted((one, other))
    capped = [expected(ask(prompt, max_tokens=cap, params={"n": choices})) for cap in (low, high)]
    free = expected(ask(prompt, params={"n": choices}))
    assert capped[0][0] <= capped[1][0] <= free[0]
    assert capped[0][1] <= capped[1][1] <= free[1]
    assert capped[0][1] <= (cap_of(ask(prompt, max_tokens=low, params={"n": choices})) or 0) == low * choices


def test_things_and_the_words_of_each_are_multiplied() -> None:
    assert expected(ask("Write 40 slogans of ten words each."))[0] == pytest.approx(40 * 13.5)
    assert expected(ask("Write 40 words about slogans."))[0] == pytest.approx(54)


def test_a_length_is_heard_after_the_text_as_well() -> None:
    story = "The ferry left without us, and we slept on the pier. " * 30
    assert expected(ask(f"Retell this.\n\n{story}\n\nAnswer in one sentence."))[0] == 32
    assert expected(ask(f"Retell this.\n\n{story} It was the capital of nothing."))[0] > 32


def test_a_long_text_to_be_rewritten_comes_back_as_long() -> None:
    story = "The ferry left without us, and we slept on the pier. " * 100
    request = ask(f"Translate the story into Dutch.\n\n{story}")
    sent = request_tokens(request)
    assert output_tokens(request, sent)[0] == sent > 1000


def test_the_system_may_hold_the_instruction() -> None:
    turns = [
        {"role": "system", "content": "Classify the ticket as billing, delivery or other. Output the category."},
        {"role": "user", "content": "My parcel came without its lid, and the box was wet. Who pays for that?"},
    ]
    alone = expected(Request(model="m", messages=turns[1:]))[0]
    assert expected(Request(model="m", messages=turns))[0] < alone / 2


def test_an_instruction_is_told_from_its_text() -> None:
    text = "A long report. " * 40
    assert parts("Name the tune.\n\nLa la.") == ("Name the tune.", "La la.")
    assert parts("Translate to Dutch: Good night") == ("Translate to Dutch", "Good night")
    assert parts("At 10:30 we meet") == ("At 10:30 we meet", "")
    head, rest = parts(f"{text}\n\nWho wrote this?")
    assert (head, rest.strip()) == ("Who wrote this?", text.strip())
    assert len(text) > LONG_TEXT > HEAD


@pytest.mark.parametrize(
    ("prompt", "cue"),
    [
        ("Please write a haiku about frost.", "asks line"),
        ("Given an event, write its title.", "asks unit"),
        ("How many ships sank?", "opens how many"),
        ("What if ships could fly?", "opens what if"),
        ("Are you a machine or a person?", "speaks to the model"),
        ("Could you kindly explain to me what a sextant is?", "opens request"),
        ("Pick one of the two coats.", "judges"),
        ("What is meant by “dead reckoning”?", "quotes"),
        ("What’s a sextant?", "opens what"),
    ],
)
def test_cues(prompt: str, cue: str) -> None:
    assert cue in cues(read(prompt))


@given(st.text(max_size=500))
def test_no_cue_is_unknown(prompt: str) -> None:
    assert cues(read(prompt)) <= CUES


def test_the_weights_are_small_data_about_cues_that_there_are() -> None:
    data = FILE.read_bytes()
    assert len(data) < 10_000
    assert set(json.loads(data)["cues"]) <= CUES
    assert parse(json.loads(data)) == SHIPPED


def test_the_curve_rises_and_goes_on_beyond_its_ends() -> None:
    curve = (Knot(0.0, 2.0, 1.0), Knot(1.0, 4.0, 0.5), Knot(3.0, 5.0, 0.4))
    weights = Weights(0.0, {}, (0.0, 0.0), curve)
    scores = [-4, -1, 0, 0.5, 1, 2, 3, 5]
    medians = [weights.at(score)[0] for score in scores]
    assert medians == sorted(medians)
    assert medians[0] == 1.0
    assert [round(weights.at(score)[1], 3) for score in scores] == [1.0, 1.0, 1.0, 0.75, 0.5, 0.45, 0.4, 0.4]
    shipped = [SHIPPED.at(score / 10)[0] for score in range(-20, 30)]
    assert shipped == sorted(shipped)
    assert shipped[0] < 30 < 300 < shipped[-1]
