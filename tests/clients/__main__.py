"""Run every client's driver before a gateway of its own: `python -m tests.clients [NAME …]`."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs import worker
from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxSettings
from router.dispatch import Router
from router.settings import Settings
from tests.bench.peers.places import PLACES, NotThere, python
from tests.bench.sandbox_speed import ROOT
from tests.gateways import TOKEN, serving, settings_for

DRIVERS = Path(__file__).parent / "drivers"
NEEDS = {
    "openai": ("openai",),
    "llm": ("llm",),
    "langchain": ("langchain-openai",),
    "litellm": ("litellm", "mcp"),  # which its tools import
    "schemathesis": ("schemathesis",),
}
NODE_NEEDS = ("openai", "ai", "@ai-sdk/openai-compatible", "zod")
LONGEST_S = 300


def node() -> list[str]:
    """The command for Node's clients, whose packages are installed once; NotThere says why it cannot be."""
    place, npm, found = PLACES / "client-node", shutil.which("npm"), shutil.which("node")
    if npm is None or found is None:
        raise NotThere("it needs node and npm, and they are not here")
    if not (place / "node_modules" / "ai").is_dir():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true, "type": "module"}')
        done = subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", *NODE_NEEDS], cwd=place,
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            raise NotThere(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "npm failed")
    shutil.copy(DRIVERS / "with_node.mjs", place)  # modules are looked for beside the file that imports them
    return [found, str(place / "with_node.mjs")]


def of_python(name: str) -> Callable[[], list[str]]:
    """The command for a client in Python."""
    return lambda: [str(python(f"client-{name}", NEEDS[name], (3, 11))), str(DRIVERS / f"with_{name}.py")]


CLIENTS: dict[str, Callable[[], list[str]]] = {**{name: of_python(name) for name in NEEDS}, "node": node}


@contextlib.contextmanager
def working(settings: Settings) -> Iterator[None]:
    """A worker beside the gateway until the end of the block."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.2):
            asyncio.run(_once(Router(settings)))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def _once(router: Router) -> None:
    told = worker.Told(trouble=lambda said: print(f"       worker: {said}"), note=lambda said: None)
    await worker.once(router.context(), told, asyncio.Event())
    await router.close()


def run(name: str) -> bool:
    """One client's driver to its end; whether all of it held."""
    try:
        command = CLIENTS[name]()
    except NotThere as error:
        print(f"  MISS {name}: {error}")
        return False
    with tempfile.TemporaryDirectory() as folder, running(SandboxSettings(batch_seconds=0.1)) as sandbox:
        settings = settings_for(sandbox.url, Path(folder), has_batch={"openai": False})
        with serving(settings) as gateway, working(settings):
            env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
            env |= {"OPENAI_BASE_URL": f"{gateway.url}/v1", "OPENAI_API_KEY": TOKEN, "MODEL": "gpt-6-luna"}
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False,
                                  timeout=LONGEST_S)  # fmt: skip
    held = ", ".join(done.stdout.split("\n")).strip(", ")
    print(f"  {'ok  ' if done.returncode == 0 else 'MISS'} {name}: {held}")
    if done.returncode:
        print("\n".join(f"       {line}" for line in done.stderr.strip().splitlines()[-12:]))
    return done.returncode == 0


def main() -> int:
    """The exit code: 1 when a client is not served."""
    os.environ.setdefault("OPENAI_API_KEY", "sk-test")
    os.chdir(ROOT)
    held = [run(name) for name in sys.argv[1:] or CLIENTS]
    return int(not all(held))


if __name__ == "__main__":
    raise SystemExit(main())
