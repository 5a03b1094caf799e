"""Open the database for commands that only look, without what running jobs needs."""

from contextlib import closing
from pathlib import Path
from typing import Any

from db.engine import Store, address, connect
from db.migrations import migrate, version
from router.settings import Settings, load


def open_store(settings: Settings | None = None) -> Store:
    """The database of the settings, made and brought up to date; close it after use. StoreError when it cannot be."""
    store = connect((settings or load()).database_url)
    try:
        migrate(store)
    except BaseException:
        store.close()
        raise
    return store


def bring_up() -> dict[str, Any]:
    """Make the database of the settings, or bring it up to date: {"path", "schema", "applied"}."""
    url = load().database_url
    with closing(connect(url)) as store:
        applied = migrate(store)
        with store.read() as connection:
            return {"path": place(url), "schema": version(connection), "applied": applied}


def is_there(url: str) -> bool:
    """Whether there is a database with our tables at the URL; asking makes none. StoreError when its server is away."""
    parsed = address(url)
    if parsed.get_backend_name() == "sqlite":
        return parsed.database is not None and Path(parsed.database).expanduser().exists()
    with closing(connect(url)) as store, store.read() as connection:
        return version(connection) > 0


def place(url: str) -> str:
    """Where the database is, for people: its file, or its server's URL without the password."""
    parsed = address(url)
    if parsed.get_backend_name() == "sqlite":
        return str(parsed.database or url)
    return parsed.render_as_string(hide_password=True)
