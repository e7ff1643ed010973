"""Records when a process could make deliveries durable; a time without a record is an outage.

Source: docs/rules.md, "Loss windows". Elapsed time is measured by a clock that is never set, so
that a step of the wall clock invents no outage.
"""

import time
import uuid
from datetime import UTC, datetime

from psycopg import Connection

from ledger.postgres.session import KEEP_COMMITS_DURABLE

BEAT_SECONDS = 2.0
"""Between two records."""

LONGEST_GAP = 5.0
"""Seconds between two records that are no outage yet: an attempt waits longer than that."""


_TAKE_BACK = "DELETE FROM ledger.liveness WHERE instance = %s AND alive_from = %s"


def steady_clock() -> float:
    """Return seconds of a clock that is never set, and that goes on while the machine is asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Liveness:
    """One run of one process. Its rows are the times through which it was alive.

    One row, but for steps of the clock: set back to before the row, it begins another; set forward
    again by as much, the first goes on, and what the wrong clock said is taken back.
    """

    def __init__(self) -> None:
        self._instance = uuid.uuid4()
        self._rows: list[tuple[datetime, float]] = []
        """Where each row of this time begins, and by how many seconds the clock was set back."""
        self._last_beat = 0.0
        self._last_now = datetime.min.replace(tzinfo=UTC)

    def is_due(self, monotonic: float) -> bool:
        """Return whether the next record is due."""
        return monotonic - self._last_beat >= BEAT_SECONDS

    def beat(self, connection: Connection, now: datetime, monotonic: float) -> None:
        """Record that a delivery could be made durable now; `psycopg.Error` if none could."""
        gap = monotonic - self._last_beat
        step = (now - self._last_now).total_seconds() - gap
        self._last_beat, self._last_now = monotonic, now  # also of a beat that fails
        rows = self._rows if gap <= LONGEST_GAP else []
        self._rows = []
        wrong = None
        if not rows:
            rows = [(now, 0.0)]
        elif now < rows[-1][0]:
            rows = [*rows, (now, -step)]
        elif len(rows) > 1 and abs(step - rows[-1][1]) <= LONGEST_GAP:
            wrong, rows = rows[-1][0], rows[:-1]
        # The server may ask for more durable commits than when the connection was opened.
        connection.execute(KEEP_COMMITS_DURABLE)
        connection.execute(
            "SELECT ledger.record_liveness(%s, %s, %s)", (self._instance, rows[-1][0], now)
        )
        if wrong:
            connection.execute(_TAKE_BACK, (self._instance, wrong))
        self._rows = rows

    def interrupt(self) -> None:
        """Take note that a delivery could not be made durable."""
        self._rows = []
