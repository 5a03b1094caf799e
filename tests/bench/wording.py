"""Expected answer length: microseconds a request, in bulk, beside making the request object of its words."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from jobs.chat import Request
from router.tokens import request_tokens
from router.wording import output_tokens
from tests.bench.fit_lengths import own
from tests.bench.intake import WORDS
from tests.bench.measure import verdict

ROWS, CHUNK, RUNS = 5000, 100, 25
LONG = " ".join(WORDS * 4)


def prompts() -> list[str]:
    """Our own everyday prompts, half of them with a text of about one KB under them, no two alike."""
    asked = [one.prompt for one in own()]
    return [
        f"{asked[n % len(asked)]}\n\nNote {n}: {LONG}" if n % 2 else f"{asked[n % len(asked)]} ({n})"
        for n in range(ROWS)
    ]


def make(prompt: str) -> Request:
    return Request(model="m", messages=[{"role": "user", "content": prompt}])


def best(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Microseconds an item, by the best of the runs of each chunk: other processes have the machine in between."""
    whole = 0.0
    for start in range(0, len(items), CHUNK):
        chunk, times = items[start : start + CHUNK], []
        for _ in range(RUNS):
            before = time.perf_counter()
            for item in chunk:
                work(item)
            times.append(time.perf_counter() - before)
        whole += min(times)
    return whole / len(items) * 1e6


def main() -> bool:
    """Both in one process."""
    texts = prompts()
    requests = [(request, request_tokens(request)) for request in map(make, texts)]
    ours, making = best(lambda pair: output_tokens(*pair), requests), best(make, texts)
    print(f"expected length of {ROWS:,} prompts, the best of {RUNS} runs: {ours:.1f} µs, to make one {making:.1f} µs")
    held = verdict("µs a row", ours, 15)
    return verdict("expected length / making the request", ours / making, 4) and held


if __name__ == "__main__":
    raise SystemExit(not main())
