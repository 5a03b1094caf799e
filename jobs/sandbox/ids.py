"""Names that no other sandbox process has given."""

import os
from itertools import count


class Ids:
    """A random beginning for this process, then a running number."""

    def __init__(self) -> None:
        self._head = os.urandom(8).hex()
        self._numbers = count(1)

    def next(self) -> str:
        return f"{self._head}{next(self._numbers):08x}"
