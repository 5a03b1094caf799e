"""The script that fits the weights of expected answer length, on prompts of our own."""

import json
import random
from pathlib import Path

import pytest

from router.wording_cues import CUES
from router.wording_weights import FILE
from tests.bench import templates
from tests.bench.fit_lengths import Row, fit, folded, own, ridge, row, solve, unseen
from tests.bench.train_lengths import auc, coverage, held_out, interval, judge, wins


def rows(many: int = 150) -> list[Row]:
    """Everyday prompts in two sources; the answers of two models and a person scatter about what is expected."""
    chance, some = random.Random(5), own()
    chance.shuffle(some)
    made = []
    for n, one in enumerate(some[:many]):
        tokens = {name: 2.718 ** (one.logs[0] + chance.gauss(0, 0.3)) for name in ("a", "b", "reference")}
        made.append(row(f"source {n % 2}", one.prompt, tokens))
    return made


def test_a_symmetric_system_is_solved() -> None:
    assert solve([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 2.0]], [6.0, 10.0, 8.0]) == pytest.approx([1, 2, 3])


def test_ridge_finds_what_sets_short_answers_apart() -> None:
    base, weights = ridge(own())
    assert weights["asks unit"] < -0.1 < 0.1 < weights["says explain"]
    assert -1 < base < 1
    assert set(weights) <= CUES | {"#instruction", "#text"}


def test_folds_share_out_each_source_and_each_kind() -> None:
    given = rows()
    folds = folded(given, 1)
    for source, short in {(one.source, one.short) for one in given}:
        counts = [0] * 5
        for one, fold in zip(given, folds, strict=True):
            counts[fold] += (one.source, one.short) == (source, short)
        assert max(counts) - min(counts) <= 1
    assert folds == folded(given, 1) != folded(given, 2)


def test_the_same_rows_give_the_same_weights_whose_curve_rises() -> None:
    given, more = rows(), own()[:60]
    weights = fit(given, more)
    assert weights == fit(given, more)
    middles = [knot.middle for knot in weights.curve]
    assert middles == sorted(set(middles))
    assert all(knot.spread >= 0 for knot in weights.curve)


def test_a_row_is_never_scored_by_weights_that_saw_it() -> None:
    given = rows(80)
    at = next(n for n, one in enumerate(given) if one.short)
    folds, scores = folded(given, 3), unseen(given, [], 3)
    changed = [*given[:at], row(given[at].source, given[at].prompt, {"a": 49.0}), *given[at + 1 :]]
    again = unseen(changed, [], 3)
    same = [a == b for a, b, fold in zip(scores, again, folds, strict=True) if fold == folds[at]]
    assert all(same)
    assert scores != again


def test_judging_tells_short_from_long_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    given, more, before = rows(), own()[:60], FILE.read_bytes()
    runs = [held_out(given, more, 0)]
    tables = wins(given, runs)
    assert all(value > 0.75 for value in auc(tables).values())
    low, high = interval(tables)
    assert 0.6 < low < sum(auc(tables).values()) / 2 < high <= 1
    below = coverage(given, runs, "all")
    assert 0.3 < below[0] < 0.7 < below[1] < 1
    judge(given, more, repeats=1)
    said = capsys.readouterr().out
    assert "mean of the sources" in said
    assert "  median: " in said
    assert FILE.read_bytes() == before


def test_perfect_and_useless_orders_have_their_auc() -> None:
    given = rows(60)
    perfect = [[(one.logs[0] - 10 * one.short, 9.0) for one in given]]
    level = [[(1.0, 2.0)] * len(given)]
    assert set(auc(wins(given, perfect)).values()) == {1.0}
    assert set(auc(wins(given, level)).values()) == {0.5}


def test_answers_of_a_template_tell_the_next_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance, lines = random.Random(8), []
    for n, one in enumerate(own()[::4]):
        tokens = 2.718 ** one.logs[0] * 2.718 ** chance.gauss(0, 1)  # the wording says little of it
        answers = {name: tokens * 2.718 ** chance.gauss(0, 0.2) for name in "abcdef"}
        lines.append(json.dumps({"source": f"source {n % 2}", "prompt": f"{n} {one.prompt}", "answer_tokens": answers}))
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(lines))
    assert templates.main(file)
    alone, told = (
        line for line in capsys.readouterr().out.splitlines() if "mean of the sources: " in line and "(b" in line
    )
    before, after = (float(line.split(": ")[1].split()[0]) for line in (alone, told))
    assert before < 0.93 < 0.95 < after
