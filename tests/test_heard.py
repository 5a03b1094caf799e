"""What was heard of an answer that nobody finished: every word of every choice, and never an end."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobs.chat import CallPiece, Choice, Delta
from jobs.heard import Heard


def heard(*deltas: Delta) -> tuple[Choice, ...]:
    so_far = Heard()
    for delta in deltas:
        so_far.add(delta)
    return so_far.choices()


def test_nothing_is_one_empty_choice() -> None:
    assert heard() == (Choice(),)


def test_the_words_are_joined_by_kind() -> None:
    found = heard(Delta(reasoning="Let me "), Delta("Hel"), Delta(reasoning="see."), Delta("lo", refusal="No"))
    assert found == (Choice("Hello", "No", "Let me see."),)


def test_choices_come_in_any_order_and_are_kept_in_theirs() -> None:
    assert heard(Delta("b", choice=1), Delta("a"), Delta("b", choice=1)) == (Choice("a"), Choice("bb"))


def test_no_choice_has_a_finish_reason() -> None:
    assert all(choice.finish_reason is None for choice in heard(Delta("a"), Delta("b", choice=1)))


def test_a_call_is_kept_raw_and_says_that_it_broke_off() -> None:
    first = CallPiece(1, "id-1", "look", '{"ci')
    (choice,) = heard(Delta(calls=(first, CallPiece(0, "id-0", "go"))), Delta(calls=(CallPiece(1, arguments='ty": '),)))
    assert [(call.id, call.name, call.raw) for call in choice.tool_calls] == [
        ("id-0", "go", ""),
        ("id-1", "look", '{"city": '),
    ]
    assert all(call.arguments is None and call.error for call in choice.tool_calls), "even where they parse"


def test_the_id_and_the_name_count_once() -> None:
    (choice,) = heard(*[Delta(calls=(CallPiece(0, "id", "look", "1"),))] * 2)
    assert [(call.id, call.name, call.raw) for call in choice.tool_calls] == [("id", "look", "11")]


texts = st.text(max_size=30)


@given(texts, texts, st.lists(st.integers(0, 30), max_size=6))
def test_how_it_was_cut_into_deltas_does_not_matter(text: str, refusal: str, cuts: list[int]) -> None:
    places = sorted({0, *cuts, 30})
    pieces = [Delta(text[a:b], refusal[a:b]) for a, b in pairwise(places)]
    assert heard(*pieces) == heard(Delta(text, refusal)) == (Choice(text, refusal),)


@given(st.lists(st.tuples(st.integers(0, 3), st.text(min_size=1, max_size=5)), max_size=20))
def test_no_choice_hears_of_another(said: list[tuple[int, str]]) -> None:
    found = heard(*(Delta(text, choice=choice) for choice, text in said))
    texts = ["".join(text for which, text in said if which == choice) for choice in sorted(dict(said))]
    assert [choice.text for choice in found if choice.text] == texts


def test_a_server_that_numbers_its_choices_oddly_costs_no_memory() -> None:
    found = heard(Delta("a", choice=20_000))
    assert "".join(choice.text for choice in found) == "a"
    assert len(found) < 100
