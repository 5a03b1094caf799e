"""Flags, environment and TOML, read once and passed down as values."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import windows
from jobs.errors import UsageError
from jobs.prices_table import PriceTable
from jobs.providers import Endpoint

OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"

# key of config.toml (and, in capitals after SHUNTER_, of the environment): its type and default
_KEYS: dict[str, tuple[type, Any]] = {
    "database_url": (str, None),
    "model": (str, None),
    "policy": (str, None),
    "prices": (str, None),
    "concurrency": (int, 16),
    "grace_seconds": (float, 600.0),
    "poll_seconds": (float, 60.0),
    "lease_seconds": (float, 120.0),
    "dead_seconds": (float, 60.0),
    "window": (str, None),
    "digest_file": (str, None),
    "digest_command": (str, None),
    "log_level": (str, "warning"),
    "log_file": (str, None),
    "otel": (bool, False),
    "otel_content": (bool, False),
    "on_unknown": (str, "retry"),
    "on_rescue": (str, "wait"),
    "budget_output_cap": (int, 4096),
    "openai_api": (str, "chat"),
    "openai_batch_api": (bool, None),
    "openai_background": (bool, None),
    "openai_flex": (bool, None),
    "anthropic_batch_api": (bool, None),
}

LOG_LEVELS = ("debug", "info", "warning", "error")

# key: the words that it can be, with what each means where they do not say it themselves
_WORDS = {
    "log_level": dict.fromkeys(LOG_LEVELS, ""),
    "openai_api": {"chat": "chat completions", "responses": "the Responses API"},
    "on_unknown": {"retry": "", "hold": ""},
    "on_rescue": {"wait": "", "pay_twice": ""},
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What this installation is set to. Keys of providers are not in here: the providers read the environment."""

    database_url: str
    folder: Path  # for the files of batches on their way
    endpoints: Mapping[str, Endpoint]
    model: str | None = None
    policy: Path | None = None
    concurrency: int = 16
    grace_seconds: float = 600.0
    poll_seconds: float = 60.0
    lease_seconds: float = 120.0
    dead_seconds: float = 60.0
    window: str | None = None
    digest_file: str | None = None  # for the report at the end of a worker's run
    digest_command: str | None = None
    log_level: str = "warning"
    log_file: str | None = None  # None: stderr
    otel: bool = False  # whether spans and metrics go where OpenTelemetry's own variables say
    otel_content: bool = False  # with what was asked and answered
    on_unknown: str = "retry"
    on_rescue: str = "wait"
    budget_output_cap: int = 4096  # tokens of an answer without a cap, where money is limited
    has_batch: Mapping[str, bool] = field(default_factory=dict)
    has_flex: bool | None = None  # whether OpenAI's address has the flex tier; None: if it is its own
    has_background: bool | None = None  # whether OpenAI's address has the background windows; None: if it is its own
    prices: PriceTable | None = None  # the user's own


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment, then of config.toml; UsageError names the key and where it stands."""
    environ = os.environ if environ is None else environ
    config = _config(environ)
    values = {key: _value(key, environ, config) for key in _KEYS}
    for key, words in _WORDS.items():
        _check_word(key, values[key], words)
    if values["window"]:
        windows.parse(values["window"])
    folder = _data_folder()
    prices = _prices(values["prices"])
    has_batch = {name: values[f"{name}_batch_api"] for name in ("openai", "anthropic")}
    return Settings(
        database_url=values["database_url"] or f"sqlite:///{folder / 'shunter.db'}",
        folder=folder / "batches",
        endpoints=_endpoints(environ, values["openai_api"], prices),
        model=values["model"],
        policy=Path(values["policy"]).expanduser() if values["policy"] else None,
        concurrency=values["concurrency"],
        grace_seconds=values["grace_seconds"],
        poll_seconds=values["poll_seconds"],
        lease_seconds=values["lease_seconds"],
        dead_seconds=values["dead_seconds"],
        window=values["window"],
        digest_file=values["digest_file"],
        digest_command=values["digest_command"],
        log_level=values["log_level"],
        log_file=values["log_file"],
        otel=values["otel"],
        otel_content=values["otel_content"],
        on_unknown=values["on_unknown"],
        on_rescue=values["on_rescue"],
        budget_output_cap=values["budget_output_cap"],
        has_batch={name: known for name, known in has_batch.items() if known is not None},
        has_flex=values["openai_flex"],
        has_background=values["openai_background"],
        prices=prices,
    )


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where config.toml is looked for."""
    environ = os.environ if environ is None else environ
    if named := environ.get("SHUNTER_CONFIG"):
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_config_path("shunter") / "config.toml"


def provider_of(model: str, endpoints: Mapping[str, Endpoint]) -> str:
    """Who serves the model: Claude models go to Anthropic, unless only an OpenAI-compatible address is set."""
    claude = model.startswith("claude")
    if claude and "anthropic" not in endpoints and "openai" in endpoints and not endpoints["openai"].own:
        return "openai"
    return "anthropic" if claude else "openai"


def _data_folder() -> Path:
    import platformdirs

    return platformdirs.user_data_path("shunter")


def _prices(path: str | None) -> PriceTable | None:
    if path is None:
        return None
    from router.price_table import read

    return read(Path(path).expanduser())


def _check_word(key: str, given: str, words: Mapping[str, str]) -> None:
    if given not in words:
        known = " or ".join(f"{word} ({meaning})" if meaning else word for word, meaning in words.items())
        raise UsageError(f"{key} is {given!r}: it must be {known}", code="bad_setting")


def _endpoints(environ: Mapping[str, str], openai_api: str, prices: PriceTable | None) -> dict[str, Endpoint]:
    known = (
        ("openai", "OPENAI_API_KEY", "OPENAI_BASE_URL", OPENAI_URL),
        ("anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", ANTHROPIC_URL),
    )
    found = {}
    for name, key, url, own in known:
        if environ.get(key) or environ.get(url):
            base_url = (environ.get(url) or own).rstrip("/")
            if not base_url.startswith(("http://", "https://")):
                raise UsageError(f"{url} is {base_url!r}: write it with http:// or https://", code="bad_setting")
            api = openai_api if name == "openai" else "chat"
            found[name] = Endpoint(name, base_url, own=base_url == own, key_env=key, api=api, prices=prices)
    return found


def _config(environ: Mapping[str, str]) -> dict[str, Any]:
    path = config_path(environ)
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if environ.get("SHUNTER_CONFIG"):
            raise UsageError(f"SHUNTER_CONFIG names {path}, which is not there", code="bad_setting") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", code="bad_setting") from None
    if unknown := sorted(set(config) - set(_KEYS)):
        raise UsageError(f"{path}: {unknown[0]!r} is not a setting; known: {', '.join(_KEYS)}", code="bad_setting")
    return config


def _value(key: str, environ: Mapping[str, str], config: Mapping[str, Any]) -> Any:
    kind, default = _KEYS[key]
    name = f"SHUNTER_{key.upper()}"
    given, where = (environ[name], name) if environ.get(name) else (config.get(key), f"{config_path(environ)}: {key}")
    if given is None:
        return default
    try:
        value = _as(kind, given)
    except ValueError:
        words = {int: "a whole number", float: "a number of seconds", bool: "true or false", str: "text"}
        raise UsageError(f"{where} is {given!r}: it must be {words[kind]}", code="bad_setting") from None
    if kind in (int, float) and value <= 0:
        raise UsageError(f"{where} is {given!r}: it must be above 0", code="bad_setting")
    return value


def _as(kind: type, given: Any) -> Any:
    if kind is bool and isinstance(given, str):
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if given.lower() not in words:
            raise ValueError(given)
        return words[given.lower()]
    if kind is not str and isinstance(given, bool) is not (kind is bool):
        raise ValueError(given)
    if kind is str and not isinstance(given, str):
        raise ValueError(given)
    return kind(given)
