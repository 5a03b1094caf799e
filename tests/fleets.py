"""Workers as their users run them: processes of their own on one database, until they are told to stop."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lanes import KEY, World, rows

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60.0  # a busy machine takes its time; what is waited for is an event


@dataclass
class Running:
    """A worker."""

    process: "subprocess.Popen[str]"
    said: Path

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, then how it ended."""
        self.send(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    @property
    def words(self) -> str:
        """What it has said so far."""
        return self.said.read_text()

    def names(self) -> list[str]:
        """Its names in leases: one, and one more for each time that it began anew."""
        return re.findall(r"^worker (\S+) (?:runs|begins anew)", self.words, re.MULTILINE)


class Fleet:
    """The workers of one world; `settings` are those of SHUNTER_, in small letters."""

    def __init__(self, world: World, url: str, **settings: object) -> None:
        self._world, self._url = world, url
        usual = {"poll_seconds": 1, "dead_seconds": 60, "lease_seconds": 60, "grace_seconds": 5, "concurrency": 4}
        self._settings = usual | settings
        self.started: list[Running] = []

    def start(self, *words: str) -> Running:
        """A worker that has begun to work."""
        sandbox = self._world.sandbox.url
        settings = {f"SHUNTER_{key.upper()}": str(value) for key, value in self._settings.items()}
        providers = {"OPENAI_BASE_URL": f"{sandbox}/v1", "OPENAI_API_KEY": KEY, "ANTHROPIC_BASE_URL": sandbox,
                     "ANTHROPIC_API_KEY": KEY, "SHUNTER_DATABASE_URL": self._url}  # fmt: skip
        said = self._world.folder / f"worker-{len(self.started)}.txt"
        with said.open("w") as out:
            process = subprocess.Popen([sys.executable, "-m", "router", "worker", *words], cwd=ROOT, text=True,
                                       env=os.environ | providers | settings, stdout=out, stderr=out)  # fmt: skip
        one = Running(process, said)
        self.started.append(one)
        until(lambda: "Ctrl-C ends it" in one.words or process.poll() is not None, one)
        return one


@contextmanager
def fleet(world: World, url: str, **settings: object) -> Iterator[Fleet]:
    """Workers that are gone when the block ends."""
    made = Fleet(world, url, **settings)
    try:
        yield made
    finally:
        for one in made.started:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()


def until(is_so: Callable[[], bool], *workers: Running) -> None:
    """Wait for it; what the workers said when it does not come."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, [one.words for one in workers]
        time.sleep(0.05)


def leases(world: World) -> set[str]:
    """Who holds jobs or batches."""
    held = [rows(world.store, f"SELECT lease_by FROM {table} WHERE lease_by IS NOT NULL") for table in ("job", "batch")]
    return {row[0] for some in held for row in some}
