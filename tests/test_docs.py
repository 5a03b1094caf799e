"""The README's commands and its program do what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.sandbox.server import Sandbox
from router import settings

README = Path(__file__).parent.parent.joinpath("README.md").read_text()
SHUNTER = Path(sys.executable).with_name("shunter")


def _env(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    provider = {"OPENAI_BASE_URL": f"{sandbox.url}/v1", "OPENAI_API_KEY": "sk-sandbox"}
    return os.environ | provider | {"SHUNTER_DATABASE_URL": f"sqlite:///{folder}/readme.db"}


def test_the_first_screen_has_the_two_commands() -> None:
    assert re.search(r"```\nmake demo\nmake test\n```", "\n".join(README.splitlines()[:12]))


def test_every_command_of_the_session_works(sandbox: Sandbox, tmp_path: Path) -> None:
    tmp_path.joinpath("prompts.jsonl").write_text('{"prompt": "Name a colour."}\n{"prompt": "Name a bird."}\n')
    session = README.split("export OPENAI_API_KEY")[1].split("```")[0]
    commands = re.findall(r"^shunter .*?(?=  +#|$)", session, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        done = subprocess.run(
            command.replace("shunter", str(SHUNTER), 1), shell=True, cwd=tmp_path, env=_env(sandbox, tmp_path),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)


def test_the_program_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    program = README.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=Path(__file__).parent.parent,
        env=_env(sandbox, tmp_path), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[sandbox]" in done.stdout


def test_every_setting_is_in_the_table() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", README, re.MULTILINE)
    named = {key for row in rows for key in re.findall(r"[a-z_]+", row)}
    assert named >= set(settings._KEYS)


@pytest.mark.parametrize("command", re.findall(r"^\| `shunter ([a-z]+)` \|", README, re.MULTILINE))
def test_every_command_has_help_with_what_the_table_says(command: str) -> None:
    done = subprocess.run(
        [SHUNTER, command, "--help"], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0
    said = re.search(rf"^\| `shunter {command}` \| (.*) \|", README, re.MULTILINE)
    assert said
    words = re.findall(r"`([a-z]+)`", said[1])
    assert all(word in done.stdout for word in words)
