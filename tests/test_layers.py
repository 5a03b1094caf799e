"""Who may import whom, what `__init__` files hold, and what the command line does not load."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("router", "jobs", "db")
HEAVY = {"openai", "anthropic", "genai_prices", "fastapi", "uvicorn", "sqlalchemy", "sqlmodel", "pydantic", "rich",
         "rs_bpe"}  # fmt: skip
DEFERRED = {"openai", "anthropic", "genai_prices", "fastapi", "uvicorn", "dbos", "rs_bpe"}


def files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_the_import_rules() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_init_files_hold_a_docstring_and_no_work() -> None:
    for path in files():
        if path.name != "__init__.py" or path.parts[-2:] in (("router", "__init__.py"), ("providers", "__init__.py")):
            continue  # the lazy Router; the two protocols
        assert re.fullmatch(r'"""[^"]+"""\n', path.read_text(encoding="utf-8")), path


def test_every_file_says_what_it_is_for() -> None:
    assert [path for path in files() if not path.read_text(encoding="utf-8").startswith('"""')] == []


def test_no_file_is_longer_than_three_hundred_lines() -> None:
    long = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert {name: count for name, count in long.items() if count > 300} == {}


def loaded(code: str) -> set[str]:
    """The top names of what a fresh interpreter has loaded after some code."""
    code = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "never"),
    [
        ("import router.cli.app", HEAVY),
        ("import router", HEAVY),
        ("import jobs.worker, jobs.runner, jobs.batch, jobs.packing", DEFERRED),
        ("import router.working, jobs.fleet", DEFERRED),
        ("from router import Router", DEFERRED),
        ("import db.lookup, db.queue", DEFERRED | {"pydantic_settings", "httpx2"}),
    ],
)
def test_nothing_is_loaded_before_it_is_needed(code: str, never: set[str]) -> None:
    assert loaded(code) & never == set()
