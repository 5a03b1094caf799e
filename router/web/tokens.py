"""Who asks: the installation's own token, a session of the page that was made from it, or a key.

Secrets are compared in constant time, and are in no URL and no log.
"""

import hmac
import os
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from db import keys, pace
from db.engine import Store
from db.keys import ID_LETTERS, PREFIX

SESSION_S = 30 * 86_400
KNOWN_S = 2.0  # a key that was looked up is not looked up again for so long: so late does a revocation take effect
_MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; `key_id` is None for the installation's own token, which may do everything."""

    key_id: str | None = None
    lanes: Sequence[str] | None = None
    requests_per_minute: int | None = None

    @property
    def admin(self) -> bool:
        """Whether it is the installation's own."""
        return self.key_id is None

    def may_see(self, owner: str | None) -> bool:
        """Whether what belongs to this key, or to no key, is theirs."""
        return self.admin or owner == self.key_id


ADMIN = Caller()


def installed(folder: Path) -> tuple[str, Path, bool]:
    """The installation's token, where it is kept, and whether it was made just now."""
    path = folder / "token"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = f"{PREFIX}-{secrets.token_urlsafe(32)}"
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(made + "\n")
    except FileExistsError:
        return path.read_text().strip(), path, False
    return made, path, True


class Tokens:
    """Tells who asks."""

    def __init__(self, token: str, store: Store) -> None:
        self._token = token.encode()
        self._store = store
        self._known: dict[bytes, tuple[float, Caller]] = {}  # by a hash: no secret is kept
        self._lock = threading.Lock()

    def of_bearer(self, given: str) -> Caller | None:
        """The caller that a token or a key is of. It may look into the database."""
        if caller := self.remembered(given):
            return caller
        parts = given.split("-", 2)
        if len(parts) != 3 or parts[0] != PREFIX or len(parts[1]) != ID_LETTERS:
            return None
        key = keys.find(self._store, parts[1], given)
        if key is None:
            return None
        caller = Caller(key.id, key.lanes, key.requests_per_minute)
        with self._lock:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[_digest(given)] = time.monotonic() + KNOWN_S, caller
        return caller

    def remembered(self, given: str) -> Caller | None:
        """The same where nothing has to be looked up."""
        if hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            return ADMIN
        found = self._known.get(_digest(given))
        return found[1] if found and found[0] > time.monotonic() else None

    def wait_s(self, caller: Caller, now: float) -> float:
        """Count one request of a key with a rate, over all servers; the seconds to wait where it is one too many."""
        if caller.key_id is None or caller.requests_per_minute is None:
            return 0.0
        return pace.take(self._store, caller.key_id, caller.requests_per_minute, now)

    def session(self, now: float) -> str:
        """What the page's cookie says: it holds no secret, and ends with the token that it was made from."""
        said = f"{int(now) + SESSION_S}.{secrets.token_urlsafe(12)}"
        return f"{said}.{self._sign(said)}"

    def of_session(self, cookie: str, now: float) -> Caller | None:
        """The caller that a cookie is of."""
        said, _, signed = cookie.rpartition(".")
        until = said.partition(".")[0]
        good = hmac.compare_digest(signed.encode("utf-8", "replace"), self._sign(said).encode())
        return ADMIN if good and until.isascii() and until.isdecimal() and int(until) > now else None

    def _sign(self, said: str) -> str:
        return hmac.new(self._token, f"session {said}".encode("utf-8", "replace"), sha256).hexdigest()


def _digest(given: str) -> bytes:
    return sha256(given.encode("utf-8", "replace")).digest()
