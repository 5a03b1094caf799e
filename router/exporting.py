"""Jobs with their answers as JSONL."""

import os
import sys
from contextlib import ExitStack
from datetime import datetime

from orjson import dumps

from db import reports
from db.engine import Store
from jobs.errors import UsageError
from router import show


def export_to(store: Store, state: str | None, since: datetime | None, path: str | None) -> int:
    """Write the lines to stdout, or to a new file for its owner only; how many. UsageError when it cannot be made."""
    lines, count = sys.stdout.buffer, 0
    with ExitStack() as stack:
        if path:
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except OSError as error:
                raise UsageError(f"{path} cannot be written: {error.strerror}") from None
            lines = stack.enter_context(os.fdopen(handle, "wb"))
        told = stack.enter_context(show.progress("exporting")) if path else None
        for count, row in enumerate(reports.export(store, state, since), start=1):
            lines.write(dumps(row) + b"\n")
            if told:
                told(count)
        lines.flush()
    return count
