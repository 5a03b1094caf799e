"""Fit and judge the weights of expected answer length: `python -m tests.bench.train_lengths PROMPTS.jsonl [--write]`.

Learned from
- PROMPTS.jsonl, lines of `source`, `prompt` and `answer_tokens` by model: prompts of yizhongw/self-instruct (its seed
  and user-oriented tasks; Apache-2.0) and of tatsu-lab/alpaca_eval (repository Apache-2.0; the prompts' own sets have
  their own terms), with the lengths of published answers counted with o200k. No prompt is copied anywhere;
- everyday.tsv beside this file: prompts of our own with the length that we expect of a model's answer, so that words
  count that the others do not happen to hold. They are never judged on, and no part of the curve.

All that is printed is about prompts that neither score nor curve was fitted to: five folds, stratified by source and
by short or long, ten times. `--write` fits all of them and writes the weights file.
"""

import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from jobs.chat import Request
from router.tokens import request_tokens
from router.wording import output_tokens
from router.wording_weights import FILE, Weights
from tests.bench.fit_lengths import FOLDS, Row, fit, folded, given, own

REPEATS, RESAMPLES = 10, 2000
ABOUT = "Made by `python -m tests.bench.train_lengths`, which names its data; do not edit."

Quantiles = tuple[float, float]


def expected(one: Row, weights: Weights) -> Quantiles:
    """What a user would be told of the prompt, as the logarithms of both quantiles."""
    request = Request.from_body({"model": "m", "messages": [{"role": "user", "content": one.prompt}]})
    p50, p90 = output_tokens(request, request_tokens(request), weights)
    return math.log(p50), math.log(p90)


def held_out(rows: Sequence[Row], more: Sequence[Row], seed: int) -> list[Quantiles]:
    """The quantiles of each row, from weights of the folds that it is not in."""
    folds, found = folded(rows, seed), [(0.0, 0.0)] * len(rows)
    for fold in range(FOLDS):
        weights = fit([one for one, where in zip(rows, folds, strict=True) if where != fold], more, seed)
        for n, one in enumerate(rows):
            if folds[n] == fold:
                found[n] = expected(one, weights)
    return found


def wins(rows: Sequence[Row], runs: Sequence[Sequence[Quantiles]]) -> dict[str, list[list[float]]]:
    """By source, for each short prompt and each long one, in how many of the runs the short one came out shorter."""
    tables = {}
    for source in sorted({one.source for one in rows}):
        short = [n for n, one in enumerate(rows) if one.source == source and one.short]
        long = [n for n, one in enumerate(rows) if one.source == source and not one.short]
        if short and long:
            tables[source] = [[fmean(_wins(run[a][0], run[b][0]) for run in runs) for b in long] for a in short]
    return tables


def _wins(short: float, long: float) -> float:
    return 0.5 if short == long else float(short < long)


def auc(tables: dict[str, list[list[float]]]) -> dict[str, float]:
    """The AUC within each source that has both kinds."""
    return {source: fmean(fmean(line) for line in table) for source, table in tables.items()}


def interval(tables: dict[str, list[list[float]]]) -> tuple[float, float]:
    """The 0.025 and 0.975 quantiles of the mean AUC when the prompts of each source are drawn again."""
    chance, means = random.Random(1), []
    for _ in range(RESAMPLES):
        drawn = []
        for table in tables.values():
            columns = chance.choices(range(len(table[0])), k=len(table[0]))
            lines = chance.choices(table, k=len(table))
            drawn.append(fmean(fmean([line[n] for n in columns]) for line in lines))
        means.append(fmean(drawn))
    means.sort()
    return means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES)]


def coverage(rows: Sequence[Row], runs: Sequence[Sequence[Quantiles]], kind: str) -> tuple[float, float]:
    """The shares of answers at most p50 and p90: of `models`, of `all`, or each prompt's `median` answer."""
    below = [0, 0]
    total = 0
    for run in runs:
        for one, quantiles in zip(rows, run, strict=True):
            answers: Sequence[float] = one.logs
            if kind == "median":
                answers = [median(one.logs)]
            elif kind == "models":
                answers = [tokens for tokens, model in zip(one.logs, one.models, strict=True) if model]
            total += len(answers)
            for n, quantile in enumerate(quantiles):
                below[n] += sum(tokens <= quantile for tokens in answers)
    return below[0] / total, below[1] / total


def judge(rows: Sequence[Row], more: Sequence[Row], repeats: int = REPEATS) -> None:
    """Print all figures."""
    runs = [held_out(rows, more, seed) for seed in range(repeats)]
    tables = wins(rows, runs)
    print(f"{len(rows)} prompts, held out in {repeats} x {FOLDS} folds; {len(more)} of our own beside them")
    print("short or long, AUC within each source:")
    found = auc(tables)
    for source, value in found.items():
        print(f"  {source}: {value:.3f} ({len(tables[source])} short, {len(tables[source][0])} long)")
    low, high = interval(tables)
    print(f"  mean of the sources: {fmean(found.values()):.3f} (bootstrap {low:.3f} to {high:.3f})")
    print("answers at most p50 and p90:")
    for kind in ("models", "all", "median"):
        print("  {}: {:.3f} {:.3f}".format(kind, *coverage(rows, runs, kind)))
    by_source: dict[str, list[int]] = defaultdict(list)
    for n, one in enumerate(rows):
        by_source[one.source].append(n)
    for source, places in sorted(by_source.items()):
        some = [[run[n] for n in places] for run in runs]
        print("  {}, all: {:.3f} {:.3f}".format(source, *coverage([rows[n] for n in places], some, "all")))


def write(weights: Weights) -> None:
    """The weights as the file that is shipped."""
    data = {
        "about": ABOUT,
        "base": round(weights.base, 4),
        "measures": [round(value, 4) for value in weights.measures],
        "cues": {cue: round(value, 4) for cue, value in sorted(weights.cues.items())},
        "curve": [[round(at, 4), round(math.exp(middle), 1), round(spread, 4)] for at, middle, spread in weights.curve],
    }
    FILE.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def main(path: Path, *options: str) -> None:
    """Judge, and write where that is asked for."""
    rows, more = given(path), own()
    judge(rows, more)
    if "--write" in options:
        write(fit(rows, more))
        print(f"wrote {FILE.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
