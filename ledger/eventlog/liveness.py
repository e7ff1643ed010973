"""Records when a process could make deliveries durable; what nobody recorded is an outage.

Source: design, "Loss windows". Elapsed time is measured by a clock that is never set, so that a
step of the other one invents no outage.
"""

import time
import uuid
from datetime import datetime

from psycopg import Connection

BEAT_SECONDS = 2.0
"""Between two records."""

LONGEST_GAP = 5.0
"""Seconds between two records that are no outage yet: an attempt waits longer than that."""


def steady_clock() -> float:
    """Return seconds of a clock that is never set, and that goes on while the machine is asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Liveness:
    """One run of one process. Its rows are the times through which it was alive."""

    def __init__(self) -> None:
        self._instance = uuid.uuid4()
        self._since: datetime | None = None
        self._last_beat = 0.0

    def is_due(self, monotonic: float) -> bool:
        """Tell whether it is time for the next record."""
        return monotonic - self._last_beat >= BEAT_SECONDS

    def beat(self, connection: Connection, now: datetime, monotonic: float) -> None:
        """Record that a delivery could be made durable now; `psycopg.Error` if none could."""
        gap = monotonic - self._last_beat
        self._last_beat = monotonic  # also of a beat that fails: the next try has time, too
        # A clock that was set back begins a new row: the old one's end is not reached yet.
        since = self._since if self._since and gap <= LONGEST_GAP and self._since <= now else now
        self._since = None
        connection.execute("SELECT record_liveness(%s, %s, %s)", (self._instance, since, now))
        self._since = since

    def interrupt(self) -> None:
        """Take note that a delivery could not be made durable."""
        self._since = None
