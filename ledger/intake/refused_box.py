"""Collects refused deliveries behind their answers, and writes them to the box in groups.

The event loop only adds to a bounded collection. A thread of its own, with a connection of its own
that is open only while there is something to write, does the rest. What does not fit is counted and
forgotten: its sender was refused anyway, and sends it again.
"""

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import structlog
from msgspec import structs
from psycopg import Connection

from ledger.errors import LedgerError, one_line
from ledger.eventlog.append import Delivery
from ledger.metrics import BOXED
from ledger.operations.refused_deliveries.keep import Bounds, Kept, Refusal, Refused, keep
from ledger.postgres.connect import connect

GATHER_SECONDS = 0.5
"""How long deliveries gather before they are written."""

RETRY_SECONDS = 2.0
"""Between two attempts, while the database is away."""

IDLE_SECONDS = 30.0
"""After so long without a delivery, the connection is closed."""

MOST_WAITING = 1_000
MOST_WAITING_BYTES = 4 * 1024 * 1024

SAY_SECONDS = 60.0
"""Between two lines in the log that known labs are refused."""

STATEMENT_TIMEOUT = 5_000
"""Milliseconds."""

_log = structlog.get_logger(__name__)


class RefusedBox:
    """The refused deliveries of one worker, on their way into the box."""

    def __init__(self, url: str, bounds: Bounds) -> None:
        self._url = url
        self._bounds = bounds
        self._lock = threading.Lock()
        self._waiting: dict[bytes, Refused] = {}
        self._bytes = 0
        self._connection: Connection | None = None
        self._said = -SAY_SECONDS
        self._something = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refused deliveries", daemon=True)

    @property
    def has_room(self) -> bool:
        """Whether another delivery can wait to be written. With bounds of nothing, none can."""
        return (
            len(self._waiting) < MOST_WAITING
            and self._bytes < MOST_WAITING_BYTES
            and self._bounds.rows > 0
        )

    def add(self, delivery: Delivery, reason: Refusal, client: str) -> None:
        """Add a delivery, or forget it if there is no room."""
        digest, at = delivery.columns.digest, delivery.received_at
        with self._lock:
            there = self._waiting.get(digest)
            if there is not None:
                there.times += 1
                there.last_received_at = max(there.last_received_at, at)
            elif self.has_room:
                self._waiting[digest] = Refused(delivery, reason, client, 1, at)
                self._bytes += len(delivery.body)
            else:
                BOXED.labels(outcome="without_room").inc()
                return
        self._something.set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end the thread."""
        self._stop.set()
        self._something.set()
        self._thread.join(GATHER_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._something.wait(IDLE_SECONDS):
                self._disconnect()
                continue
            self._stop.wait(GATHER_SECONDS)
            self._something.clear()
            if not self._write():
                self._something.set()
                self._stop.wait(RETRY_SECONDS)
        self._disconnect()

    def _write(self) -> bool:
        """Write what waits; return whether that is done. Never raises."""
        with self._lock:
            batch = [structs.replace(one) for one in self._waiting.values()]
        if not batch:
            return True
        written = {one.delivery.columns.digest: one.times for one in batch}
        try:
            kept = keep(self._connected(), batch, self._bounds, datetime.now(UTC))
        except (psycopg.OperationalError, LedgerError) as error:
            self._disconnect()
            _log.debug("could not keep refused deliveries", error=one_line(error))
            return False
        except Exception:  # noqa: BLE001 -- they must not stand in the way of the next ones
            self._disconnect()
            _log.exception("could not keep refused deliveries")
            self._forget(written)
            return True
        self._forget(written)
        self._report(kept)
        return True

    def _forget(self, written: dict[bytes, int]) -> None:
        """Remove what was written; what came again meanwhile stays, and counts as that often."""
        with self._lock:
            for digest, times in written.items():
                one = self._waiting[digest]
                one.times -= times
                if not one.times:
                    del self._waiting[digest]
                    self._bytes -= len(one.delivery.body)
            if self._waiting:
                self._something.set()

    def _report(self, kept: Kept) -> None:
        BOXED.labels(outcome="new").inc(kept.new)
        BOXED.labels(outcome="repeated").inc(kept.repeated)
        BOXED.labels(outcome="without_room").inc(kept.without_room)
        now = time.monotonic()
        if kept.known_labs and now - self._said >= SAY_SECONDS:
            self._said = now
            _log.warning(
                "webhooks of known labs come with a wrong token: see `ledger refused list`",
                labs=kept.known_labs,
            )

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = connect(self._url, "refused")
            try:
                connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT}")
            except psycopg.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()
