"""Intake: 200,000 one-KB requests through `submit --file`, beside a bare standard-library loop over the same lines."""

import json
import os
import random
import tempfile
from pathlib import Path

from tests.bench.measure import PYTHON, median, paired, ratio, run, verdict

ROWS, RUNS = 200_000, 3

BARE = """
import json, sqlite3, sys

db = sqlite3.connect(sys.argv[2], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, key TEXT UNIQUE, model TEXT)")
db.execute("CREATE TABLE body (id INTEGER PRIMARY KEY, body TEXT)")


def write(rows):
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO job VALUES (?, ?, ?)", [(n, row["custom_id"], row["body"]["model"]) for n, row in rows])
    db.executemany("INSERT INTO body VALUES (?, ?)", [(n, json.dumps(row["body"])) for n, row in rows])
    db.execute("COMMIT")


rows = []
for n, line in enumerate(open(sys.argv[1], "rb")):
    rows.append((n, json.loads(line)))
    if len(rows) == 1000:
        write(rows)
        rows = []
write(rows)
"""

WORDS = (
    "the wagon waits beside a quiet siding until every signal on the line has been set and checked by someone who "
    "knows which freight must leave tonight and which of it can stand until the morning without any harm at all"
).split()


def make(path: Path, rows: int) -> None:
    """Batch API lines of about one KB, no two alike."""
    chance = random.Random(7)
    with path.open("w") as file:
        for n in range(rows):
            prompt = f"Summarize note {n} in two sentences: " + " ".join(chance.choices(WORDS, k=150))
            body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": prompt}], "max_tokens": 100}
            row = {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(row) + "\n")


def main(rows: int = ROWS) -> bool:
    """Rows a second and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        file, script = Path(folder) / "rows.jsonl", Path(folder) / "bare.py"
        make(file, rows)
        script.write_text(BARE)
        size = file.stat().st_size / rows

        def ours() -> list[str]:
            env["SHUNTER_DATABASE_URL"] = f"sqlite:///{fresh(folder, 'ours')}"
            return [str(Path(PYTHON).with_name("shunter")), "submit", "--file", str(file), "--json"]

        env = os.environ | {"HOME": folder, "OPENAI_API_KEY": "sk-none"}
        env.pop("OPENAI_BASE_URL", None)
        submits, bares = paired(
            lambda: run(ours(), env), lambda: run([PYTHON, str(script), str(file), fresh(folder, "bare")]), RUNS
        )
    print(f"intake of {rows:,} rows of {size:.0f} bytes, medians of {RUNS}:")
    for name, costs in (("submit --file", submits), ("a bare loop", bares)):
        wall, peak = median(costs, "wall"), median(costs, "peak_mb")
        print(f"       {name}: {rows / wall:,.0f} rows/s, {peak:.0f} MB")
    held = verdict("rows/s of submit / of the bare loop", ratio(bares, submits, "wall"), 0.25, at_least=True)
    return verdict("peak MB of submit", max(cost.peak_mb for cost in submits), 100) and held


def fresh(folder: str, name: str) -> str:
    """A database path where nothing is yet."""
    for old in Path(folder).glob(f"{name}.db*"):
        old.unlink()
    return f"{folder}/{name}.db"


if __name__ == "__main__":
    raise SystemExit(not main())
