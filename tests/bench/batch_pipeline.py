"""50,000 one-KB requests from a file to the ledger through the sandbox's Batch API, beside a bare loop.

The bare loop, of the standard library alone, ingests, shards and imports the same rows and keeps nothing for a crash.
It runs with the same sandbox, and without one, over the answers that the sandbox gave. The second is what ours is held
against, less the time in which the sandbox alone works and both would wait. From pack is what the batch's own row says,
from its packing to the end of its import: how long a process starts is shown beside it.
SHUNTER_BENCH_ROWS=500000 adds a run of so many rows, for its memory and for how the time grows.
"""

import json
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from tests.bench.intake import fresh, make
from tests.bench.many_streams import billed
from tests.bench.measure import PYTHON, Cost, run, verdict
from tests.bench.sandbox_speed import cpu_seconds, process
from tests.bench.streaming import SANDBOX

ROWS, RUNS = 50_000, 3
MANY = int(os.environ.get("SHUNTER_BENCH_ROWS", "0"))

BARE = """
import http.client, itertools, json, os, sqlite3, sys, time, urllib.parse, uuid

SHARD, PAGE = 50_000, 1000
file, path, where, *kept = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, key TEXT UNIQUE, model TEXT, state TEXT)")
db.execute("CREATE TABLE body (id INTEGER PRIMARY KEY, body TEXT)")
db.execute("CREATE TABLE result (id INTEGER PRIMARY KEY, text TEXT, input INTEGER, output INTEGER)")


def pages(rows):
    rows = iter(rows)
    while page := list(itertools.islice(rows, PAGE)):
        yield page


def write(statements):
    db.execute("BEGIN IMMEDIATE")
    for statement, values in statements:
        db.executemany(statement, values)
    db.execute("COMMIT")


def ingest():
    with open(file, "rb") as lines:
        for page in pages(enumerate(map(json.loads, lines))):
            jobs = [(n, row["custom_id"], row["body"]["model"], "queued") for n, row in page]
            bodies = [(n, json.dumps(row["body"])) for n, row in page]
            write([("INSERT INTO job VALUES (?, ?, ?, ?)", jobs), ("INSERT INTO body VALUES (?, ?)", bodies)])
    return len(jobs) and page[-1][0] + 1


def shard(first):
    name = f"{path}-{first}.jsonl"
    with open(name, "w") as out:
        rows = db.execute("SELECT id, body FROM body WHERE id >= ? AND id < ? ORDER BY id", (first, first + SHARD))
        for n, text in rows:
            body = json.loads(text)
            body["max_completion_tokens"] = body.pop("max_tokens")  # the older name is refused
            row = {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": body}
            out.write(json.dumps(row) + "\\n")
    return name


def results(lines):
    for page in pages(map(json.loads, lines)):
        rows = []
        for row in page:
            body = row["response"]["body"]
            usage, text = body["usage"], body["choices"][0]["message"]["content"]
            rows.append((int(row["custom_id"]), text, usage["prompt_tokens"], usage["completion_tokens"]))
        done = [(row[0],) for row in rows]
        write([("INSERT INTO result VALUES (?, ?, ?, ?)", rows), ("UPDATE job SET state = 'done' WHERE id = ?", done)])


def ask(method, path, body=None, kind="application/json"):
    server = http.client.HTTPConnection(urllib.parse.urlsplit(where).netloc)
    server.request(method, "/v1" + path, body, {"content-type": kind, "authorization": "Bearer sk-none"})
    return server.getresponse()


def upload(name):
    mark = uuid.uuid4().hex
    disposition = f'--{mark}\\r\\nContent-Disposition: form-data; name='
    head = f'{disposition}"purpose"\\r\\n\\r\\nbatch\\r\\n{disposition}"file"; filename="rows.jsonl"\\r\\n\\r\\n'
    with open(name, "rb") as content:
        body = head.encode() + content.read() + f"\\r\\n--{mark}--\\r\\n".encode()
    return json.load(ask("POST", "/files", body, f"multipart/form-data; boundary={mark}"))["id"]


def finished(file_id):
    wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch, began = json.load(ask("POST", "/batches", json.dumps(wanted))), time.monotonic()
    while batch["status"] != "completed":
        time.sleep(0.02)
        batch = json.load(ask("GET", f"/batches/{batch['id']}"))
    with open(path + ".waited", "w") as told:
        told.write(str(time.monotonic() - began))
    return keeping(ask("GET", f"/files/{batch['output_file_id']}/content"))


def keeping(lines):
    with open(kept[0] if kept else os.devnull, "ab") as out:
        for line in lines:
            out.write(line)
            yield line


def lying(first):
    with open(where, "rb") as lines:
        yield from itertools.islice(lines, first, first + SHARD)


rows = ingest()
for first in range(0, rows, SHARD):
    name = shard(first)
    results(finished(upload(name)) if "//" in where else lying(first))
assert db.execute("SELECT count(*) FROM result").fetchone() == (rows,)
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One run of each; `waited` are the seconds in which the sandbox alone worked."""

    submit: Cost
    work: Cost
    packed: float  # seconds from the packing of its batch to the end of its import
    bare: Cost
    alone: Cost
    waited: float
    served: float  # CPU seconds of the sandbox, for ours

    @property
    def seconds(self) -> dict[str, float]:
        """Of each way through, the sandbox's own time taken out."""
        work, submit = self.work.wall - self.waited, self.submit.wall
        return {"submit": submit, "pack": self.packed - self.waited, "work": work, "both": submit + work,
                "bare": self.bare.wall - self.waited, "alone": self.alone.wall}  # fmt: skip


class Track:
    """What is run over one file of requests."""

    def __init__(self, folder: str, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.file, self.script, self.answers = (Path(folder, name) for name in ("rows.jsonl", "bare.py", "answers"))
        make(self.file, rows)
        self.script.write_text(BARE)

    def round(self) -> Round:
        """All of them in turn, so that a drift of the machine meets all."""
        submit, work, packed, served = self.ours()
        bare, waited = self.bare()
        return Round(submit, work, packed, bare, self._bare(str(self.answers)), waited, served)

    def ours(self) -> tuple[Cost, Cost, float, float]:
        """Submit, one worker and its batches, and the sandbox, from an empty database; what came of it is checked."""
        database = fresh(self.folder, "ours")
        costs: list[Cost] = []

        def use(url: str) -> None:
            env = os.environ | {"HOME": self.folder, "OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": f"{url}/v1"}
            env |= {"SHUNTER_DATABASE_URL": f"sqlite:///{database}"}
            costs.append(run(shunter("submit", "--file", str(self.file)), env))
            costs.append(run(shunter("worker", "--once"), env))
            self._check(database, billed(url))

        seconds = served(use)
        return costs[0], costs[1], self._packed(database), seconds

    def _packed(self, database: str) -> float:
        with closing(sqlite3.connect(database)) as found:
            [[packed, imported]] = found.execute("SELECT min(packed_at), max(imported_at) FROM batch")
        return (datetime.fromisoformat(imported) - datetime.fromisoformat(packed)).total_seconds()

    def _check(self, database: str, bill: int) -> None:
        from db.engine import connect
        from tests.lanes import balanced, settled, states

        store = connect(f"sqlite:///{database}")
        try:
            balanced(store)
            assert states(store) == {"succeeded": self.rows}
            assert settled(store) == (bill, 0, 0), f"the ledger says {settled(store)}, the bill {bill}"
        finally:
            store.close()

    def bare(self) -> tuple[Cost, float]:
        """The bare loop with a sandbox, whose answers are kept, and how long it waited for them."""
        costs: list[Cost] = []
        self.answers.unlink(missing_ok=True)
        served(lambda url: costs.append(self._bare(url, str(self.answers))))
        return costs[0], float(Path(self.folder, "bare.db.waited").read_text())

    def _bare(self, where: str, *kept: str) -> Cost:
        return run([PYTHON, str(self.script), str(self.file), fresh(self.folder, "bare"), where, *kept])


def shunter(*arguments: str) -> list[str]:
    """A command of ours."""
    return [str(Path(PYTHON).with_name("shunter")), *arguments, "--json"]


def served(use: Callable[[str], None]) -> float:
    """Use a sandbox without delays, in a process of its own; the CPU seconds that it needed."""
    with process(SANDBOX, json.dumps({"batch_seconds": 0})) as (port, pid):
        before = cpu_seconds(pid)
        use(f"http://127.0.0.1:{port}")
        return cpu_seconds(pid) - before


def describe(rounds: list[Round]) -> None:
    """Print the medians."""
    alone, served = median(one.waited for one in rounds), median(one.served for one in rounds)
    print(f"       the sandbox works alone for {alone:.1f} s and needs {served:.1f} s of CPU in all")
    names = {
        "submit": "submit --file",
        "work": "worker --once",
        "bare": "the bare loop with the sandbox",
        "alone": "the bare loop over its answers",
    }
    wall = {name: median(getattr(one, name).wall for one in rounds) for name in names}
    for name, what in names.items():
        peak = max(getattr(one, name).peak_mb for one in rounds)
        print(f"       {what}: {wall[name]:.1f} s, {ROWS / wall[name]:,.0f} rows/s, {peak:.0f} MB")
    share = wall["bare"] / (wall["submit"] + wall["work"])
    print(f"       rows/s, all of it with the sandbox / of the bare loop with it: {share:.3g}")


def main() -> bool:
    """Rows a second and peak memory, then how both grow."""
    print(f"{ROWS:,} rows through a provider batch, medians of {RUNS}:")
    with tempfile.TemporaryDirectory() as folder:
        track = Track(folder, ROWS)
        track.round()
        rounds = [track.round() for _ in range(RUNS)]
    describe(rounds)
    times = [one.seconds for one in rounds]
    held = True
    started = median(one["alone"] / one["work"] for one in times)
    print(f"       rows/s from the start of the worker's process / of the bare loop: {started:.3g}")
    for name, begin, bound in (("both", "submit", 0.3), ("pack", "pack", 0.7)):
        share = median(one["alone"] / one[name] for one in times)
        held = verdict(f"rows/s from {begin} / of the bare loop", share, bound, at_least=True) and held
    peak = max(max(one.submit.peak_mb, one.work.peak_mb) for one in rounds)
    held = verdict("peak MB of submit and worker", peak, 100) and held
    return grows(median(one.submit.wall + one.work.wall for one in rounds)) and held if MANY else held


def grows(seconds: float) -> bool:
    """Many rows once: the same memory, and as much time as so many times the rows may take."""
    with tempfile.TemporaryDirectory() as folder:
        submit, work, _, _ = Track(folder, MANY).ours()
    print(f"       {MANY:,} rows:", end=" ")
    print(f"submit {submit.wall:.0f} s, {submit.peak_mb:.0f} MB; worker {work.wall:.0f} s, {work.peak_mb:.0f} MB")
    held = verdict("time a row / that of few rows", (submit.wall + work.wall) / seconds / (MANY / ROWS), 1.2)
    return verdict("peak MB of many rows", max(submit.peak_mb, work.peak_mb), 100) and held


if __name__ == "__main__":
    raise SystemExit(not main())
