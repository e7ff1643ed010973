"""Row 12: what an event takes on the disk, against the bytes of its body as received."""

from typing import NamedTuple

import psycopg

from benchmarks import intake, stage, wrk
from benchmarks.row import Figure, Row, Run, Target
from benchmarks.stage import MeasureError

MOST_LOADS = 60
"""How often wrk is sent to a log that has too few events, before giving up."""


class Size(NamedTuple):
    """Bytes: of the table with its indexes, and of the bodies, each by event; and the events."""

    disk: float
    body: float
    events: int


def measure(run: Run) -> list[Row]:
    """Measure the log that wrk made and one made by batches; the table's end must not count."""
    by_wrk = _grow(run, run.size(200_000, 50_000))
    by_batches = _size(run.logs.url(run.size(5_000_000, 160_000)))
    return [
        Row(
            number="12",
            what="bytes on disk per event, table and indexes",
            against="bytes of the body as received",
            target=Target(at_most=2.1),
            values=[by_wrk.disk / by_wrk.body],
            figures=[
                Figure(what, [value], unit)
                for how, size in (("sent by wrk", by_wrk), ("appended in batches", by_batches))
                for what, value, unit in (
                    (f"log {how}: ratio", size.disk / size.body, ""),
                    (f"log {how}: on disk", size.disk, "bytes/event"),
                    (f"log {how}: body", size.body, "bytes/event"),
                    (f"log {how}", size.events, "events"),
                )
            ],
            remarks=["pg_total_relation_size: table, indexes, TOAST, free space and visibility."],
        )
    ]


def _grow(run: Run, least: int) -> Size:
    url = stage.new_database(run.server, intake.DATABASE)
    size = _size(url)
    loads = 0
    while size.events < least:
        if loads == MOST_LOADS:
            raise MeasureError(f"wrk made a log of {size.events:,} events only")
        with stage.served(url, stage.LEDGER) as address:
            wrk.send(address, run.seconds, f"size{loads}")
        size = _size(url)
        loads += 1
    return size


def _size(url: str) -> Size:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT pg_total_relation_size('ledger.event_log')::float8,"
            " sum(octet_length(body))::float8, count(*) FROM ledger.event_log"
        ).fetchone()
    disk, body, events = row or (0, 0, 0)
    return Size(disk / events, body / events, events) if events else Size(0, 0, 0)
