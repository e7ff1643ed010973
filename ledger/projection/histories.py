"""Reads the events of many bills, as many bills at a time as memory allows."""

from collections import Counter
from collections.abc import Iterator

from psycopg import Connection

from ledger.eventlog import read
from ledger.eventlog.read import Key
from ledger.projection.read_event import BillEvents, read_row

SLICE = 500
"""Bills read at a time at the most."""

MOST_MEMORY = 64 * 1024 * 1024
"""Bytes that the events of the bills read at a time may take; those of one bill may exceed it."""

SURELY_SMALL = 2 * 1024 * 1024
"""Bytes of bodies whose events take less than `MOST_MEMORY`, whatever they are."""


def whole_histories(
    connection: Connection, new: dict[Key, BillEvents], before: int
) -> Iterator[tuple[dict[Key, BillEvents], set[Key]]]:
    """Add to new events of bills all that they had up to the position `before`.

    Yields some bills at a time, in order of their keys, each once, and which of them had any.
    """
    keys = sorted(new)
    waiting = [(keys[start : start + SLICE], False) for start in range(0, len(keys), SLICE)]
    waiting.reverse()
    while waiting:
        some, is_small = waiting.pop()
        histories = {key: new[key].copy() for key in some}
        memory = sum(history.memory for history in histories.values())
        sizes: Counter[Key] = Counter(dict.fromkeys(some, 0))
        for row in read.of_bills(connection, some, before):
            key = (row.lab_id, row.bill_id)
            sizes[key] += len(row.body)
            if memory > MOST_MEMORY and not is_small:
                continue  # they are read again, fewer at a time
            history = histories[key]
            memory -= history.memory
            history.add(read_row(row), len(row.body))
            memory += history.memory
        if memory > MOST_MEMORY and not is_small:
            histories.clear()
            waiting += [(group, True) for group in reversed(list(_smaller(sizes)))]
        else:
            yield histories, {key for key, size in sizes.items() if size}


def _smaller(sizes: Counter[Key]) -> Iterator[list[Key]]:
    """Divide bills into groups that are surely small, or of one bill."""
    group: list[Key] = []
    size = 0
    for key, of_key in sizes.items():
        if group and size + of_key > SURELY_SMALL:
            yield group
            group, size = [], 0
        group.append(key)
        size += of_key
    if group:
        yield group
