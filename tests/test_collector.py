"""Python's collector of cycles: seldom while many rows go through, as before afterwards."""

import gc
from contextlib import ExitStack

from jobs import collector


def test_cycles_are_looked_for_seldom_until_the_last_block_ends() -> None:
    before = gc.get_threshold()
    first, second = ExitStack(), ExitStack()
    first.enter_context(collector.seldom())
    second.enter_context(collector.seldom())
    first.close()
    assert gc.get_threshold()[0] > before[0]
    second.close()
    assert gc.get_threshold() == before
