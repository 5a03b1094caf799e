"""Who is compared: Shunter, the peers with the versions that the drivers were written for, and two bare loops."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import PYTHON
from tests.bench.peers import places
from tests.bench.peers.running import KEY, Done, Failed, run

MODEL, AT_ONCE = "gpt-4o-mini-2024-07-18", 64  # a model that every peer knows
SHUNTER = str(Path(PYTHON).with_name("shunter"))
DRIVERS = Path(__file__).parent / "drivers"
LEASE_S, PATIENCE_S = 5, 120
SILENT = {
    "TELEMETRY_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "CURATOR_VIEWER": "0",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
OURS = ("SHUNTER_", "OPENAI_", "ANTHROPIC_", "CURATOR_", "BESPOKE_", "HF_")


@dataclass(frozen=True, slots=True)
class Job:
    """Rows of a file, through a lane, with a folder to keep things in and a provider."""

    lane: str
    file: Path
    folder: str
    url: str
    rows: int

    def env(self, **more: str) -> dict[str, str]:
        """Nothing of the caller's own settings and keys; the sandbox as the provider, and a home that is empty."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        provider = {"OPENAI_BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": KEY, "HOME": self.folder}
        return kept | provider | more


@dataclass(frozen=True, slots=True)
class Peer:
    """A package, its driver, and the lanes that it has."""

    name: str
    driver: str
    needs: tuple[str, ...]
    lanes: tuple[str, ...]
    least: tuple[int, int] = (3, 11)

    @property
    def title(self) -> str:
        return self.needs[0].replace("==", " ") if "==" in self.needs[0] else self.name

    def ready(self) -> None:
        """Installed; NotThere says why it cannot be."""
        places.python(self.name, self.needs, self.least)

    def env(self, job: Job) -> dict[str, str]:
        return job.env(PEER_MODEL=MODEL, PEER_AT_ONCE=str(AT_ONCE), **SILENT)

    def before(self, job: Job) -> list[list[str]]:
        """Nothing: one script does it all."""
        return []

    def command(self, job: Job) -> list[str]:
        interpreter = str(places.python(self.name, self.needs, self.least))
        return [interpreter, str(DRIVERS / f"{self.driver}.py"), job.lane, str(job.file), job.folder]

    def answers(self, job: Job, last: Done) -> int:
        return int(json.loads(last.said.strip().splitlines()[-1])["answers"])

    def again(self, job: Job) -> int:
        """The same script, over what the first one left in its folder."""
        return self.answers(job, run(self.command(job), self.env(job), job.folder))


@dataclass(frozen=True, slots=True)
class Shunter:
    """`submit --file`, then `worker --once`; the lease is 5 s, not 120, so that a killed worker is soon missed."""

    name: str = "shunter"
    title: str = "shunter"
    lanes: tuple[str, ...] = ("batch", "live")

    def ready(self) -> None:
        """It is here."""

    def env(self, job: Job) -> dict[str, str]:
        database = f"sqlite:///{job.folder}/shunter.db"
        return job.env(SHUNTER_DATABASE_URL=database, SHUNTER_LEASE_SECONDS=str(LEASE_S))

    def before(self, job: Job) -> list[list[str]]:
        """What runs before the command that makes the batch, or the calls."""
        lane = ["--lane", "sync"] if job.lane == "live" else []
        return [[SHUNTER, "submit", "--file", str(job.file), *lane, "--json"]]

    def command(self, job: Job) -> list[str]:
        return [SHUNTER, "worker", "--once", "--concurrency", str(AT_ONCE), "--json"]

    def answers(self, job: Job, last: Done | None = None) -> int:
        from db.engine import connect
        from tests.lanes import balanced, states

        store = connect(self.env(job)["SHUNTER_DATABASE_URL"])
        try:
            balanced(store)
            return int(states(store).get("succeeded", 0))
        finally:
            store.close()

    def again(self, job: Job) -> int:
        """The worker again and again, as cron would, until every row has its answer."""
        until = time.monotonic() + PATIENCE_S
        while (found := self.answers(job)) < job.rows:
            if time.monotonic() > until:
                raise Failed(f"{found} answers after {PATIENCE_S} s")
            run(self.command(job), self.env(job), job.folder)
        return found


Contender = Peer | Shunter

PEERS = (
    Peer("curator", "with_curator", ("bespokelabs-curator==0.1.31",), ("batch", "live")),
    Peer("autobatcher", "with_autobatcher", ("autobatcher==0.12.0",), ("batch",)),
    Peer("batchata", "with_batchata", ("batchata==0.4.7",), ("batch",), (3, 12)),
    Peer("openai-batch", "with_openai_batch", ("openai-batch==0.3.4", "openai<3"), ("batch",)),  # imports httpx
    Peer("bare-openai", "with_openai", ("openai>=3.4,<4",), ("live",)),
    Peer("bare-aiohttp", "with_aiohttp", ("aiohttp",), ("live",)),
)
