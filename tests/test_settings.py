"""Settings: what they can be, where they come from, and what is said of those that cannot be."""

from pathlib import Path

import pytest

from jobs.errors import UsageError
from router.settings import load

NONE: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_workers_settings_have_defaults() -> None:
    found = load(NONE)
    assert (found.dead_seconds, found.window, found.on_unknown, found.on_rescue) == (60.0, None, "retry", "wait")


def test_they_come_from_the_environment() -> None:
    given = {"SHUNTER_DEAD_SECONDS": "5", "SHUNTER_WINDOW": "22:00-06:00 Europe/Berlin", "SHUNTER_ON_UNKNOWN": "hold",
             "SHUNTER_ON_RESCUE": "pay_twice"}  # fmt: skip
    found = load(given)
    assert (found.dead_seconds, found.on_unknown, found.on_rescue) == (5.0, "hold", "pay_twice")
    assert found.window == "22:00-06:00 Europe/Berlin"


def test_and_from_the_config(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('window = "01:00-06:00"\non_unknown = "hold"\n')
    found = load({"SHUNTER_CONFIG": str(path), "SHUNTER_ON_UNKNOWN": "retry"})
    assert (found.window, found.on_unknown) == ("01:00-06:00", "retry")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("SHUNTER_ON_UNKNOWN", "maybe", "on_unknown is 'maybe': it must be retry or hold"),
        ("SHUNTER_ON_RESCUE", "never", "on_rescue is 'never': it must be wait or pay_twice"),
        ("SHUNTER_OPENAI_API", "v2", "it must be chat (chat completions) or responses (the Responses API)"),
        ("SHUNTER_WINDOW", "at night", "the window is 'at night': write it as"),
        ("SHUNTER_DEAD_SECONDS", "0", "SHUNTER_DEAD_SECONDS is '0': it must be above 0"),
        ("SHUNTER_DEAD_SECONDS", "soon", "it must be a number of seconds"),
    ],
)
def test_what_cannot_be_is_said(name: str, given: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        load({name: given})
    assert said in str(raised.value)
