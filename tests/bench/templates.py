"""How well earlier answers of a template tell the next one: `python -m tests.bench.templates PROMPTS.jsonl`.

There is no public set of real programs' requests with many answers of one template by one model. What comes nearest are
prompts that six models answered (`tests.bench.train_lengths` names them): each prompt is taken for a template, five
models' answers are the earlier ones, and the sixth model's is to be foretold. Models differ more than the answers of
one do, and five are fewer than twenty; but a program's requests differ in their input, and these do not. So it is no
proof for templates in general, and the nearest to one that real answers allow.

Everything goes through what a worker and a router do: the template's hash, the sums in the database, the wording's
prior from weights that had not seen the prompt, and what is made of both.
"""

import json
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

from db import lengths, migrations
from db.engine import Store, connect
from jobs.chat import Request
from jobs.lengths import Lengths
from jobs.templates import template_of
from router.lengths import Seen
from router.tokens import request_tokens
from router.wording import output_tokens
from router.wording_weights import Weights
from tests.bench.fit_lengths import FOLDS, SHORT, Row, fit, folded, given, own
from tests.bench.measure import verdict
from tests.bench.train_lengths import Quantiles, auc, interval, wins

NOW = datetime(2026, 11, 22, tzinfo=UTC)
LEAST = 0.95  # AUC


def main(path: Path) -> bool:
    """Both figures, each with what the wording alone says of the same answers."""
    rows = [one for one in given(path) if sum(one.models) > 1]
    names = _names(path)
    folds = folded(rows, 0)
    with TemporaryDirectory() as folder:
        store = connect(f"sqlite:///{folder}/lengths.db")
        migrations.migrate(store)
        found = [_foretold(store, one, weights, names) for weights, one in _held_out(rows, folds)]
        store.close()
    print(f"{len(rows)} prompts that {len(names)} models answered; the others' answers are seen, one is foretold")
    _judge("from the wording alone", rows, [one[0] for one in found], names)
    reached = _judge("after the others' answers", rows, [one[1] for one in found], names)
    return verdict("AUC after them, mean of the sources", reached, LEAST, at_least=True)


def _names(path: Path) -> list[str]:
    """The models that answered."""
    lines = [json.loads(line)["answer_tokens"] for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted({name for line in lines for name in line} - {"reference"})


def _held_out(rows: Sequence[Row], folds: Sequence[int]) -> list[tuple[Weights, Row]]:
    """Each prompt with weights that had not seen it."""
    more = own()
    of = [fit([one for one, where in zip(rows, folds, strict=True) if where != fold], more) for fold in range(FOLDS)]
    return [(of[fold], one) for one, fold in zip(rows, folds, strict=True)]


def _foretold(
    store: Store, one: Row, weights: Weights, names: Sequence[str]
) -> tuple[list[Quantiles], list[Quantiles]]:
    """What is said of each model's answer: from the wording alone, and after those of the others."""
    body = {"model": "m", "messages": [{"role": "user", "content": one.prompt}]}
    request = Request.from_body(body)
    sent = request_tokens(request)
    alone, told = [], []
    answers = _answers(one)
    for n in range(len(answers)):
        others = Lengths()
        for tokens in answers[:n] + answers[n + 1 :]:
            others.add(names[n], body, round(tokens))
        lengths.add(store, others.take(), NOW)
        sums = lengths.known(store, names[n], template_of(body))
        assert sums is not None
        alone.append(_logs(output_tokens(request, sent, weights)))
        told.append(_logs(output_tokens(request, sent, weights, Seen(*sums))))
    return alone, told


def _answers(one: Row) -> list[float]:
    """The tokens of each model's answer, in the order of the file."""
    return [math.exp(tokens) for tokens, model in zip(one.logs, one.models, strict=True) if model]


def _logs(quantiles: tuple[float, float]) -> Quantiles:
    return math.log(quantiles[0]), math.log(quantiles[1])


def _judge(name: str, rows: Sequence[Row], found: Sequence[Sequence[Quantiles]], names: Sequence[str]) -> float:
    runs = [[one[n] for one in found] for n in range(len(names))]
    tables = wins(rows, runs)
    values = auc(tables)
    low, high = interval(tables)
    print(f"{name}: short or long (the median answer is under {SHORT} tokens), AUC within each source:")
    for source, value in values.items():
        print(f"  {source}: {value:.3f} ({len(tables[source])} short, {len(tables[source][0])} long)")
    print(f"  mean of the sources: {fmean(values.values()):.3f} (bootstrap {low:.3f} to {high:.3f})")
    below = [
        fmean(math.log(tokens) <= said[n][place] for one, said in zip(rows, found, strict=True)
              for n, tokens in enumerate(_answers(one)))
        for place in (0, 1)
    ]  # fmt: skip
    print(f"  answers at most p50 and p90: {below[0]:.3f} {below[1]:.3f}")
    off = median(abs(math.log(tokens) - said[n][0]) for one, said in zip(rows, found, strict=True)
                 for n, tokens in enumerate(_answers(one)))  # fmt: skip
    print(f"  half of the answers are within a factor of {math.exp(off):.2f} of the median that was foretold")
    return fmean(values.values())


if __name__ == "__main__":
    raise SystemExit(not main(Path(sys.argv[1])))
