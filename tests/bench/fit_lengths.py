"""From prompts with real answer lengths to weights: a ridge regression on cues, and a curve. In plain Python.

The regression gives a score that sets short answers apart from long ones; the curve from a score to the median and the
0.9 quantile is read off prompts that the score was not fitted to. The same rows give the same weights on every run.
"""

import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from router.lengths import Z90
from router.wording_cues import cues, measures, read
from router.wording_weights import Knot, Weights

OWN = Path(__file__).with_name("everyday.tsv")
SHORT = 50  # tokens of the median answer
FOLDS = 5
RIDGE, RAREST = 12.0, 4  # the penalty; a cue of fewer prompts is left out
MIDDLE, SOFTNESS = math.log(60), 1.3  # the target: a soft step of the logarithm, steepest where short meets long
KNOTS, WIDTH = 9, 0.3  # of the curve; its window, in standard deviations of the score
EXPECTED = 0.3  # what one of our own expectations counts in the curve, where a real answer counts 1
LOW, HIGH = 0.03, 0.97  # the quantiles of the scores at which the curve begins and ends
RISE = 0.02  # of the median's logarithm from knot to knot, at least


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt with the logarithms of its answers' tokens, which of them are models', and its cues."""

    source: str
    prompt: str
    logs: tuple[float, ...]
    models: tuple[bool, ...]
    short: bool
    cues: dict[str, float]

    @property
    def target(self) -> float:
        return math.tanh((fmean(self.logs) - MIDDLE) / SOFTNESS)


def row(source: str, prompt: str, answers: dict[str, float]) -> Row:
    """A prompt and the tokens of its answers by model; `reference` is a person's."""
    models = tuple(name != "reference" for name in answers)
    reading = read(prompt.strip())
    found = dict.fromkeys(sorted(cues(reading)), 1.0)
    found["#instruction"], found["#text"] = measures(reading)
    return Row(
        source,
        prompt,
        tuple(math.log(max(tokens, 1)) for tokens in answers.values()),
        models,
        median(answers.values()) < SHORT,
        found,
    )


def given(path: Path) -> list[Row]:
    """The prompts of a file of real answers."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row(line["source"], line["prompt"], line["answer_tokens"]) for line in lines]


def own() -> list[Row]:
    """Our own prompts: tokens, a tab, the prompt with its lines folded."""
    lines = [line.split("\t", 1) for line in OWN.read_text(encoding="utf-8").splitlines()]
    return [row("own", prompt.replace("\\n", "\n"), {"expected": max(float(tokens), 2)}) for tokens, prompt in lines]


def ridge(rows: Sequence[Row]) -> tuple[float, dict[str, float]]:
    """The base and the weights that come nearest to the targets; the base is not penalised."""
    seen: dict[str, int] = defaultdict(int)
    for one in rows:
        for cue in one.cues:
            seen[cue] += 1
    names = sorted(cue for cue, count in seen.items() if count >= RAREST)
    means = [fmean(one.cues.get(name, 0.0) for one in rows) for name in names]
    middle = fmean(one.target for one in rows)
    place = {name: n for n, name in enumerate(names)}
    gram = [[0.0] * len(names) for _ in names]
    right = [0.0] * len(names)
    for one in rows:
        held = [(place[cue], value) for cue, value in one.cues.items() if cue in place and value]
        for i, value in held:
            right[i] += value * (one.target - middle)
            line = gram[i]
            for j, other in held:
                line[j] += value * other
    count = len(rows)
    for i, line in enumerate(gram):
        line[:] = [value - count * means[i] * mean for value, mean in zip(line, means, strict=True)]
        line[i] += RIDGE
    found = solve(gram, right)
    base = middle - math.fsum(weight * mean for weight, mean in zip(found, means, strict=True))
    return base, dict(zip(names, found, strict=True))


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """The solution of a symmetric positive system; both arguments are used up."""
    size = len(right)
    for i in range(size):
        pivot = matrix[i]
        for j in range(i + 1, size):
            factor = matrix[j][i] / pivot[i]
            if factor:
                matrix[j] = [a - factor * b for a, b in zip(matrix[j], pivot, strict=True)]
                right[j] -= factor * right[i]
    for i in reversed(range(size)):
        rest = sum(matrix[i][j] * right[j] for j in range(i + 1, size))
        right[i] = (right[i] - rest) / matrix[i][i]
    return right


def scorer(rows: Sequence[Row]) -> Callable[[Row], float]:
    """The score that is fitted to rows."""
    base, weights = ridge(rows)
    return lambda one: base + math.fsum(weights.get(cue, 0.0) * value for cue, value in one.cues.items())


def folded(rows: Sequence[Row], seed: int) -> list[int]:
    """The fold of each row, stratified by source and by short or long."""
    groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for n, one in enumerate(rows):
        groups[one.source, one.short].append(n)
    chance, folds, turn = random.Random(seed), [0] * len(rows), 0
    for key in sorted(groups):
        for n in chance.sample(groups[key], len(groups[key])):
            folds[n], turn = turn % FOLDS, turn + 1
    return folds


def unseen(rows: Sequence[Row], more: Sequence[Row], seed: int) -> list[float]:
    """The score of each row, from weights that were fitted without it."""
    folds, scores = folded(rows, seed), [0.0] * len(rows)
    for fold in range(FOLDS):
        score = scorer([*more, *(one for one, where in zip(rows, folds, strict=True) if where != fold)])
        for n, one in enumerate(rows):
            if folds[n] == fold:
                scores[n] = score(one)
    return scores


def curve(rows: Sequence[Row], scores: Sequence[float], more: Sequence[Row], others: Sequence[float]
          ) -> tuple[Knot, ...]:  # fmt: skip
    """Median and spread of the answers around some scores of real prompts, by a Gaussian window; medians rise."""
    answers = [(tokens, score, 1.0) for one, score in zip(rows, scores, strict=True) for tokens in one.logs]
    answers += [(one.logs[0], score, EXPECTED) for one, score in zip(more, others, strict=True)]
    answers.sort()
    order, mean = sorted(scores), fmean(scores)
    width = WIDTH * math.sqrt(fmean((score - mean) ** 2 for score in scores))
    knots: list[Knot] = []
    for n in range(KNOTS):
        at = order[round((LOW + (HIGH - LOW) * n / (KNOTS - 1)) * (len(order) - 1))]
        near = [count * math.exp(-0.5 * ((score - at) / width) ** 2) for _, score, count in answers]
        p50, p90 = (quantile(answers, near, share) for share in (0.5, 0.9))
        least = knots[-1].middle + RISE if knots else 0.0
        knots.append(Knot(at, max(p50, least), (p90 - p50) / Z90))
    return tuple(knots)


def quantile(answers: Sequence[tuple[float, float, float]], weights: Sequence[float], share: float) -> float:
    """The weighted quantile of answers in order."""
    wanted, passed = share * math.fsum(weights), 0.0
    for (tokens, _, _), weight in zip(answers, weights, strict=True):
        passed += weight
        if passed >= wanted:
            return tokens
    return answers[-1][0]


def fit(rows: Sequence[Row], more: Sequence[Row], seed: int = 0) -> Weights:
    """The weights of all rows, with the curve of scores that had not seen their row."""
    base, weights = ridge([*rows, *more])
    long_head, long_text = weights.pop("#instruction", 0.0), weights.pop("#text", 0.0)
    read_off = curve(rows, unseen(rows, more, seed), more, unseen(more, rows, seed))
    return Weights(base, weights, (long_head, long_text), read_off)
