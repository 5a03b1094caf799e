"""What earlier answers tell of the next one: its length, by template and model, and the count of what is sent."""

from collections.abc import Callable, Mapping
from time import monotonic

from db import lengths, turnarounds
from db.engine import Store
from db.lengths import Key
from db.turnarounds import Counted
from jobs.chat import Request
from jobs.templates import template_of
from router.lengths import Seen

LOOK_S = 600.0  # what providers counted is looked at again after this
DOUBT = 5  # attempts that an estimate of input tokens is worth
FARTHEST = 4.0  # no estimate is believed to be farther off


class Answers:
    """What this installation has seen; one template is looked up by itself, and all are read at once for a file."""

    def __init__(self, store: Callable[[], Store | None]) -> None:
        self._store = store
        self._all: dict[Key, Seen] | None = None
        self._factors: dict[tuple[str, bool], float] = {}
        self._looked = float("-inf")

    def load(self) -> None:
        """Read all of them, for many requests."""
        store = self._store()
        known = lengths.all_known(store) if store else {}
        self._all = {key: Seen(*sums) for key, sums in known.items()}

    def factor(self, model: str, *, counted: bool = False) -> float:
        """What an estimate of the model's input tokens is to be multiplied by, as its provider counted before.

        Where a vocabulary has `counted` them, they are off by the framing alone: that is learned apart.
        """
        if monotonic() - self._looked > LOOK_S:
            self._looked = monotonic()
            if store := self._store():
                self.learn(turnarounds.counted(store))
        return self._factors.get((model, counted), 1.0)

    def learn(self, counted: Mapping[tuple[str, bool], Counted]) -> None:
        """Take in what providers counted, which holds for LOOK_S."""
        self._looked = monotonic()
        self._factors = {kind: _factor(one) for kind, one in counted.items()}

    def of(self, request: Request) -> Seen | None:
        """What is known of the answers of such requests."""
        if self._all is not None:
            return self._all.get((request.model, template_of(request.body()))) if self._all else None
        if (store := self._store()) is None:
            return None
        sums = lengths.known(store, request.model, template_of(request.body()))
        return Seen(*sums) if sums and sums.answers >= lengths.FEW else None


def _factor(counted: Counted) -> float:
    """The share of what was reported, drawn to 1 as if DOUBT attempts had been estimated well."""
    doubt = DOUBT * counted.estimated / counted.attempts
    return min(max((counted.reported + doubt) / (counted.estimated + doubt), 1 / FARTHEST), FARTHEST)
