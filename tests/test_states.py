"""The words for where things stand."""

from db.states import FINAL, MOVES, JobState


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(JobState)
    assert all(state not in after for state, after in MOVES.items())


def test_an_answer_is_for_ever() -> None:
    assert MOVES[JobState.SUCCEEDED] == frozenset()


def test_only_a_person_brings_back_an_ended_job() -> None:
    assert {after for state in FINAL for after in MOVES[state]} == {JobState.QUEUED, JobState.SUBMITTED}


def test_from_every_open_state_there_is_a_way_to_an_end() -> None:
    for state in set(JobState) - FINAL:
        assert FINAL & MOVES[state] or any(FINAL & MOVES[after] for after in MOVES[state])
