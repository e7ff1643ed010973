"""Row 7: appending batches without HTTP, against COPY of the same rows with as many commits.

The ceiling is a generous one: rows in the binary form that PostgreSQL itself gave, into a table
whose only cost is its rows.
"""

import time
from contextlib import closing
from datetime import UTC, datetime

import psycopg

from benchmarks import logs
from benchmarks.row import Figure, Row, Run, Target, ratios
from ledger.eventlog.append import Delivery, append
from ledger.postgres.connect import connect

BATCHES = (512, 64)

_MAKE = "CREATE TABLE copied (LIKE ledger.event_log)"


def measure(run: Run) -> list[Row]:
    """Append to one empty log in each round, and copy beside it."""
    events = run.size(100_000, 20_000)
    whole = _exported(run.logs.url(events), events)
    parts = {size: _exported(run.logs.url(events), size) for size in BATCHES}
    names = ["one COPY"]
    for size in BATCHES:
        names += [f"append {size}", f"append {size} and Delivery.of", f"COPY {size}"]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(run.rounds):
        with run.logs.copied("log_0") as url:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(_MAKE)
            for nth, name in enumerate(names if len(rates[names[0]]) % 2 == 0 else names[::-1]):
                bills = events // logs.EVENTS_OF_A_BILL
                numbers = range(nth * bills, (nth + 1) * bills)
                what, *words = name.split()
                if what == "append":
                    rates[name].append(
                        _append(url, numbers, int(words[0]), whole_way=len(words) > 1)
                    )
                else:
                    data = parts[int(words[0])] if what == "COPY" else whole
                    rates[name].append(events / _copy_in(url, data))
    return [_row(rates, events)]


def _row(rates: dict[str, list[float]], events: int) -> Row:
    figures = [Figure(name, values, "events/s") for name, values in rates.items()]
    compared = [(name, "one COPY") for name in rates if name != "one COPY"]
    compared += [("append 64", "COPY 64")]
    figures += [Figure(f"{a} / {b}", ratios(rates[a], rates[b]), "") for a, b in compared]
    return Row(
        number="7",
        what="append of batches of 512, events/s without HTTP",
        against="COPY of the same rows into an unindexed, logged table, with as many commits",
        target=Target(at_least=0.25),
        values=ratios(rates["append 512"], rates["COPY 512"]),
        figures=figures,
        remarks=[
            (
                f"{events:,} events each time. append 512: 512 deliveries in a transaction, made "
                "before the clock starts; 'and Delivery.of': made meanwhile, one after the other. "
                "COPY 512: 512 rows in a transaction."
            )
        ],
    )


def _append(url: str, numbers: range, size: int, *, whole_way: bool) -> float:
    bodies = list(logs.bodies(numbers))
    made = [] if whole_way else _deliveries(bodies)
    with closing(connect(url, "bench")) as connection:
        began = time.monotonic()
        for start in range(0, len(bodies), size):
            end = start + size
            append(connection, _deliveries(bodies[start:end]) if whole_way else made[start:end])
        return len(bodies) / (time.monotonic() - began)


def _deliveries(bodies: list[bytes]) -> list[Delivery]:
    now = datetime.now(UTC)
    return [Delivery.of(body, received_at=now, source="webhook") for body in bodies]


def _exported(url: str, size: int) -> list[bytes]:
    """Return the rows of a log in COPY's binary form, in parts of so many rows."""
    parts: list[bytes] = []
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT max(position) FROM ledger.event_log").fetchone()
        for first in range(1, row[0] + 1 if row else 0, size):
            query = (
                f"COPY (SELECT * FROM ledger.event_log WHERE position BETWEEN {first} AND "
                f"{first + size - 1} ORDER BY position) TO STDOUT (FORMAT binary)"
            )
            with connection.cursor().copy(query.encode()) as copy:
                parts.append(b"".join(copy))
    return parts


def _copy_in(url: str, parts: list[bytes]) -> float:
    """Return the seconds that it took to copy the parts in, each with a commit."""
    with psycopg.connect(url, autocommit=True) as connection:
        began = time.monotonic()
        for part in parts:
            with connection.cursor().copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
                copy.write(part)
        return time.monotonic() - began
