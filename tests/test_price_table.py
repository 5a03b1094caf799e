"""The user's own price table: dated rows, exact decimals, and every mistake in it named."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.states import CostSource, Lane
from jobs.chat import Usage
from jobs.errors import Mistakes, UsageError
from jobs.pricing import Price, price, version
from router.price_table import read
from router.settings import load

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
COMPUTED, ASSUMED = CostSource.COMPUTED, CostSource.ASSUMED
GOOD = """
[[price]]
model = "llama3.1*"
input = 0.05
output = 0.2
cached = 0.005

[[price]]
model = "llama3.1:70b"
provider = "openai"
input = 0.3
output = 0.6
from = 2026-03-01

[[price]]
model = "llama3.1:70b"
provider = "openai"
input = 0.4
output = 0.8
from = 2026-06-01T12:00:00+02:00

[[price]]
model = "gpt-6-luna"
input = 0.09
output = 0.45

[[price]]
model = "gpt-6-luna"
above = 1000
input = 0.18
output = 0.9

[[price]]
model = "gpt-6-luna"
tier = "fast"
input = 0.1
output = 0.5
"""


def table(tmp_path: Path, text: str = GOOD) -> Path:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return path


def cost(path: Path, model: str, usage: Usage, lane: Lane = Lane.SYNC, tier: str | None = None, *, own: bool = False,
         at: datetime = NOW) -> Price:  # fmt: skip
    return price(usage, model=model, provider="openai", own=own, lane=lane, tier=tier, at=at, table=read(path))


def test_a_model_of_ones_own_costs_what_the_table_says(tmp_path: Path) -> None:
    found = cost(table(tmp_path), "llama3.1:8b", Usage(1000, 100, cached=400))
    assert (found.nano, found.source) == (600 * 50 + 400 * 5 + 100 * 200, COMPUTED)
    assert found.name.startswith("prices.toml@")
    assert found.name.endswith(" llama3.1* standard")
    assert cost(table(tmp_path), "mistral", Usage(1, 1)).nano is None


def test_the_most_exact_name_and_the_last_date_hold(tmp_path: Path) -> None:
    path = table(tmp_path)
    one = Usage(1000, 0)
    days = [datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC),
            datetime(2026, 6, 1, 9, 59, tzinfo=UTC), datetime(2026, 6, 1, 10, tzinfo=UTC)]  # fmt: skip
    assert [cost(path, "LLAMA3.1:70b", one, at=day).nano for day in days] == [50_000, 300_000, 300_000, 400_000]


def test_it_goes_before_the_list_with_its_own_cliff(tmp_path: Path) -> None:
    path = table(tmp_path)
    assert cost(path, "gpt-6-luna", Usage(1000, 10), own=True)[:2] == (1000 * 90 + 10 * 450, COMPUTED)
    assert cost(path, "gpt-6-luna", Usage(1001, 10), own=True)[:2] == (1001 * 180 + 10 * 900, COMPUTED)
    assert cost(path, "gpt-6-sol", Usage(1000, 0), own=True).nano == 2_000_000


def test_a_lane_without_a_row(tmp_path: Path) -> None:
    path, one = table(tmp_path), Usage(1000, 0)
    assert cost(path, "gpt-6-luna", one, tier="fast")[:2] == (100_000, COMPUTED)
    assert cost(path, "gpt-6-luna", one, Lane.BATCH)[:2] == (90_000, COMPUTED)  # a server that knows no discount
    assert cost(path, "gpt-6-luna", one, Lane.BATCH, own=True)[:2] == (45_000, ASSUMED)
    assert cost(path, "gpt-6-luna", one, tier="flex", own=True)[:2] == (45_000, ASSUMED)
    assert cost(path, "gpt-6-luna", one, tier="ultrafast", own=True)[:2] == (90_000, ASSUMED)
    assert cost(path, "gpt-6-luna", one, Lane.BACKGROUND, "2h", own=True)[:2] == (63_000, COMPUTED)


def test_audio_and_searches_without_a_price_are_unknown(tmp_path: Path) -> None:
    path = table(tmp_path)
    assert cost(path, "llama3.1:8b", Usage(10, 0, audio_input=1)).nano is None
    assert cost(path, "llama3.1:8b", Usage(10, 0, searches=1)).nano is None
    heard = '[[price]]\nmodel = "a"\ninput = 1\noutput = 2\naudio_input = 30\naudio_output = 60\nsearch = 5\n'
    found = cost(table(tmp_path, heard), "a", Usage(10, 4, audio_input=4, audio_output=1, searches=2))
    assert found.nano == 6 * 1000 + 4 * 30_000 + 3 * 2000 + 60_000 + 2 * 5_000_000


def test_decimals_are_exact(tmp_path: Path) -> None:
    path = table(tmp_path, '[[price]]\nmodel = "a"\ninput = 0.123456789\noutput = 1e-9\n')
    assert cost(path, "a", Usage(10_000_000, 0)).nano == 1_234_567_890
    assert cost(path, "a", Usage(0, 10**12)).nano == 1_000_000


BAD = """
[[price]]
model = "llama*b"
input = 0.05
outptu = 0.2

[[price]]
model = "qwen3"
input = -1
output = "cheap"
from = 12

[[price]]
model = "a"
input = nan
output = 2
above = 1000

[[price]]
model = "b"
provider = ""
input = 1
output = 2

[[price]]
model = "c"
input = 1
output = 2
from = 2026-01-01T00:00:00

[[price]]
model = "C"
input = 2
output = true
above = 0
tier = "default"

[[price]]
model = "d"
input = 2
output = 2

[[price]]
model = "D"
input = 2
output = 2

[other]
"""


def test_every_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(Mistakes) as caught:
        read(table(tmp_path, BAD))
    said = str(caught.value)
    for words in (
        "prices.toml:2: price 1: 'output' is missing",
        "prices.toml:3: price 1: 'model' must be a name, a * only at its end, not 'llama*b'",
        "prices.toml:5: price 1: unknown key 'outptu' (known: model, provider, tier, from, above, input, output, ",
        "prices.toml:9: price 2: 'input' must be US dollars from 0 to 1,000,000, not -1",
        "prices.toml:10: price 2: 'output' must be a number, not 'cheap'",
        "prices.toml:11: price 2: 'from' must be a date, as in 2027-01-31, not 12",
        "prices.toml:15: price 3: 'input' must be US dollars from 0 to 1,000,000, not nan",
        "prices.toml:17: price 3: 'above' is given, and no price of the same model, tier and date without it",
        "prices.toml:21: price 4: 'provider' must be a name, not ''",
        "prices.toml:29: price 5: 'from' needs a time zone, as in 2027-01-31T00:00:00Z, not 2026-01-01 00:00:00",
        "prices.toml:34: price 6: 'output' must be a number, not True",
        "prices.toml:35: price 6: 'above' must be a number of input tokens, not 0",
        "prices.toml:43: price 8: is for the same thing as price 7",
        "prices.toml:48: unknown key 'other' (known: price)",
    ):
        assert words in said, words
    assert said.count("prices.toml:") == 14


@pytest.mark.parametrize(
    ("text", "words"), [("", "'price' is missing"), ("price = 3", "must be a list"), ("[[", "prices.toml: ")]
)
def test_a_file_that_is_no_table(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(table(tmp_path, text))
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.toml")


def test_the_readmes_example_is_a_price_table(tmp_path: Path) -> None:
    readme = Path(__file__).parent.parent.joinpath("README.md").read_text()
    (example,) = [part for part in readme.split("```toml\n")[1:] if part.startswith("# SHUNTER_PRICES")]
    path = table(tmp_path, example.split("```")[0])
    assert cost(path, "llama3.1:8b", Usage(1000, 100)).nano == 70_000
    january = datetime(2027, 1, 1, tzinfo=UTC)
    assert cost(path, "gpt-6-luna", Usage(1000, 100), Lane.BATCH, own=True, at=january)[:2] == (60_000, COMPUTED)


def test_the_setting_gives_every_endpoint_the_table(tmp_path: Path) -> None:
    path = table(tmp_path)
    settings = load({"SHUNTER_PRICES": str(path), "OPENAI_API_KEY": "k", "SHUNTER_CONFIG": "/dev/null"})
    assert settings.prices is not None
    assert settings.endpoints["openai"].prices is settings.prices
    assert version(settings.prices) == f"{settings.prices.name} + {version()}"
    before = settings.prices.name
    path.write_text(GOOD + "\n# a word more\n")
    assert read(path).name != before
