"""All benchmarks: `python -m tests.bench`, or some of them: `python -m tests.bench cold_start intake`."""

import sys
from importlib import import_module

ALL = ("cold_start", "wording", "intake", "batch_pipeline", "reports", "busy_reports", "pricing", "live_bulk",
       "sandbox_speed", "many_streams", "streaming")  # fmt: skip

if __name__ == "__main__":
    names = sys.argv[1:] or ALL
    results = {name: import_module(f"tests.bench.{name}").main() for name in names}
    missed = [name for name, held in results.items() if held is False]
    print(f"missed: {', '.join(missed)}" if missed else "every figure holds")
    raise SystemExit(bool(missed))
