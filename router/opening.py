"""Open the database for commands that only look, without what running jobs needs."""

from db.engine import Store, connect
from db.migrations import migrate
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
