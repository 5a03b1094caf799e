"""How long the answers of a request's template were on its model: what the estimate of the next one leans on."""

from collections.abc import Callable

from db import lengths
from db.engine import Store
from db.lengths import Key
from jobs.chat import Request
from jobs.templates import template_of
from router.lengths import Seen


class Answers:
    """What this installation has seen; one template is looked up by itself, and all are read at once for a file."""

    def __init__(self, store: Callable[[], Store | None]) -> None:
        self._store = store
        self._all: dict[Key, Seen] | None = None

    def load(self) -> None:
        """Read all of them, for many requests."""
        store = self._store()
        known = lengths.all_known(store) if store else {}
        self._all = {key: Seen(*sums) for key, sums in known.items()}

    def of(self, request: Request) -> Seen | None:
        """What is known of the answers of such requests."""
        if self._all is not None:
            return self._all.get((request.model, template_of(request.body()))) if self._all else None
        if (store := self._store()) is None:
            return None
        sums = lengths.known(store, request.model, template_of(request.body()))
        return Seen(*sums) if sums and sums.answers >= lengths.FEW else None
