"""Records a process's liveness and counts, from a thread and on a connection of its own.

Whatever keeps the records from being written must not keep a delivery from being stored, so the
event loop and its connection have no part in it. What could not be written is written later.
"""

import threading
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import structlog
from psycopg import Connection

from ledger.errors import LedgerError, one_line
from ledger.eventlog import liveness as liveness_module
from ledger.eventlog.delivery_hours import DeliveryHours
from ledger.eventlog.liveness import Liveness
from ledger.postgres.connect import connect
from ledger.postgres.session import KEEP_COMMITS_DURABLE

STATEMENT_TIMEOUT = 5_000
"""Milliseconds."""

_log = structlog.get_logger(__name__)


class LivenessRecorder:
    """Writes what `Liveness` notes, every `BEAT_SECONDS` and when it is told to hurry."""

    def __init__(self, url: str, liveness: Liveness) -> None:
        self._url = url
        self._liveness = liveness
        self._hours = DeliveryHours()
        self._connection: Connection | None = None
        self._hurried = threading.Event()
        self._has_recorded = threading.Event()
        self._stopping = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hurry(self) -> None:
        """Have the records written now: something begins or ends."""
        self._hurried.set()

    def wait_for_first_record(self, seconds: float) -> None:
        """Wait until something is recorded, for some seconds at most."""
        self._has_recorded.wait(seconds)

    def stop(self, seconds: float) -> None:
        """Write what is left, and wait for it for some seconds at most."""
        self._stopping = True
        self._hurried.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping:
            self._hurried.wait(liveness_module.BEAT_SECONDS)
            self._hurried.clear()
            self._write()
        self._write()  # what was noted while the last was being written
        self._close()

    def _write(self) -> None:
        self._write_liveness()
        self._write_counts()

    def _write_liveness(self) -> None:
        changes = self._liveness.take_changes()
        if not changes:
            return
        try:
            connection = self._connected()
            # The server may ask for more durable commits than when the connection was opened.
            connection.execute(KEEP_COMMITS_DURABLE)
            self._liveness.record(connection, changes)
        except (psycopg.Error, LedgerError) as error:
            self._liveness.give_back(changes)
            self._close()
            if not self._is_failing:
                _log.error("liveness cannot be recorded now", error=one_line(error))
            self._is_failing = True
        else:
            self._is_failing = False
            self._has_recorded.set()

    def _write_counts(self) -> None:
        """Add the counts, after the liveness: nothing of theirs may delay that."""
        self._hours.note(datetime.now(UTC))
        if self._connection is None:
            return
        with suppress(psycopg.Error):  # counted all the same, and added the next time
            self._hours.record(self._connection)
        if self._connection.closed:  # else the next liveness would find that out, and wait
            self._close()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._url, "liveness")
            self._connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT}")
        return self._connection

    def _close(self) -> None:
        if self._connection:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None
