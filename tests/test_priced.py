"""Costs worked out by hand from published prices, exact to the nano-dollar; each price names its page."""

import csv
import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest

from db.states import CostSource, Lane
from jobs.chat import Usage
from jobs.prices_table import PriceTable
from jobs.pricing import price
from router.price_table import read

FILE = Path(__file__).with_name("priced.tsv")
PROVIDERS = tuple(
    f"https://{host}/" for host in ("developers.openai.com", "openai.com", "platform.claude.com", "docs.anthropic.com")
)
# Two published prices that genai-prices does not have: what a user writes down.
TABLE = """
[[price]]
model = "gpt-6.2-sol"
input = 2
cached = 0.1
cache_write = 2.5
output = 10

[[price]]
model = "gpt-6.2-sol"
above = 272_000
input = 4
cached = 0.2
cache_write = 5
output = 15

[[price]]
model = "gpt-6.2-sol"
tier = "batch"
input = 1
cached = 0.05
cache_write = 1.25
output = 5

[[price]]
model = "gpt-6.2-sol"
tier = "priority"
input = 4
cached = 0.2
cache_write = 5
output = 20

[[price]]
model = "gpt-4o-audio-preview*"
input = 2.5
output = 10
audio_input = 40
audio_output = 80
"""


def lines() -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The pages by their short names, and the cases."""
    text = FILE.read_text().splitlines()
    pages = dict(line.split("\t")[1:] for line in text if line.startswith("#page\t"))
    return pages, [*csv.DictReader((line for line in text if not line.startswith("#")), delimiter="\t")]


PAGES, CASES = lines()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> PriceTable:
    path = tmp_path_factory.mktemp("prices") / "prices.toml"
    path.write_text(TABLE)
    return read(path)


def usage(case: dict[str, Any]) -> Usage:
    names = ("input", "output", "cached", "written", "reasoning", "written_1h", "audio_in", "audio_out")
    return Usage(*(int(case[name]) for name in names))


def name(case: dict[str, Any]) -> str:
    return f"{case['model']}-{case['lane']}-{case['tier'] or 'plain'}-{case['at']}-{case['working'][:40]}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_case_worked_out_by_hand(case: dict[str, Any], table: PriceTable) -> None:
    at = datetime.fromisoformat(case["at"]).replace(tzinfo=UTC, hour=12)
    provider = "anthropic" if case["model"].startswith("claude") else "openai"
    found = price(usage(case), model=case["model"], provider=provider, own=True, lane=Lane(case["lane"]),
                  tier=case["tier"] or None, at=at, table=table)  # fmt: skip
    assert (found.nano, found.source) == (int(case["nano"]), CostSource(case["source"])), found.name


def test_the_working_of_each_case_comes_to_its_figure() -> None:
    for case in CASES:
        terms, _, factor = case["working"].strip("(").partition(") * ")
        pairs = [re.fullmatch(r"(\d+)\*([\d.]+)", term) for term in terms.split(" + ")]
        assert all(pairs), case
        total = sum((int(pair[1]) * Decimal(pair[2]) for pair in pairs if pair), Decimal(0)) * Decimal(factor or 1)
        assert int(case["nano"]) == total.quantize(Decimal(1), ROUND_HALF_EVEN), case
        assert int(case["input"]) + int(case["output"]) == sum(int(pair[1]) for pair in pairs if pair), case


def test_at_least_sixty_rest_on_pages_of_the_providers() -> None:
    rest = [[PAGES[key] for key in case["page"].split("+")] for case in CASES]
    published = [urls for urls in rest if all(url.startswith(PROVIDERS) for url in urls)]
    assert len(published) >= 60
    assert all(urls == [PAGES["list"]] for urls in rest if urls not in published)
    lanes = {(case["lane"], case["tier"]) for case in CASES}
    assert {Lane.STREAM, Lane.SYNC, Lane.BATCH, Lane.BACKGROUND} <= {Lane(lane) for lane, _ in lanes}
    assert {"flex", "priority", "fast", "2h", "8h"} <= {tier for _, tier in lanes}
