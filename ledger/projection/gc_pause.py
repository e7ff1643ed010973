"""Python's garbage collector, out of the way of a batch."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Have the collector wait until a batch is done.

    It looks for cycles whenever much has been made, and would look through all of a batch again and
    again while it grows. A batch has no cycles: all of it is freed without the collector.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
