"""When the write-ahead log of a SQLite file goes back into it: by one connection, while nobody writes.

SQLite before 3.51.3 can lose pages for ever (the "WAL-reset bug", https://sqlite.org/wal.html#walresetbug) when a
transaction starts the log anew in the very moment in which a checkpoint begins. So no connection checkpoints by itself
(wal_autocheckpoint=0). Instead, after a write that left the log large, the writer's lock is taken by a connection that
writes nothing, and only then a second one checkpoints: nobody can commit in that time, in any process, and nobody else
can checkpoint, since that needs the same lock. The checkpoint is passive, so it waits for no reader.

Most of a checkpoint is the wait for the disk to have the log. That needs no lock, so it comes before, while others
write.

The one checkpoint that SQLite still does by itself, when the last connection to a file is closed, needs no more: it
happens only under an exclusive lock on the file, which is there only when nobody else has it open.
"""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

_LARGE = 16 * 2**20  # bytes of log


class Checkpointer:
    """Of one process and file; whoever calls `look` holds the turn of the process's writers."""

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, f"{path}-wal"
        self._next = _LARGE
        self._both: tuple[sqlite3.Connection, sqlite3.Connection] | None = None

    def due(self) -> bool:
        """Whether the log has grown large."""
        size = self._size()
        if size < self._next:
            if self._next > _LARGE and size < self._next - _LARGE:
                self._next = _LARGE  # it was started anew, and cut
            return False
        return True

    def sync(self) -> None:
        """Have the log on the disk, so that `look` is short; out of the turn of writers."""
        with suppress(OSError), open(self._log, "rb") as log:  # SQLite has no locks on it, which closing it would drop
            os.fsync(log.fileno())

    def _size(self) -> int:
        try:
            return os.stat(self._log).st_size
        except OSError:
            return 0

    def look(self) -> None:
        """Put back a log that is large; where another process writes now, that one will do it, too."""
        size = self._size()
        if size < self._next:
            return
        with suppress(sqlite3.Error):  # the write that came before is safe in the log all the same
            self._put_back()
            self._next = size + _LARGE  # as long as a reader keeps it from being started anew

    def _put_back(self) -> None:
        self._both = self._both or (self._open(), self._open())
        holder, worker = self._both
        holder.execute("BEGIN IMMEDIATE")
        try:
            worker.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            holder.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        made = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        made.execute("PRAGMA wal_autocheckpoint=0")
        return made

    def close(self) -> None:
        """Close its connections."""
        for one in self._both or ():
            one.close()
        self._both = None
