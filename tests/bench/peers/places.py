"""An environment of its own for each peer, under build/, made once and made again when what it needs has changed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.sandbox_speed import ROOT

PLACES = ROOT / "build" / "peers"


class NotThere(Exception):
    """The peer cannot be had; the text is the first line that says why."""


def python(name: str, needs: tuple[str, ...], least: tuple[int, int]) -> Path:
    """The interpreter of a peer's environment, which is made if it is not there; NotThere says why it cannot be."""
    place = PLACES / name
    stamp, interpreter = place / ".needs", place / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == "\n".join(needs):
        return interpreter
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    base = host(least)
    if uv := shutil.which("uv"):
        _do(uv, "venv", "--quiet", "--python", base, str(place))
        _do(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(interpreter), *needs)
    else:
        _do(base, "-m", "venv", str(place))
        _do(str(interpreter), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *needs)
    stamp.write_text("\n".join(needs))
    return interpreter


def host(least: tuple[int, int]) -> str:
    """This Python, or where it is too old one on the PATH, or beside this one, where version managers keep them."""
    if sys.version_info >= least:
        return sys.executable
    names = [f"python{least[0]}.{minor}" for minor in range(least[1], least[1] + 4)]
    beside = [str(path) for path in sorted(Path(sys.base_prefix).resolve().parent.glob("*/bin/python3"))]
    for one in [*filter(None, map(shutil.which, names)), *beside]:
        if version(one) >= least:
            return one
    raise NotThere(f"it needs Python {least[0]}.{least[1]}, and none is here")


def version(interpreter: str) -> tuple[int, ...]:
    """Of a Python; (0,) if it does not run."""
    done = subprocess.run([interpreter, "-V"], capture_output=True, text=True, check=False)
    found = re.match(r"Python (\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found and not done.returncode else (0,)


def _do(*command: str) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()
        raise NotThere(next((line for line in said if "error" in line.lower()), said[0] if said else "no word of why"))
