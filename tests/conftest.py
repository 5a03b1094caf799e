"""What every test stands on: no outside network, no settings of this machine, a store of its own, a real sandbox."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from db.engine import Store, connect
from db.migrations import migrate
from jobs import batch, polling
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.browser import chromium
from tests.lanes import KEY, World
from tests.postgres import Postgres, postgres

if TYPE_CHECKING:
    import httpx2

    from tests.gateways import Served

__all__ = ["chromium"]

LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the outside fails at once."""
    reach = socket.socket.connect

    def connect_to_loopback(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test reached for the outside: {address[0]}")
        reach(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect_to_loopback)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, base URL, config or data folder of this machine, in this process or in those that it starts."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "SHUNTER_CONFIG",
                 "SHUNTER_MODEL", "SHUNTER_POLICY", "SHUNTER_DATABASE_URL", "SHUNTER_OPENAI_API"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    monkeypatch.setenv("NO_COLOR", "1")


def pytest_configure(config: pytest.Config) -> None:
    """The mark of what must hold on either database."""
    config.addinivalue_line("markers", "both: run it on SQLite, and once more on a real PostgreSQL server")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test (or module) marked `both` gets its database from each of the two."""
    if "database_url" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both"):
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """PostgreSQL for the whole run, with a migrated database as the template of the tests' own."""
    with postgres() as running_server:
        made = connect(running_server.create("template1"))
        migrate(made)
        made.close()
        running_server.template = str(made.url).rpartition("/")[2]
        yield running_server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the test's own: a SQLite file, or on PostgreSQL one that is migrated already."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite:///{tmp_path / 'shunter.db'}"
        return
    server: Postgres = request.getfixturevalue("server")
    url = server.create()
    yield url
    server.drop(url)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A migrated database."""
    opened = connect(database_url)
    migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox on a free port."""
    with running(SandboxSettings(batch_seconds=0.1)) as server:
        yield server


@pytest.fixture
def world(store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A store and a sandbox with keys for it, and workers that look again sooner than in real life."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(batch, "_SOON_S", 0.2)
    monkeypatch.setattr(polling, "_FIRST_POLL_S", 0.05)
    return World(store, sandbox, tmp_path)


@pytest.fixture(scope="module")
def one_client(sandbox: Sandbox) -> Iterator[openai.OpenAI]:
    """The real SDK, for modules that keep one sandbox for all of their tests."""
    with openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-test", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def client(sandbox: Sandbox, one_client: openai.OpenAI) -> openai.OpenAI:
    """The same, with a sandbox that remembers nothing."""
    sandbox.reset()
    return one_client


@pytest.fixture(scope="module")
def one_claude(sandbox: Sandbox) -> Iterator[anthropic.Anthropic]:
    """Anthropic's SDK, likewise."""
    with anthropic.Anthropic(base_url=sandbox.url, api_key="sk-test", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def claude(sandbox: Sandbox, one_claude: anthropic.Anthropic) -> anthropic.Anthropic:
    """Anthropic's SDK, with a sandbox that remembers nothing."""
    sandbox.reset()
    return one_claude


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What the settings of the module's gateway say beside the usual; a module may have a fixture of its own."""
    return {}


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Served]":
    """A gateway, for modules that keep one sandbox and one gateway for all of their tests."""
    from tests.gateways import serving, settings_for  # not before a test needs it: every test has this file

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("ANTHROPIC_API_KEY", KEY)
        settings = settings_for(sandbox.url, tmp_path_factory.mktemp("gateway"), **facts)
        with serving(settings, ("llm.example",)) as gateway:
            yield gateway


@pytest.fixture
def http(served: "Served", sandbox: Sandbox) -> "Iterator[httpx2.Client]":
    """A plain client of that gateway, with its token and a sandbox that remembers nothing."""
    sandbox.reset()
    with served.client() as client:
        yield client


@pytest.fixture
def asked(served: "Served", sandbox: Sandbox) -> Iterator[openai.OpenAI]:
    """OpenAI's own client of that gateway, with a sandbox that remembers nothing."""
    sandbox.reset()
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token, max_retries=0, timeout=20) as client:
        yield client
