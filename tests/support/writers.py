"""A writer in a process of its own, which may be killed while its transaction is open."""

import threading
from multiprocessing.connection import Connection as Pipe

from ledger.eventlog.append import append
from ledger.postgres.connect import connect
from tests.support.histories import deliveries


def append_batches(url: str, batches: list[list[bytes]], answers: Pipe) -> None:
    """Append each batch in a transaction of its own, and say what was acknowledged."""
    with connect(url, "writer") as connection:
        for batch in batches:
            outcomes = append(connection, deliveries(batch))
            answers.send([(outcome.position, outcome.recorded) for outcome in outcomes])


def append_and_hang(url: str, batch: list[bytes], answers: Pipe) -> None:
    """Append a batch, say so, and never commit."""
    with connect(url, "writer") as connection, connection.transaction():
        append(connection, deliveries(batch))
        answers.send("appended")
        threading.Event().wait()
