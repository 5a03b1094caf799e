"""The learned weights: from the cues of a prompt to the distribution of its answer's length. Pure once loaded.

`python -m tests.bench.train_lengths DATA` made `wording.json` and says what it was fitted to. The score of a prompt is
a sum; the curve says which median and which spread prompts of that score had.
"""

import json
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, log
from pathlib import Path
from typing import Any, NamedTuple

from router.wording_cues import CUES, Reading, cues, measures

FILE = Path(__file__).with_name("wording.json")


class Knot(NamedTuple):
    """Prompts of a score: the logarithm of the tokens of their answers, its median and its spread."""

    score: float
    middle: float
    spread: float


class Piece(NamedTuple):
    """The line from a knot to the next: what each of the two begins with, and how much it rises with the score."""

    start: float
    middle: float
    rise: float
    spread: float
    widening: float


@dataclass(frozen=True, slots=True)
class Weights:
    """What each cue weighs, and each of the two measures; the curve has rising scores and medians."""

    base: float
    cues: Mapping[str, float]
    measures: tuple[float, float]
    curve: tuple[Knot, ...]
    _inner: tuple[float, ...] = field(init=False)  # the scores between the pieces
    _pieces: tuple[Piece, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cues", dict.fromkeys(CUES, 0.0) | dict(self.cues))
        object.__setattr__(self, "_inner", tuple(knot.score for knot in self.curve[1:-1]))
        object.__setattr__(self, "_pieces", tuple(_piece(*pair) for pair in pairwise(self.curve)))

    def expect(self, reading: Reading) -> tuple[float, float]:
        """The median of the answer's tokens, at least 1, and the spread of its logarithm."""
        return self.at(self.score(reading))

    def score(self, reading: Reading) -> float:
        """The higher, the longer the answer."""
        (head, text), (by_head, by_text) = measures(reading), self.measures
        return self.base + sum(map(self.cues.__getitem__, cues(reading))) + by_head * head + by_text * text

    def at(self, score: float) -> tuple[float, float]:
        """The curve at a score: straight lines between its knots, the median's also beyond the last two."""
        start, middle, rise, spread, widening = self._pieces[bisect(self._inner, score)]
        first, last = self.curve[0].score, self.curve[-1].score
        inside = first if score < first else last if score > last else score
        p50 = exp(middle + rise * (score - start))
        return p50 if p50 > 1.0 else 1.0, spread + widening * (inside - start)


def _piece(low: Knot, high: Knot) -> Piece:
    step = high.score - low.score
    return Piece(
        low.score, low.middle, (high.middle - low.middle) / step, low.spread, (high.spread - low.spread) / step
    )


def parse(data: Mapping[str, Any]) -> Weights:
    """Weights from their JSON, whose curve has tokens where a knot has logarithms."""
    curve = tuple(Knot(score, log(p50), spread) for score, p50, spread in data["curve"])
    long_head, long_text = data["measures"]
    return Weights(data["base"], data["cues"], (long_head, long_text), curve)


SHIPPED = parse(json.loads(FILE.read_text(encoding="utf-8")))
