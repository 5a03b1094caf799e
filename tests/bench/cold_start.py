"""Cold start: what a command costs before it does anything, beside a bare Typer app and a bare import."""

import os
import tempfile
from pathlib import Path

from tests.bench.measure import PYTHON, median, paired, ratio, run, verdict

RUNS = 9

BARE = """
import typer

app = typer.Typer(help="A bare app.")


@app.command()
def one(name: str, count: int = 1) -> None:
    "Do one thing."


@app.command()
def two(name: str, count: int = 1) -> None:
    "Do another."


app()
"""


def main() -> bool:
    """`shunter --help` beside a bare two-command app, `report cost` beside `import sqlmodel`; CPU of processes."""
    shunter = str(Path(PYTHON).with_name("shunter"))
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        env = os.environ | {"HOME": folder, "SHUNTER_DATABASE_URL": f"sqlite:///{folder}/bench.db"}
        help_, app = paired(lambda: run([shunter, "--help"], env), lambda: run([PYTHON, str(bare), "--help"]), RUNS)
        report, imported = paired(
            lambda: run([shunter, "report", "cost"], env), lambda: run([PYTHON, "-c", "import sqlmodel"]), RUNS
        )
    print(f"cold start, medians of {RUNS}:")
    print(f"       --help {median(help_, 'cpu'):.3f} s, a bare app's {median(app, 'cpu'):.3f} s of CPU")
    print(f"       report cost {median(report, 'cpu'):.3f} s, import sqlmodel {median(imported, 'cpu'):.3f} s of CPU")
    held = verdict("shunter --help / a bare app's --help", ratio(help_, app, "cpu"), 1.5)
    return verdict("shunter report cost / import sqlmodel", ratio(report, imported, "cpu"), 1.3) and held


if __name__ == "__main__":
    raise SystemExit(not main())
